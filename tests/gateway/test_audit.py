"""The audit log: lines of JSON without keys and content, and never so many that they harm."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.gateway.audit import AuditLog
from segue.gateway.principal import Principal


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_lines_are_appended_to_a_file_of_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    for response_id in ("one", "two"):
        log = AuditLog(str(file), lambda: 12.3456)
        log.note("delete", Principal("a", "k", "digest"), peer="192.0.2.1", response_id=response_id, status=200)
        log.close()
        log.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [line["response_id"] for line in lines_of(file)] == ["one", "two"]
    assert lines_of(file)[0] == {
        "at": 12.346,
        "action": "delete",
        "tenant": "a",
        "key": "k",
        "peer": "192.0.2.1",
        "response_id": "one",
        "status": 200,
    }


def test_without_a_place_nothing_is_written() -> None:
    log = AuditLog(None, lambda: 0.0)
    log.note("reload")
    log.close()


def test_keys_that_are_tried_without_end_do_not_fill_the_disk(tmp_path: Path) -> None:
    """What was left out is counted in the next line."""
    now = 0.0
    log = AuditLog(str(tmp_path / "log"), lambda: now)
    for _ in range(5000):
        log.note("refused_key", peer="192.0.2.1")
    log.note("read", status=200)
    now = 60.0
    log.note("refused_key")
    log.close()
    lines = lines_of(tmp_path / "log")
    assert len(lines) == 602
    assert lines[600] == {"at": 0.0, "action": "read", "status": 200, "left_out": 4400}
    assert "left_out" not in lines[601]


def test_a_full_disk_stops_nobody_and_the_next_line_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        del descriptor
        if not written and len(data) > 0 and b"first" in data:
            raise OSError(28, "No space left on device")
        written.append(data)
        return len(data)

    log = AuditLog(str(tmp_path / "log"), lambda: 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        log.note("read", response_id="first")
        until(lambda: log.failed)
        log.note("read", response_id="second")
        log.close()
    assert [json.loads(line) for line in written] == [
        {"at": 0.0, "action": "read", "response_id": "second", "left_out": 1}
    ]


def test_the_stream_of_errors_is_a_place_too(capfd: pytest.CaptureFixture[str]) -> None:
    log = AuditLog("stderr", lambda: 0.0)
    log.note("refused_reload", reason="it is not valid TOML")
    log.close()
    assert json.loads(capfd.readouterr().err) == {
        "at": 0.0,
        "action": "refused_reload",
        "reason": "it is not valid TOML",
    }


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        AuditLog(str(tmp_path / "none" / "log"), lambda: 0.0)
