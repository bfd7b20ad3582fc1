"""The parts of a solution: templates, and what is found in answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.upstreams.scripted_tasks.steps import (
    MAX_ANSWER,
    MAX_LINE,
    Find,
    Found,
    Offset,
    RewrittenText,
    ScriptedCall,
    StuckError,
    edit,
    fill,
    learn,
    list_folder,
    read,
    read_lines,
    render,
    run,
    search,
    write,
)

FOUND: Found = {"file": "a.py", "line": "9", "text": "one\ntwo\none\n\n"}


def arguments(call: ScriptedCall) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(render(call, "c", FOUND).arguments)
    return made


def test_a_call_has_every_argument_of_its_tool() -> None:
    """The agent's schemas are strict: null stands for what is left out."""
    assert arguments(list_folder(".")) == {"path": ".", "depth": None}
    assert arguments(read("$file")) == {"path": "a.py", "first_line": None, "last_line": None}
    assert arguments(search("x", "$file")) == {"pattern": "x", "path": "a.py", "regex": False}
    assert arguments(edit("$file", "l$line", "${line}x")) == {"path": "a.py", "old": "l9", "new": "9x"}
    assert arguments(write("$file", "$$5")) == {"path": "a.py", "text": "$5"}
    assert arguments(run("cat $file", 0)) == {"command": "cat a.py", "time_limit_s": None}


def test_line_numbers_move_and_stay_in_the_file() -> None:
    call = read_lines("$file", Offset("line", -20), Offset("line", 3))
    assert arguments(call) == {"path": "a.py", "first_line": 1, "last_line": 12}


def test_a_line_number_that_no_file_has_is_still_a_number_for_json() -> None:
    call = read_lines("a.py", Offset("line", 0), Offset("line", 1))
    assert '"last_line":1000000001}' in render(call, "c", {"line": "9" * 400}).arguments


def test_a_rewritten_text_ends_in_one_line_end() -> None:
    rules = (("^one$", "1"), ("(two)", r"\1!"))
    assert arguments(write("$file", RewrittenText("text", rules)))["text"] == "1\ntwo!\n1\n"


def test_a_text_that_no_rule_matches_is_not_written() -> None:
    with pytest.raises(StuckError, match="nothing in it matches 'three'"):
        render(write("$file", RewrittenText("text", (("three", "3"),))), "c", FOUND)


def test_what_is_found_is_kept() -> None:
    found: Found = {"old": "x"}
    learn(read("a", Find(r"^def (?P<name>\w+)", "a function"), keep="whole"), "import os\ndef go():\n", found)
    assert found == {"old": "x", "name": "go", "whole": "import os\ndef go():\n"}
    assert fill("call $name", found) == "call go"


@pytest.mark.parametrize(
    "answer",
    ["one\n  two\n", "[lines 1 to 2 of 1,000]\none\n  two\n", "    1\tone\n    2\t  two\n", "9\tone\n10\t  two\n"],
)
def test_heads_and_line_numbers_are_no_part_of_a_text(answer: str) -> None:
    found: Found = {}
    learn(read("a", keep="text"), answer, found)
    assert found == {"text": "one\n  two\n"}


def test_a_text_of_which_some_lines_look_numbered_stays_as_it_is() -> None:
    found: Found = {}
    learn(read("a", keep="text"), "1\tone\ntwo\n", found)
    assert found == {"text": "1\tone\ntwo\n"}


def test_a_tool_that_failed_is_quoted_in_one_short_line() -> None:
    with pytest.raises(StuckError) as caught:
        learn(read("a"), f"error: {'x' * 500}\nand more", {})
    assert str(caught.value) == f"The tool read answered: error: {'x' * 193}"


@pytest.mark.parametrize("answer", ["x" * (MAX_LINE + 1), "\n" * (MAX_ANSWER + 1), "a\n" + " " * (MAX_LINE + 1)])
def test_patterns_are_not_tried_on_what_no_workspace_holds(answer: str) -> None:
    with pytest.raises(StuckError, match="answered with more than I can read"):
        learn(read("a", Find(" +x", "an x")), answer, {})


@pytest.mark.parametrize("answer", ["", "[exit status 1]\n", "[exit status 10]\n", "[killed after 120 s]\n"])
def test_an_answer_without_what_is_needed_says_what_it_was(answer: str) -> None:
    with pytest.raises(StuckError, match="I expected exit status 0 in the answer of the tool run"):
        learn(run("true", 0), answer, {})


@pytest.mark.parametrize("answer", ["[exit status 0]\n", "done\nexit status: 0\n", "exit status: 0"])
def test_the_exit_status_may_stand_anywhere(answer: str) -> None:
    learn(run("true", 0), answer, {})
