"""What mutmut notes of its mutants is read and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import mutants
from tools.mutants import Result, Survivor, judge, page, reason_of


def survivor(before: str, after: str, *, reached: bool = True) -> Survivor:
    return Survivor(where="protocol.ids:parse", before=before, after=after, reached=reached)


@pytest.mark.parametrize(
    ("before", "after", "wording"),
    [
        ('"Say it again."', '"SAY IT AGAIN."', True),
        ('return Problem(code, "Say it again.")', 'return Problem(code, "XXSay it again.XX")', True),
        ('mode="x"', 'mode="XXxXX"', False),  # no text for people
        ("return a + 1", "return a + 2", False),
    ],
)
def test_a_changed_text_is_told_from_a_changed_decision(before: str, after: str, *, wording: bool) -> None:
    assert survivor(before, after).wording is wording


def test_a_survivor_may_stay_for_a_reason_that_somebody_wrote_down() -> None:
    kept = {"protocol.ids:parse": {"size = 1": "equivalent: the next line sets it"}}
    assert reason_of(survivor("size = 0", "size = 1"), kept) == "equivalent: the next line sets it"
    assert reason_of(survivor("size = 0", "size = 2"), kept) == ""
    assert reason_of(survivor('"A b."', '"a b."'), kept) == "wording"
    assert reason_of(survivor('"A b."', '"a b."', reached=False), kept) == "", "a test has to get there first"


def test_mutants_are_counted_by_what_became_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "build" / "mutants" / "protocol" / "mutants" / "src" / "segue" / "protocol"
    folder.mkdir(parents=True)
    name = "segue.protocol.ids.x_parse__mutmut_"
    codes = {f"{name}1": 1, f"{name}2": 0, f"{name}3": -24, f"{name}4": 33, f"{name}5": None}
    (folder / "ids.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    shown = "# it survived\n--- a\n+++ b\n@@ -1 +1 @@\n def parse():\n-    size = 0\n+    size = 1\n"
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "_mutmut", lambda folder, *arguments: shown)
    result = judge("protocol")
    assert result.tried == 4, "one was not tried"
    assert result.survivors == (survivor("size = 0", "size = 1"), survivor("size = 0", "size = 1", reached=False))
    assert result.killed_percent == 50


def test_the_page_lists_what_survived() -> None:
    result = Result(package="protocol", tried=10, survivors=(survivor("a | b", "a & b"), survivor('"A b."', '"a b."')))
    text = page(result)
    assert "noticed 8: **80.0 %**" in text
    assert "- 1: wording\n" in text
    assert "| `protocol.ids:parse` | `a \\| b` → `a & b` | no test yet |" in text
    assert '"A b."' not in text


def test_what_survived_is_tried_again(tmp_path: Path) -> None:
    notes = tmp_path / "ids.py.meta"
    notes.write_text(json.dumps({"exit_code_by_key": {"killed": 1, "survived": 0, "not reached": 33}, "other": 1}))
    mutants.forget_survivors(tmp_path)
    codes = {"killed": 1, "survived": None, "not reached": None}
    assert json.loads(notes.read_text()) == {"exit_code_by_key": codes, "other": 1}
