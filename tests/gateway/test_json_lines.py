"""Lines of JSON in a file of its owner; a disk that is full or slow holds up nobody."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from segue.gateway import json_lines
from segue.gateway.json_lines import JsonLines, LogLine


class Line(LogLine, frozen=True):
    number: int


def test_lines_are_appended_to_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    for number in (1, 2):
        lines = JsonLines(str(file), "test")
        assert lines.on
        lines.put(Line(number=number))
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
    lines.put(Line(number=7))
    lines.close()
    assert capfd.readouterr().err == '{"number":7}\n'
    os.write(2, b"still open")


def test_what_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    lines = JsonLines(str(tmp_path / "log"), "test")
    monkeypatch.setattr(os, "write", refuse)
    lines.put(Line(number=1))
    lines.close()
    assert lines.failed == 1


def test_what_is_left_out_is_told_by_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Because too many wait for a slow disk, or because whoever writes left it out."""
    monkeypatch.setattr(json_lines, "_MOST_WAITING", 2)
    file, go_on, write = tmp_path / "log", threading.Event(), os.write

    def slowly(descriptor: int, data: bytes) -> int:
        go_on.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", slowly)
    lines = JsonLines(str(file), "test")
    for number in range(10):
        lines.put(Line(number=number))
    go_on.set()
    lines.leave_out()
    while not file.read_text().count("\n"):
        pass
    while len(read(file)) < 2 or read(file)[-1].get("left_out") is None:
        lines.put(Line(number=10))
    lines.close()
    told = [line["left_out"] for line in read(file) if "left_out" in line]
    written = {line["number"] for line in read(file)} - {10}
    assert told[0] >= 10 - len(written) + 1


def read(file: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
