"""A connection that takes the place of a silent link: tried when it is needed, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest

from segue.sidecar import link_silence, link_successor
from segue.sidecar.connector import ConnectorSettings, GatewayUnreachableError, Introduce, TunnelSocket, only_link
from segue.sidecar.dialer import Dialer, never
from segue.sidecar.link_successor import SuccessorFinder
from segue.sidecar.tls_sessions import ResumingContext, verifying_context
from segue.tunnel.client import TunnelClient
from tests.sidecar.gateways import fake_gateway

URL = "ws://gateway.invalid"


class PlannedDialer(Dialer):
    """Each attempt gets one of these outcomes, in turn: an error, or None for one that never ends."""

    def __init__(self, *outcomes: Exception | None) -> None:
        super().__init__(ConnectorSettings(), ResumingContext())
        self.outcomes = list(outcomes)
        self.tried = asyncio.Event()
        self.gave_up = asyncio.Event()
        self.before_upgrade: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def link(
        self,
        gateway: str,
        session_name: str,
        introduce: Introduce = only_link,
        *,
        is_wanted: Callable[[], bool] = never,
    ) -> AsyncIterator[TunnelSocket]:
        assert (gateway, session_name) == (URL, "name")
        outcome = self.outcomes.pop(0)
        if not self.outcomes:
            self.tried.set()
        if outcome is not None:
            raise outcome
        assert is_wanted()
        self.before_upgrade()
        assert not is_wanted()
        yield await self._upgrade(introduce)

    async def _upgrade(self, introduce: Introduce) -> TunnelSocket:
        try:
            await introduce()
        except Exception:
            self.gave_up.set()
            raise
        raise AssertionError("the link was back before the upgrade")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_silence, "SILENT_S", 0.01)
    monkeypatch.setattr(link_silence, "MOVED_SILENT_S", 0.01)
    monkeypatch.setattr(link_successor, "RETRY_S", 0.01)


def silent_link() -> TunnelClient:
    """A link whose gateway does not answer the HELLO."""
    tunnel, now = TunnelClient(), asyncio.get_running_loop().time()
    tunnel.link_opened(now)
    assert tunnel.next_packet(now) is not None
    return tunnel


async def test_attempts_go_on_until_the_link_ends() -> None:
    away = GatewayUnreachableError("it is away")
    dialer = PlannedDialer(away, away, away)
    finder = SuccessorFinder(dialer, silent_link(), "name", numbers=count(1), is_wanted=lambda: True)
    async with finder.watching(URL, lambda: pytest.fail("there is no successor")):
        await asyncio.wait_for(dialer.tried.wait(), 20)
    assert finder.take() is None
    await finder.aclose()


async def test_a_link_that_is_back_before_the_upgrade_stays() -> None:
    dialer, tunnel = PlannedDialer(None), silent_link()
    dialer.before_upgrade = lambda: tunnel.link_opened(asyncio.get_running_loop().time())  # nothing is owed any more
    finder = SuccessorFinder(dialer, tunnel, "name", numbers=count(1), is_wanted=lambda: True)
    async with finder.watching(URL, lambda: pytest.fail("there is no successor")):
        await asyncio.wait_for(dialer.gave_up.wait(), 20)
        await asyncio.sleep(0.05)  # it does not try again: nothing more is planned
    assert finder.take() is None


async def test_a_silent_link_that_nobody_wants_is_left_alone_until_the_network_moves() -> None:
    dialer, tunnel = PlannedDialer(GatewayUnreachableError("it is away")), silent_link()
    finder = SuccessorFinder(dialer, tunnel, "name", numbers=count(1), is_wanted=lambda: False)
    async with finder.watching(URL, lambda: pytest.fail("there is no successor")):
        finder.look()
        await asyncio.sleep(0.05)
        assert not dialer.tried.is_set()
        finder.network_moved()
        await asyncio.wait_for(dialer.tried.wait(), 20)


async def test_a_fault_of_ours_is_not_swallowed() -> None:
    dialer = PlannedDialer(ValueError("a bug"))
    finder = SuccessorFinder(dialer, silent_link(), "name", numbers=count(1), is_wanted=lambda: True)

    async def watch() -> None:
        async with finder.watching(URL, lambda: None):
            await asyncio.wait_for(dialer.tried.wait(), 20)
            await asyncio.sleep(0)

    with pytest.raises(ValueError, match="a bug"):
        await watch()


async def test_a_successor_that_nobody_took_is_closed() -> None:
    ended = asyncio.Event()
    async with fake_gateway() as gateway:
        finder = SuccessorFinder(
            Dialer(ConnectorSettings(), verifying_context(None)),
            silent_link(),
            "name",
            numbers=count(1),
            is_wanted=lambda: True,
        )
        gateway.takes_hello = False  # an earlier version, which tells no epoch
        async with finder.watching(gateway.url, ended.set):
            await asyncio.wait_for(ended.wait(), 20)
        await finder.aclose()
        await asyncio.wait_for(gateway.until(lambda: bool(gateway.close_codes)), 20)
        assert gateway.close_codes == [1000]
