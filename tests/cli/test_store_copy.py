"""`segue store copy`: what it prints, and its status."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from segue.cli.store_copy import _Progress
from segue.stores.copying import CopyTally
from segue.stores.sqlite import SqliteStore
from segue.testing.store_conformance import sample_record
from tests.cli.conftest import Command
from tests.stores.copies import fill


def filled(path: Path) -> str:
    async def write() -> None:
        store = await SqliteStore.open(path)
        await fill(store)
        await store.aclose()

    asyncio.run(write())
    return f"sqlite:///{path}"


def test_a_copy_is_verified(command: Command, tmp_path: Path) -> None:
    urls = (filled(tmp_path / "a.db"), f"sqlite:///{tmp_path}/b.db")
    status, printed, told = command("store", "copy", *urls)
    assert (status, told) == (0, "")
    assert printed.startswith("copied 11 of 11 turns and 2 of 2 conversations; the others were there\nverified: ")
    status, printed, _ = command("store", "copy", *urls, "--json")
    report = json.loads(printed)
    assert (status, report["verified"], report["written_turns"]) == (0, True, 0)
    assert report["source"] == report["target"]


def test_a_target_that_is_not_the_same_is_told(command: Command, tmp_path: Path) -> None:
    urls = (filled(tmp_path / "b.db"), filled(tmp_path / "a.db"))

    async def write() -> None:
        store = await SqliteStore.open(tmp_path / "a.db")
        await store.append(sample_record("stranger"))
        await store.aclose()

    asyncio.run(write())
    status, printed, _ = command("store", "copy", *urls)
    assert status == 1
    assert "NOT THE SAME: the target holds 12 turns and 2 conversations" in printed


@pytest.mark.parametrize(
    ("urls", "told"),
    [
        (("sqlite:///none.db", "sqlite:///b.db"), "there is no file none.db"),
        (("memory:", "sqlite:///b.db"), "memory: is in a gateway alone"),
        (("sqlite:///a.db", "sqlite:///a.db"), "FROM and TO are the same store"),
        (("x", "sqlite:///a.db"), "'x' is not a store"),
        (("postgresql:///db?host=/nowhere&password=hunter2", "sqlite:///a.db"), "No such file or directory"),
    ],
)
def test_what_cannot_be_copied_is_told(command: Command, urls: tuple[str, str], told: str) -> None:
    status, _, said = command("store", "copy", *urls)
    assert status != 0
    assert told in said
    assert "hunter2" not in said


def test_a_terminal_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Once a second at most."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    times = iter([0.0, 0.5, 1.0, 1.5])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    progress = _Progress()
    for turns in (1000, 2000, 3000):
        progress("copied", CopyTally(turns=turns))
    assert capsys.readouterr().err == "copied 2,000 turns, 0 conversations\n"
