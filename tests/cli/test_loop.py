"""Commands run on uvloop where it is installed."""

from __future__ import annotations

import asyncio
import sys

import pytest

from segue.cli.loop import run


async def name_of_the_loop() -> str:
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def test_runs_on_uvloop() -> None:
    pytest.importorskip("uvloop")
    assert run(name_of_the_loop()) == "uvloop"


def test_runs_on_asyncio_where_there_is_no_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(name_of_the_loop()) == "asyncio"
