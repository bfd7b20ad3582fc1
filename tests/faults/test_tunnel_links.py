"""Links that are cut, slow, silent or lying: the agent sees a pause, the provider one request, right to the byte."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from segue import packet_writer
from segue.http.heads import Line
from segue.sidecar import connector
from segue.testing.link import EmulatedLink, LinkProfile
from segue.testing.provider import Answer, ReceivedRequest
from segue.tunnel import link as tunnel_link
from tests.faults.tunnels import body_of, is_whole, status_of, tunnelled
from tests.sidecar.sidecars import Running, post

SSE = (Line(b"Content-Type", b"text/event-stream"),)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


BODY = json.dumps({"messages": [{"role": "user", "content": noise(1500).hex()}]}).encode()
PIECES = tuple(b'data: {"delta":"%d %b"}\n\n' % (number, noise(number, number).hex().encode()) for number in range(40))
REPLY = b"".join(PIECES)


def stream(_: ReceivedRequest) -> Answer:
    return Answer(lines=SSE, pieces=PIECES)


# --- cuts at every phase ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 30, 100, 300, 600, 1000, 1400, 1600])
async def test_a_cut_in_the_upload_is_a_pause(after: int) -> None:
    async with tunnelled(stream) as way:
        cut = way.link.cut_after(up_bytes=after)
        response = await way.post(BODY)
        assert cut.is_set()
        assert body_of(response) == REPLY
        assert way.bodies == [BODY]


@pytest.mark.parametrize("after", [1, 20, 60, 150, 300, 600, 900])
async def test_a_cut_in_the_reply_is_a_pause(after: int) -> None:
    async with tunnelled(stream) as way:
        cut = way.link.cut_after(down_bytes=after)
        response = await way.post(BODY)
        assert cut.is_set()
        assert body_of(response) == REPLY
        assert way.bodies == [BODY]


async def test_a_cut_in_the_last_byte_of_the_reply_is_a_pause() -> None:
    async with tunnelled(stream) as way:
        before = way.link.down_bytes
        await way.post(BODY)
        size = way.link.down_bytes - before
        way.link.cut_after(down_bytes=size - 1)
        second = await way.post(BODY + b" ")
        assert body_of(second) == REPLY
        assert way.bodies == [BODY, BODY + b" "]


async def test_cuts_between_requests_go_unseen() -> None:
    async with tunnelled(stream) as way:
        for number in range(4):
            way.link.cut()
            assert body_of(await way.post(BODY + b" " * number)) == REPLY
        assert way.bodies == [BODY + b" " * number for number in range(4)]


async def test_a_cut_every_few_kilobytes_is_many_pauses() -> None:
    body, reply = noise(25_000), noise(25_000, seed=2)
    pieces = tuple(reply[at : at + 1000] for at in range(0, len(reply), 1000))
    async with tunnelled(lambda _: Answer(pieces=pieces)) as way:
        cutting = asyncio.create_task(_cut_again_and_again(way.link))
        response = await way.post(body)
        cutting.cancel()
        assert body_of(response) == reply
        assert way.bodies == [body]
        assert (await way.sidecar.stats())["resumes"] > 3


async def _cut_again_and_again(link: EmulatedLink) -> None:
    while True:
        await link.cut_after(up_bytes=6000).wait()


# --- what arrives wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 40, 120, 200])
async def test_a_corrupted_byte_upwards_never_reaches_the_provider(at: int) -> None:
    async with tunnelled(stream) as way:
        way.link.corrupt(up_bytes=at)
        response = await way.post(BODY)
        assert body_of(response) == REPLY
        assert way.bodies == [BODY]


@pytest.mark.parametrize("at", [50, 100, 200, 400])
async def test_a_corrupted_byte_downwards_never_reaches_the_agent(at: int) -> None:
    async with tunnelled(stream) as way:
        way.link.corrupt(down_bytes=at)
        response = await way.post(BODY)
        assert body_of(response) == REPLY
        assert way.bodies == [BODY]


# --- thin and silent links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "dead_s"), [(60_000, 1.5), pytest.param(1_000_000, tunnel_link.DEAD_S, marks=pytest.mark.deep)]
)
async def test_a_long_upload_over_a_thin_link_needs_no_second_connection(
    size: int, dead_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes twice as long as a link may be silent, and nothing but progress tells that this one is alive."""
    body = noise(size)
    monkeypatch.setattr(tunnel_link, "DEAD_S", dead_s)
    async with tunnelled(stream, profile=LinkProfile(rtt_s=0.1, up_bytes_s=20_000, down_bytes_s=20_000)) as way:
        async with asyncio.timeout(100):
            response = await way.sidecar.post(body, target="/v1/messages")
        assert body_of(response) == REPLY
        assert len(way.link.connections) == 1


async def test_a_socket_that_takes_nothing_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's buffer of a connection whose other end has vanished is full for many minutes."""
    stuck = asyncio.Event()
    write = connector.TunnelSocket.write

    def write_and_fill(self: connector.TunnelSocket, packet: bytes) -> None:
        write(self, packet)
        if len(packet) > 1000 and not stuck.is_set():
            stuck.set()
            full.append(self)

    async def hang(_: connector.TunnelSocket) -> None:
        await asyncio.Event().wait()

    full: list[connector.TunnelSocket] = []
    monkeypatch.setattr(connector.TunnelSocket, "write", write_and_fill)
    monkeypatch.setattr(connector.TunnelSocket, "wait_for_room", hang)
    monkeypatch.setattr(connector.TunnelSocket, "has_room", property(lambda self: self not in full))
    monkeypatch.setattr(packet_writer, "STUCK_S", 0.05)
    monkeypatch.setattr(tunnel_link, "DEAD_S", 0.5)
    async with tunnelled(stream) as way:
        asking = asyncio.create_task(way.post(BODY))
        await asyncio.wait_for(stuck.wait(), 20)
        with way.link.silenced():
            await asyncio.wait_for(_until_away(way.sidecar), 20)
        assert body_of(await asking) == REPLY
        assert way.bodies == [BODY]


async def test_an_agent_that_asks_again_while_the_link_is_down_is_not_paid_for_twice() -> None:
    gate = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with tunnelled(script) as way:
        agent = await way.connect()
        await agent.send(post(BODY, target="/v1/messages"))
        await agent.until(b"data: 1\n\n")
        async with way.link.refusing():
            way.link.cut()
            await asyncio.wait_for(_until_away(way.sidecar), 20)
            agent.hang_up()
            await way.sidecar.parked(1)
            again = await way.connect()
            await again.send(post(BODY, target="/v1/messages", retries=1))
            gate.set()
        response = await asyncio.wait_for(again.rest(), 30)
        assert body_of(response) == b"data: 1\n\ndata: 2\n\n"
        assert way.bodies == [BODY]
        assert (await way.sidecar.stats())["attached"] == 1


async def _until_away(sidecar: Running) -> None:
    while sidecar.sidecar.report().link == "up":  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


async def test_another_key_does_not_attach_to_a_parked_exchange() -> None:
    gate = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with tunnelled(script) as way:
        agent = await way.connect()
        await agent.send(post(BODY, target="/v1/messages", key="alice"))
        await agent.until(b"data: 1\n\n")
        async with way.link.refusing():
            way.link.cut()
            await asyncio.wait_for(_until_away(way.sidecar), 20)
            agent.hang_up()
            await way.sidecar.parked(1)
        gate.set()
        assert body_of(await way.post(BODY, key="bob")) == b"data: 1\n\ndata: 2\n\n"
        assert way.bodies == [BODY, BODY]


# --- agents and providers --------------------------------------------------------------------------------------------


async def test_an_agent_that_hangs_up_closes_the_request_at_the_provider() -> None:
    hanging = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: hanging})

    async with tunnelled(script) as way:
        agent = await way.connect()
        await agent.send(post(BODY, target="/v1/messages"))
        await agent.until(b"data: 1\n\n")
        agent.hang_up()
        await asyncio.wait_for(way.provider.abandoned(0), 30)


async def test_a_provider_that_hangs_is_the_agents_affair() -> None:
    hanging = asyncio.Event()
    async with tunnelled(lambda _: Answer(before=hanging)) as way:
        agent = await way.connect()
        await agent.send(post(BODY, target="/v1/messages"))
        await asyncio.wait_for(way.provider.seen(1), 30)
        agent.hang_up()
        await asyncio.wait_for(way.provider.abandoned(0), 30)
        assert way.bodies == [BODY]


async def test_a_reply_cut_by_the_provider_is_cut_for_the_agent() -> None:
    async with tunnelled(lambda _: Answer(lines=SSE, pieces=PIECES, cut_after=100)) as way:
        response = await way.post(BODY)
        assert status_of(response) == 200
        assert not is_whole(response)


async def test_one_slow_agent_stalls_only_itself() -> None:
    big = noise(6_000_000)

    def script(request: ReceivedRequest) -> Answer:
        return Answer(pieces=(big,)) if request.body == b"big" else stream(request)

    async with tunnelled(script) as way:
        slow = await way.connect()
        await slow.send(post(b"big", target="/v1/messages"))
        await slow.head()
        for number in range(3):
            assert body_of(await way.post(BODY + b" " * number)) == REPLY
        rest = await asyncio.wait_for(slow.rest(), 60)
        assert body_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest) == big


async def test_a_hundred_exchanges_at_once_are_each_their_own() -> None:
    def script(request: ReceivedRequest) -> Answer:
        assert request.body is not None
        return Answer(lines=SSE, pieces=(b"data: ", request.body[-4:], b"\n\n"))

    async with tunnelled(script) as way:
        bodies = [BODY + b"%04d" % number for number in range(100)]
        responses = await asyncio.gather(*(way.post(body) for body in bodies))
        assert [body_of(one) for one in responses] == [b"data: %04d\n\n" % number for number in range(100)]
        assert sorted(body or b"" for body in way.bodies) == bodies


async def test_two_agents_at_once_with_cuts_get_what_is_theirs() -> None:
    def script(request: ReceivedRequest) -> Answer:
        assert request.body is not None
        return Answer(lines=SSE, pieces=(b"data: ", request.body[-5:], b"\n\n"))

    async with tunnelled(script) as way:

        async def agent(name: bytes) -> list[bytes]:
            return [body_of(await way.post(BODY * turn + name + b"%d" % turn)) for turn in range(1, 6)]

        cutting = asyncio.create_task(_cut_again_and_again(way.link))
        one, two = await asyncio.gather(agent(b"anna"), agent(b"bert"))
        cutting.cancel()
        assert one == [b"data: anna%d\n\n" % turn for turn in range(1, 6)]
        assert two == [b"data: bert%d\n\n" % turn for turn in range(1, 6)]
        assert len(way.provider.requests) == 10


# --- an outage that tells nobody -------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage_s", [2.5, pytest.param(26.0, marks=pytest.mark.deep)])
async def test_after_an_outage_what_waits_goes_on_soon_and_few_connections_were_tried(
    outage_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing moves, and what was open before stays silent after it, as where TCP waits to repeat what was lost."""
    gate = asyncio.Event()
    monkeypatch.setattr(tunnel_link, "DEAD_S", 1000.0)  # nobody waits until the link counts as dead

    def script(request: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=PIECES, gates={20: gate} if request.number == 0 else {})

    async with tunnelled(script) as way:
        agent = await way.connect()
        await agent.send(post(BODY, target="/v1/messages"))
        begun = await agent.until(PIECES[19])
        before = len(way.link.connections)
        with way.link.stranded():
            with way.link.silenced():
                asking = asyncio.create_task(way.post(BODY[::-1]))
                gate.set()
                began_at = asyncio.get_running_loop().time()
                await asyncio.sleep(outage_s)  # the length of the outage is what is tried here
                outage_s = asyncio.get_running_loop().time() - began_at
                tried = len(way.link.connections) - before
            async with asyncio.timeout(60):
                assert body_of(begun + await agent.rest()) == REPLY
                assert body_of(await asking) == REPLY
        assert way.bodies == [BODY, BODY[::-1]]
        assert tried <= 2 + outage_s / 0.8
