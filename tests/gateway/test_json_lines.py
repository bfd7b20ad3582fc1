"""Lines of JSON in a file of its owner; a disk that is full or slow holds up nobody."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest

from segue.gateway import json_lines
from segue.gateway.json_lines import JsonLines


class Line(msgspec.Struct):
    number: int


def test_lines_are_appended_to_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    for number in (1, 2):
        lines = JsonLines(str(file), "test")
        assert lines.on
        assert lines.put(Line(number))
        lines.close()
        lines.close()
        assert not lines.on
    assert [json.loads(line)["number"] for line in file.read_text().splitlines()] == [1, 2]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_place_it_is_off() -> None:
    lines = JsonLines(None, "test")
    assert not lines.on
    lines.close()


def test_lines_can_go_to_the_stream_of_errors(capfd: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines("stderr", "test")
    lines.put(Line(7))
    lines.close()
    assert capfd.readouterr().err == '{"number":7}\n'
    os.write(2, b"still open")


def test_what_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    lines = JsonLines(str(tmp_path / "log"), "test")
    monkeypatch.setattr(os, "write", refuse)
    lines.put(Line(1))
    lines.close()
    assert lines.failed == 1


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_MOST_WAITING", 2)
    lines = JsonLines(None, "test")  # nobody takes them
    assert [lines.put(Line(number)) for number in range(3)] == [True, True, False]
