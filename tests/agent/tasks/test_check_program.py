"""The program that runs a workspace's tests and reports on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segue.agent.tasks import check_program

TEST = "import unittest\nclass {name}(unittest.TestCase):\n    def test_it(self):\n        {body}\n"


def workspace(folder: Path, **tests: str) -> Path:
    for name, body in tests.items():
        (folder / name).mkdir()
        (folder / name / f"test_{name}.py").write_text(TEST.format(name=name.title(), body=body), encoding="utf-8")
    return folder


def report(folder: Path, *folders: str) -> dict[str, Any]:
    written = folder / "report.json"
    command = (sys.executable, "-I", "-B", check_program.__file__, str(folder), str(written), *folders)
    subprocess.run(command, check=True, capture_output=True)
    read: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return read


def test_it_runs_the_tests_of_the_folders_that_are_there(tmp_path: Path) -> None:
    workspace(tmp_path, one="self.assertEqual(1, 1)", two="self.assertEqual('a\\nb', 'a\\nc')")
    assert report(tmp_path, "one", "two", "three") == {
        "ran": 2,
        "failed": [["test_two.Two.test_it", "AssertionError: 'a\\nb' != 'a\\nc'"]],
    }


def test_it_reports_in_the_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    workspace(tmp_path, boom="raise ValueError('x' * 1000)")
    check_program.main((str(tmp_path), str(tmp_path / "report.json"), "boom", "none"))
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["ran"] == 1
    assert read["failed"] == [["test_boom.Boom.test_it", ("ValueError: " + "x" * 1000)[:300]]]
    assert capsys.readouterr() == ("", "")


def test_a_package_of_tests_can_import_from_itself(tmp_path: Path) -> None:
    workspace(tmp_path, pack="from pack.more import VALUE; self.assertEqual(VALUE, 5)")
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "more.py").write_text("VALUE = 5\n", encoding="utf-8")
    assert report(tmp_path, "pack") == {"ran": 1, "failed": []}
