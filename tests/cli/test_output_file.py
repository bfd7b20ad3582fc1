"""A file that cannot be written is refused before the work, and not after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.cli.output_file import check_writable
from tests.cli.conftest import Command


def test_a_file_that_can_be_written_is_none_or_new_or_there(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for file in (None, tmp_path / "new", tmp_path / "there"):
        check_writable(Path, file)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        check_writable(Path, tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        check_writable(Path, tmp_path / "none" / "file")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="may not write"):
        check_writable(Path, tmp_path / "file")


@pytest.mark.parametrize(
    "line",
    [
        "agent Go. --json",
        "demo --json",
        *(f"bench {name} --json" for name in ("gateway", "dialects", "engine", "table", "links", "capacity")),
        "bench engine --plot",
        "bench capacity --html",
        "bench capacity --markdown",
        "bench report --html",
    ],
)
def test_no_command_works_in_vain(command: Command, line: str) -> None:
    status, _, told = command(*line.split(), "none/report.json")
    assert (status, "there is no folder none" in told) == (2, True), told
