"""A file that cannot be written is refused before the work, and not after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.cli.output_file import check_writable, writing
from segue.config import ConfigError
from tests.cli.conftest import Command


def test_a_file_that_can_be_written_is_none_or_new_or_there(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for file in (None, tmp_path / "new", tmp_path / "there"):
        check_writable(Path, file)


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is a folder: "):
        check_writable(Path, tmp_path)
    with pytest.raises(ValueError, match="There is no folder "):
        check_writable(Path, tmp_path / "none" / "file")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ValueError, match="may not write"):
        check_writable(Path, tmp_path / "file")


@pytest.mark.parametrize(
    "line",
    [
        "agent Go. --json",
        "demo --json",
        *(f"bench {name} --json" for name in ("gateway", "tunnel", "dialects", "engine", "table", "links", "capacity")),
        "bench engine --plot",
        "bench capacity --html",
        "bench capacity --markdown",
        "bench report --html",
    ],
)
def test_no_command_works_in_vain(command: Command, line: str) -> None:
    status, _, told = command(*line.split(), "none/report.json")
    assert (status, "There is no folder none." in told) == (2, True), told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk at hand")
@pytest.mark.parametrize("line", ["bench links --json", "bench capacity --html", "bench capacity --json"])
def test_a_disk_that_fills_up_is_told_in_a_line(command: Command, line: str) -> None:
    status, shown, told = command(*line.split(), "/dev/full")
    assert (status, told) == (2, "segue: cannot write /dev/full: no space left on device\n")
    assert shown, "the figures were shown before"


def test_the_reason_is_said_where_there_is_one() -> None:
    for error, reason in ((OSError(28, "No space left on device"), "no space left"), (OSError("odd"), "odd")):
        with pytest.raises(ConfigError, match=f"cannot write out.json: {reason}"), writing(Path("out.json")):
            raise error
