"""Every tunnel of a sidecar in this process is heard by the checker of the wire, whatever carries it: TCP, TLS, ssh.

In the folders whose `conftest.py` imports `heard_tunnels`, a test fails if either end did what docs/spec/tunnel.md does
not allow. What was corrupted on its way is not counted. Not here: sidecars in processes of their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from segue.tunnel.client import TunnelClient
from tests.tunnel.checkers import new_checker

if TYPE_CHECKING:
    from segue.testing.tunnel_checker import TunnelChecker
    from segue.tunnel.events import ClientEvent, LinkFailed, Writable


@pytest.fixture(autouse=True)
def heard_tunnels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hear all tunnels that begin in this test, and judge them at its end."""
    heard: dict[TunnelClient, TunnelChecker] = {}
    open_link, next_packet, receive = TunnelClient.link_opened, TunnelClient.next_packet, TunnelClient.receive

    def hear_link(tunnel: TunnelClient, now: float) -> None:
        heard.setdefault(tunnel, new_checker()).link_opened()
        open_link(tunnel, now)

    def hear_up(tunnel: TunnelClient, now: float) -> bytes | None:
        packet = next_packet(tunnel, now)
        if packet is not None:
            heard[tunnel].sent("up", packet)
        return packet

    def hear_down(tunnel: TunnelClient, packet: bytes, now: float) -> list[ClientEvent | LinkFailed | Writable]:
        if zlib.crc32(packet[:-4]).to_bytes(4, "big") == packet[-4:]:
            heard[tunnel].sent("down", packet)
        return receive(tunnel, packet, now)

    monkeypatch.setattr(TunnelClient, "link_opened", hear_link)
    monkeypatch.setattr(TunnelClient, "next_packet", hear_up)
    monkeypatch.setattr(TunnelClient, "receive", hear_down)
    yield
    assert [problem for checker in heard.values() for problem in checker.problems] == []
