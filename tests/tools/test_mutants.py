"""What mutmut notes of its mutants is read and told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tools import mutants
from tools.mutants import SEED, Result, Survivor, choose, copy_changed, in_order, judge, page, reason_of


def survivor(before: str, after: str, *, reached: bool = True) -> Survivor:
    return Survivor(where="protocol.ids:parse", before=before, after=after, reached=reached)


@pytest.mark.parametrize(
    ("before", "after", "wording"),
    [
        ('"Say it again."', '"SAY IT AGAIN."', True),
        ('return Problem(code, "Say it again.")', 'return Problem(code, "XXSay it again.XX")', True),
        ('mode="x"', 'mode="XXxXX"', False),  # no text for people
        ('say("It is wrong.", mode="x")', 'say("It is wrong.", mode="XXxXX")', False),
        ('say("It is wrong.", mode="x")', 'say("XXIt is wrong.XX", mode="x")', True),
        ('say("It is wrong.", mode="x")', 'say("It is wrong.", mode=None)', False),
        ('say("It is wrong.")', "say()", False),
        ('kind or "" # no text', 'kind or "XXXX" # no text', False),
        ("return a + 1", "return a + 2", False),
    ],
)
def test_a_changed_text_is_told_from_a_changed_decision(before: str, after: str, *, wording: bool) -> None:
    assert survivor(before, after).wording is wording


def test_a_survivor_may_stay_for_a_reason_that_somebody_wrote_down() -> None:
    kept = {"protocol.ids:parse": {"size = 1": "equivalent: the next line sets it", '"X Y"': "another name of it"}}
    assert reason_of(survivor("size = 0", "size = 1"), kept) == "equivalent: the next line sets it"
    assert reason_of(survivor("size = 0", "size = 2"), kept) == ""
    assert reason_of(survivor('"A b."', '"a b."'), kept) == "wording"
    assert reason_of(survivor('"x y"', '"X Y"'), kept) == "another name of it"
    assert reason_of(survivor('"A b."', '"a b."', reached=False), kept) == "", "a test has to get there first"


def write_notes(folder: Path, module: str, codes: dict[str, int | None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py.meta").write_text(json.dumps({"exit_code_by_key": codes, "other": 1}))


def read_notes(folder: Path, module: str) -> dict[str, int | None]:
    notes = json.loads((folder / f"{module}.py.meta").read_text())
    assert set(notes) == {"exit_code_by_key", "other"}
    codes: dict[str, int | None] = notes["exit_code_by_key"]
    return codes


def test_mutants_are_counted_by_what_became_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "build" / "mutants" / "protocol" / "mutants" / "src" / "segue" / "protocol"
    name = "segue.protocol.ids.x_parse__mutmut_"
    codes = {f"{name}1": 1, f"{name}2": 0, f"{name}3": -24, f"{name}4": 33, f"{name}5": None, f"{name}6": 34}
    write_notes(folder, "ids", codes)
    diff = "--- a\n+++ b\n@@ -1 +1 @@\n def parse():\n-    size = 0\n+    size = 1\n"
    asked: list[tuple[str, ...]] = []

    def trials(folder: Path, *arguments: str) -> str:
        asked.append(arguments)
        return json.dumps(dict.fromkeys(arguments[1:], diff))

    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    monkeypatch.setattr(mutants, "_trials", trials)
    assert judge("protocol") == Result(
        package="protocol",
        planted=6,
        tried=4,  # one was not chosen, and one not tried yet
        timed_out=1,
        survivors=(survivor("size = 0", "size = 1"), survivor("size = 0", "size = 1", reached=False)),
    )
    assert asked == [("diffs", f"{name}2", f"{name}4")]


def test_the_page_lists_what_survived() -> None:
    survivors = (survivor("a | b", "a & b"), survivor('"A b."', '"a b."'))
    result = Result(package="protocol", planted=10, tried=10, timed_out=3, survivors=survivors)
    text = page(result)
    assert "planted 10 faults" in text
    assert "noticed 8: **80.0 %**." in text
    assert "there were 3 of these" in text
    assert "- 1: wording\n" in text
    assert "| `protocol.ids:parse` | `a \\| b` → `a & b` | no test yet |" in text
    assert '"A b."' not in text
    assert "random" not in text


def test_the_page_of_a_sample_says_how_sure_it_is() -> None:
    """Wilson's interval for 90 of 100 is 82.6 to 94.5 %, as in every textbook."""
    result = Result(package="protocol", planted=2000, tried=100, timed_out=0, survivors=(survivor("a", "b"),) * 10)
    text = page(result)
    assert "planted 2,000 faults" in text
    assert f"Of these, 100 were tried, chosen at random (`--sample 100`, seed {SEED})." in text
    assert "noticed 90: **90.0 %** (95 % confidence interval for all of them: 82.6 to 94.5 %)." in text


def test_what_survived_is_tried_again_unless_it_may(tmp_path: Path) -> None:
    codes: dict[str, int | None] = {
        "killed": 1,
        "survived": 0,
        "may survive": 0,
        "not reached": 33,
        "not chosen before": 34,
    }
    write_notes(tmp_path, "ids", codes)
    choose(tmp_path, None, {"may survive"})
    assert read_notes(tmp_path, "ids") == {
        "killed": 1,
        "survived": None,
        "may survive": 0,
        "not reached": None,
        "not chosen before": None,
    }


def test_a_sample_is_of_all_mutants_and_the_same_each_time(tmp_path: Path) -> None:
    """Those that were noticed before and are not in it do not count; those in it are not tried again."""

    def sample(size: int, code: int | None) -> dict[str, int | None]:
        for module in ("ids", "items"):
            write_notes(tmp_path, module, {f"{module} {number}": code for number in range(50)})
        choose(tmp_path, size)
        return read_notes(tmp_path, "ids") | read_notes(tmp_path, "items")

    first = sample(10, None)
    chosen = {name for name, code in first.items() if code is None}
    assert (len(first), len(chosen), len({name.split()[0] for name in chosen})) == (100, 10, 2)
    assert set(first.values()) == {None, 34}
    assert sample(10, 1) == {name: 1 if name in chosen else 34 for name in first}
    assert set(sample(100, None).values()) == {None}


def test_the_tests_that_soon_tell_come_first() -> None:
    """Quick ones, and those of the mutant's own module before others of about their length."""
    seconds = {
        "tests/dialects/chat/test_request.py::slow": 9.0,
        "tests/dialects/chat/test_request.py::quick": 0.1,
        "tests/dialects/messages/test_request.py::as_quick": 0.1,
        "tests/dialects/test_items.py::at_once": 0.01,
        "tests/dialects/test_items.py::medium": 1.0,
    }
    for function in ("x_body", "xǁRequestǁbody"):
        assert in_order(seconds, f"segue.dialects.chat.request.{function}__mutmut_12", seconds) == [
            "tests/dialects/test_items.py::at_once",
            "tests/dialects/chat/test_request.py::quick",
            "tests/dialects/messages/test_request.py::as_quick",
            "tests/dialects/test_items.py::medium",
            "tests/dialects/chat/test_request.py::slow",
        ]


def test_a_file_that_has_not_changed_keeps_its_time(tmp_path: Path) -> None:
    """However new the original is: mutants take long to make."""
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "package").mkdir(parents=True)
    for name in ("same.py", "package/changed.py", "package/gone.py", "package/x.pyc"):
        (source / name).write_text(name)
    copy_changed(source, target)
    for path in target.rglob("*.py"):
        os.utime(path, (1, 1))
    (source / "package" / "changed.py").write_text("new")
    (source / "package" / "gone.py").unlink()
    (source / "same.py").touch()
    copy_changed(source, target)
    files = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    assert {name: path.read_text() for name, path in files.items()} == {
        "same.py": "same.py",
        "package/changed.py": "new",
    }
    assert {name: path.stat().st_mtime == 1 for name, path in files.items()} == {
        "same.py": True,
        "package/changed.py": False,
    }
