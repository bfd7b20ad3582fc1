"""The program that searches, in this process: what it prints for a search."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import pytest

from segue.agent import search_process


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)  # it would be the limit of the tests
    (tmp_path / "one").write_text("first\nsecond\n")
    (tmp_path / "two").write_text("second line\n")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "three").write_text("second\n")
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "binary").write_bytes(b"\0")
    os.mkfifo(tmp_path / "pipe")
    names = {"file": "", "shown": "", "pattern": "second", "closed": ["closed"]}
    monkeypatch.setattr(search_process, "MAX_LINE_CHARACTERS", 6)
    return {"folder": os.open(tmp_path, os.O_RDONLY), "regex": False, **names}


def printed(request: dict[str, object], capsysbinary: pytest.CaptureFixture[bytes]) -> str:
    sys.argv[1:] = [json.dumps(request)]
    search_process.main()
    return capsysbinary.readouterr().out.decode()


@pytest.fixture(autouse=True)
def arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["search"])


def test_a_folder(request_of: dict[str, object], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert printed(request_of, capsysbinary) == (
        "one:2:second\ntwo:1:second …\n(2 files searched, 1 binary or large ones skipped)\n"
    )
    assert printed(request_of | {"file": "one", "shown": "in"}, capsysbinary) == "in/one:2:second\n(1 files searched)\n"
    assert printed(request_of | {"regex": True, "pattern": "^sec.* l"}, capsysbinary).startswith("two:1:second …\n(2")


def test_too_many_matches(
    request_of: dict[str, object], capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_process, "MAX_MATCHES", 1)
    assert printed(request_of, capsysbinary).splitlines() == [
        "one:2:second",
        "… more than 1 matches; search for something rarer, or in a folder below",
    ]


def test_a_pattern_that_is_none(request_of: dict[str, object], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit, match="unterminated"):
        printed(request_of | {"regex": True, "pattern": "["}, capsysbinary)
