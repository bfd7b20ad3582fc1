"""Opening what is shared: nothing for memory, and a word if the client is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.opening import open_live


async def test_memory_shares_nothing() -> None:
    assert open_live("memory:", address="", started_at=0.0) is None
    with pytest.raises(ValueError, match="another kind"):
        open_live("memcached://h", address="", started_at=0.0)


async def test_nothing_is_asked_before_the_node_is_started() -> None:
    live = open_live("redis://127.0.0.1:1", address="", started_at=0.0)
    assert live is not None
    assert not live.available
    assert len(live.nodes.id) == 16
    await live.aclose()


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segue.stores.live.redis_live", None)
    with pytest.raises(LiveUnavailable, match=r"live needs the package .*: install segue with its extra cluster"):
        open_live("redis://h", address="", started_at=0.0)


def test_the_client_is_not_imported_by_who_shares_nothing() -> None:
    program = "import sys, segue.stores.live.opening, segue.stores.live.memory; print('redis' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert ran.stdout == "False\n"
