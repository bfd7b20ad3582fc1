"""Behind a balancer: a link that leads to another node is given up, until the right one is met, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import chain, repeat

from segue.sidecar.app import SidecarSettings
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.owner_search import MOST_PASSED, PASSING_S, OwnerSearch
from tests.sidecar.gateways import Answer, FakeGateway, fake_gateway
from tests.sidecar.sidecars import post, running

PATIENT = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=60.0))


def test_another_node_is_passed_by_within_a_bound() -> None:
    search = OwnerSearch()
    assert not search.passes_by("", "aa", 0.0), "it does not say who it is"
    assert not search.passes_by("aa", "aa", 0.0)
    assert all(search.passes_by("bb", "aa", 0.0) for _ in range(MOST_PASSED))
    assert not search.passes_by("bb", "aa", 0.0)
    search.note_up()
    assert search.passes_by("bb", "aa", 100.0)
    assert search.passes_by("cc", "aa", 100.0 + PASSING_S / 2)
    assert not search.passes_by("cc", "aa", 100.0 + PASSING_S)


class Balancer:
    """One address for several nodes: each connection is led to the next in a row, whose last stays."""

    def __init__(self) -> None:
        self.url = ""
        self.row: Iterator[int] = repeat(0)
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()

    def lead(self, *nodes: FakeGateway) -> None:
        """Lead the next connections there; all that follow to the last one."""
        ports = [node.port for node in nodes]
        self.row = chain(ports, repeat(ports[-1]))

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", next(self.row))
        self._open |= {writer, far_writer}
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        self._open -= {writer, far_writer}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def balancing() -> AsyncIterator[Balancer]:
    balancer = Balancer()
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    balancer.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield balancer
    finally:
        server.close()
        balancer.cut()
        await server.wait_closed()


async def test_a_reply_goes_on_when_the_owner_is_met_again() -> None:
    gate = asyncio.Event()
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
    async with fake_gateway(lambda _: answer) as owner, fake_gateway() as another, balancing() as balancer:
        balancer.lead(owner)
        another.checkers = owner.checkers
        async with running(balancer.url, settings=PATIENT) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await agent.until(b"data: 1\n\n\r\n")
            balancer.lead(another, another, another, owner)
            balancer.cut()
            gate.set()
            assert (await agent.rest()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        assert (len(owner.forwarded), len(another.forwarded)) == (1, 0)
        assert len(another.upgrades) == 3


async def test_a_request_that_was_forwarded_is_answered_when_the_owner_is_met_again() -> None:
    before = asyncio.Event()
    async with (
        fake_gateway(lambda _: Answer(before=before)) as owner,
        fake_gateway() as another,
        balancing() as balancer,
    ):
        balancer.lead(owner)
        another.checkers = owner.checkers
        async with running(balancer.url, settings=PATIENT) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await owner.seen(1)
            balancer.lead(another, owner)
            balancer.cut()
            before.set()
            assert (await agent.rest()).startswith(b"HTTP/1.1 200 ")
        assert (len(owner.forwarded), len(another.forwarded)) == (1, 0)


async def test_if_the_owner_is_never_met_the_outcome_is_unknown_and_the_next_request_is_served() -> None:
    async with (
        fake_gateway(lambda _: Answer(before=asyncio.Event())) as owner,
        fake_gateway() as another,
        balancing() as balancer,
    ):
        balancer.lead(owner)
        another.checkers = owner.checkers
        async with running(balancer.url, settings=PATIENT) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await owner.seen(1)
            balancer.lead(another)
            balancer.cut()
            assert b"segue_outcome_unknown" in await agent.rest()
            assert (await sidecar.post(b"2")).startswith(b"HTTP/1.1 200 ")
        assert (len(owner.forwarded), len(another.forwarded)) == (1, 1)
        assert 1 < len(another.upgrades) <= MOST_PASSED + 2


async def test_what_no_node_has_had_goes_to_the_first_that_answers() -> None:
    async with fake_gateway() as owner, fake_gateway() as another, balancing() as balancer:
        balancer.lead(owner)
        another.checkers = owner.checkers
        async with running(balancer.url, settings=PATIENT) as sidecar:
            assert (await sidecar.post(b"1")).startswith(b"HTTP/1.1 200 ")
            balancer.lead(another)
            balancer.cut()
            assert (await sidecar.post(b"2")).startswith(b"HTTP/1.1 200 ")
        assert len(another.upgrades) == 1
