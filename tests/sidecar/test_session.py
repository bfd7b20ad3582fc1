"""How a session finds its gateway again, and how long it is worth waiting for."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from segue.http.heads import ReplyHead
from segue.network_changes.watch import NetworkChange
from segue.protocol.problems import Problem
from segue.sidecar import link_silence
from segue.sidecar.app import SidecarSettings
from segue.sidecar.backoff import EAGER_S
from segue.sidecar.connector import TunnelSocket
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.orphaned_exchanges import OrphanLimits
from segue.sidecar.request_handler import HandlerLimits
from segue.sidecar.session import AgentExchange
from segue.testing.link import EmulatedLink, linked
from segue.tunnel.client import TunnelRequest
from segue.tunnel.endpoint import BUFFER_BYTES
from segue.tunnel.events import ExchangeReset
from tests.loop_clock import LoopClock
from tests.sidecar.exchanges import post as head_of_post
from tests.sidecar.exchanges import unlinked_session, waiting_exchange
from tests.sidecar.gateways import Answer, FakeGateway, fake_gateway
from tests.sidecar.sidecars import IMPATIENT, Running, post, running

PATIENT = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=60.0))


async def test_it_goes_on_at_the_address_that_the_node_gave_of_itself() -> None:
    gate = asyncio.Event()
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
    async with (
        fake_gateway(lambda _: answer) as gateway,
        fake_gateway() as another,
        linked("127.0.0.1", gateway.port) as balancer,
    ):
        gateway.address = gateway.url.encode()
        async with running(balancer.url, another.url, settings=PATIENT) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await agent.until(b"data: 1\n\n\r\n")
            async with balancer.refusing():
                balancer.cut()
                gate.set()
                assert (await agent.rest()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        assert another.upgrades == []


async def test_an_address_that_leads_nowhere_is_tried_once() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        gateway.address = b"ws://127.0.0.1:1"
        async with running(link.url, settings=PATIENT) as sidecar:
            for number in range(3):
                assert (await sidecar.post(b"%d" % number)).startswith(b"HTTP/1.1 200 ")
                link.cut()
            told = await sidecar.stats()
        assert told["exchanges"] == 3
        assert len(gateway.sessions) == 1


async def test_a_gateway_that_stays_away_leaves_the_outcome_of_what_it_has_unknown() -> None:
    patience = LinkTimeouts(wait_s=0.05, give_up_s=0.3)
    settings = SidecarSettings(gateways=(), timeouts=patience)
    async with fake_gateway(lambda _: Answer(before=asyncio.Event())) as gateway:
        async with linked("127.0.0.1", gateway.port) as link, running(link.url, settings=settings) as sidecar:
            await sidecar.linked()
            agent = await sidecar.connect()
            await agent.send(post(b"{}"))
            await gateway.seen(1)
            async with link.refusing():
                link.cut()
                answer = await agent.rest()
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "segue_outcome_unknown"
        assert len(gateway.forwarded) == 1


async def test_a_new_node_is_sent_what_no_node_can_have_had() -> None:
    body = random.Random(3).randbytes(500_000)
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        async with running(link.url, settings=PATIENT) as sidecar:
            await sidecar.linked()
            link.blackhole()
            asking = asyncio.create_task(sidecar.post(body))
            await gateway.forget()
            link.cut()
            link.restore()
            assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [body]


async def test_a_reply_too_large_to_keep_is_not_parked_for_long() -> None:
    gate = asyncio.Event()
    pieces = (b"data: 1\n\n", bytes(range(256)) * 100)
    limits = HandlerLimits(keep_reply_bytes=200, orphans=OrphanLimits(keep_s=60.0))
    settings = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=60.0), handler=limits)
    answer = Answer(pieces=(*pieces, *pieces), gates={1: gate, 3: asyncio.Event()}, head=ReplyHead(200, b"OK", ()))
    async with (
        fake_gateway(lambda _: answer) as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=settings) as sidecar,
    ):
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await agent.until(b"data: 1\n\n\r\n")
        async with link.refusing():
            link.cut()
            await sidecar.unlinked()
            agent.hang_up()
            await sidecar.parked(1)
            gate.set()
        await gateway.forwarded[0].cancelled.wait()


async def test_a_slow_agent_stalls_only_itself() -> None:
    size = 12 * 1024 * 1024  # the buffers of the kernel take up to 8 MB or so
    pieces = tuple(random.Random(number).randbytes(65536) for number in range(size // 65536))
    head = ReplyHead(200, b"OK", ())
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        gateway.script = lambda one: Answer(pieces=pieces, head=head) if one.body == b"slow" else Answer()
        slow = await sidecar.connect()
        await slow.send(post(b"slow"))
        await slow.head()
        for _ in range(20):
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        down = (await sidecar.stats())["tunnel_bytes_down"]
        assert down < size  # what it does not take stays at the gateway
        assert len(await slow.rest()) > size


async def test_a_link_that_is_closed_at_once_is_no_link() -> None:
    async with fake_gateway() as gateway:
        gateway.greeting = b""
        async with running(gateway.url, settings=IMPATIENT) as sidecar:
            answer = await sidecar.post(b"{}")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == {
        "type": "overloaded_error",
        "code": "segue_gateway_unreachable",
        "message": "No gateway can be reached: it closed the connection at once.",
    }


async def test_a_gateway_that_speaks_something_else_is_no_link_and_the_reason_is_told() -> None:
    async with fake_gateway() as gateway:
        gateway.greeting = b"\xff\xff\xff"
        async with running(gateway.url, settings=IMPATIENT) as sidecar:
            answer = await sidecar.post(b"{}")
            reason = sidecar.sidecar.report().reason
    assert answer.startswith(b"HTTP/1.1 503 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "segue_gateway_unreachable"
    assert reason.startswith("what answered does not speak the tunnel's protocol: ")
    assert reason in error["message"]


async def test_a_first_packet_that_was_corrupted_on_the_way_is_waited_out() -> None:
    async with fake_gateway() as gateway, running(gateway.url, settings=PATIENT) as sidecar:
        await sidecar.linked()
        gateway.greeting = b"\xff\xff\xff"
        [session] = gateway.sessions.values()
        await session.close()
        asking = asyncio.create_task(sidecar.post(b"{}"))
        await tried_in_vain(gateway, 2)
        gateway.greeting = None
        assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [b"{}"]


async def test_a_fault_of_ours_costs_a_link_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, failed = TunnelSocket.write, asyncio.Event()

    def fail_once(self: TunnelSocket, packet: bytes) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        write(self, packet)

    monkeypatch.setattr(TunnelSocket, "write", fail_once)
    async with fake_gateway() as gateway, running(gateway.url, settings=PATIENT) as sidecar:
        await asyncio.wait_for(failed.wait(), 20)
        await sidecar.linked()
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
    assert f"action=link gateway={gateway.url} failed" in caplog.text
    assert "RuntimeError: a bug" in caplog.text


async def test_a_link_that_is_silent_for_too_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with (
        fake_gateway() as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=PATIENT) as sidecar,
    ):
        await sidecar.linked()
        with link.silenced():
            asking = asyncio.create_task(sidecar.post(b"{}"))
            await clock.hurry(sidecar.unlinked())
        assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [b"{}"]
        assert (await sidecar.stats())["resumes"] == 1


@pytest.fixture
def distrustful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are doubted soon."""
    monkeypatch.setattr(link_silence, "SILENT_S", 0.1)
    monkeypatch.setattr(link_silence, "MOVED_SILENT_S", 0.1)


#: After how long a link is doubted whose silence a test lets go by.
DOUBTED_S = 5.0


@pytest.fixture
async def silence(monkeypatch: pytest.MonkeyPatch) -> Silence:
    """Links are doubted when a test says that they have been silent for long enough."""
    monkeypatch.setattr(link_silence, "SILENT_S", DOUBTED_S)
    monkeypatch.setattr(link_silence, "MOVED_SILENT_S", DOUBTED_S)
    return Silence(LoopClock(monkeypatch))


class Silence:
    """Lets the silence of a link go by."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock

    @asynccontextmanager
    async def after_more_on(self, link: EmulatedLink) -> AsyncIterator[None]:
        """Do something that sends more on a link, and let so much time go by that the link is doubted."""
        before = link.sent_up_bytes
        yield
        async with asyncio.timeout(20):
            while link.sent_up_bytes == before:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.001)
        self._clock.forward(DOUBTED_S + 1)


async def test_a_silent_link_is_replaced_while_something_waits(silence: Silence) -> None:
    async with (
        fake_gateway() as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=PATIENT) as sidecar,
    ):
        await sidecar.linked()
        with link.stranded():
            async with silence.after_more_on(link):
                asking = asyncio.create_task(sidecar.post(b"{}"))
            assert (await asyncio.wait_for(asking, 20)).startswith(b"HTTP/1.1 200 ")
            assert [one.body for one in gateway.forwarded] == [b"{}"]
            assert (await sidecar.stats())["resumes"] == 1
            assert len(gateway.upgrades) == 2


@pytest.mark.usefixtures("distrustful")
async def test_a_gateway_that_is_slow_is_not_made_slower_by_ever_more_links() -> None:
    """It accepts links and says nothing on them."""
    async with (
        fake_gateway() as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=PATIENT) as sidecar,
    ):
        await sidecar.linked()
        gateway.mute = True
        began_at = asyncio.get_running_loop().time()
        asking = asyncio.create_task(sidecar.post(b"{}"))
        await asyncio.wait_for(gateway.until(lambda: len(gateway.upgrades) == 4), 20)
        assert asyncio.get_running_loop().time() - began_at > 0.1 + 0.2 + 0.4
        gateway.mute = False
        assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [b"{}"]


async def test_a_silent_link_is_not_replaced_by_one_to_another_node(silence: Silence) -> None:
    async with (
        fake_gateway() as gateway,
        fake_gateway() as another,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=PATIENT) as sidecar,
    ):
        await sidecar.linked()
        with link.stranded(), link.diverted("127.0.0.1", another.port):
            async with silence.after_more_on(link):
                asking = asyncio.create_task(sidecar.post(b"{}"))
            await asyncio.wait_for(another.until(lambda: bool(another.close_codes)), 20)
            assert not asking.done()
        assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [b"{}"]
        assert (len(gateway.upgrades), len(another.upgrades), another.forwarded) == (1, 1, [])


async def test_a_link_that_a_change_of_the_network_has_cut_off_is_replaced_though_nothing_waits(
    silence: Silence,
) -> None:
    async with (
        fake_gateway() as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=PATIENT) as sidecar,
    ):
        await sidecar.linked()
        change_network(sidecar, "stirred")
        change_network(sidecar, "moved")  # it answers
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        assert len(gateway.upgrades) == 1
        with link.stranded():
            async with silence.after_more_on(link):
                change_network(sidecar, "moved")
            await asyncio.wait_for(gateway.until(lambda: len(gateway.upgrades) == 2), 20)
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")


async def test_a_change_of_the_network_ends_the_wait_for_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.sidecar.link_search.delay_s", lambda failures, _: 1000.0 if failures else 0.0)
    monkeypatch.setattr("segue.sidecar.link_search.CHANGES_S", 0.05)
    async with fake_gateway() as gateway:
        gateway.between = BETWEEN["a balancer"]
        async with running(gateway.url, settings=PATIENT) as sidecar:
            await sidecar.tried()
            gateway.between = None
            change_network(sidecar, "stirred")
            await asyncio.wait_for(sidecar.linked(), 20)


def change_network(sidecar: Running, change: NetworkChange) -> None:
    """Tell a sidecar of a change, as its monitor does."""
    sidecar.sidecar._sessions._note_change(change)  # noqa: SLF001 - the network of this machine stays as it is


async def test_a_session_that_is_left_ends_without_a_link_when_nothing_is_left_to_carry() -> None:
    exchange = waiting_exchange()
    leaving = exchange.session
    leaving.start()
    leaving.leave()
    assert not leaving.over
    leaving.cancel(exchange)
    await asyncio.wait_for(leaving.attention.wait(), 20)
    assert (leaving.over, leaving.state) == (True, "away")
    await leaving.aclose()


BETWEEN: dict[str, Callable[[], web.StreamResponse]] = {
    "a captive portal": lambda: web.Response(text="<html>Sign in</html>", content_type="text/html"),
    "a firewall": lambda: web.Response(status=403, text="<html>"),
    "a network that limits": lambda: web.Response(status=429, headers={"Retry-After": "30"}),
    "a balancer": lambda: web.json_response({"error": {"message": "no such service"}}, status=404),
    "a page of elsewhere": lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
}


async def tried_in_vain(gateway: FakeGateway, times: int) -> None:
    seen = len(gateway.upgrades)
    await gateway.until(lambda: len(gateway.upgrades) >= seen + times)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
async def test_what_answers_in_place_of_the_gateway_is_waited_out(
    between: Callable[[], web.StreamResponse], *, first: bool
) -> None:
    async with fake_gateway() as gateway:
        gateway.between = between if first else None
        async with running(gateway.url, settings=PATIENT) as sidecar:
            if not first:
                await sidecar.linked()
                gateway.between = between
                [session] = gateway.sessions.values()
                await session.close()
            asking = asyncio.create_task(sidecar.post(b"{}"))
            await tried_in_vain(gateway, 2)
            told = await sidecar.stats()
            assert (told["link"], bool(told["reason"])) == ("connecting" if first else "away", True)
            gateway.between = None
            async with asyncio.timeout(2 * EAGER_S + 5):
                assert (await asking).startswith(b"HTTP/1.1 200 ")
            assert (await sidecar.stats())["reason"] == ""
        assert [one.body for one in gateway.forwarded] == [b"{}"]


async def test_a_gateway_that_refuses_does_not_speak_for_one_that_is_away() -> None:
    async with fake_gateway() as gateway, fake_gateway() as other:
        gateway.refusal = Problem("invalid_api_key", "who are you?")
        other.between = BETWEEN["a captive portal"]
        async with running(gateway.url, other.url, settings=PATIENT) as sidecar:
            asking = asyncio.create_task(sidecar.post(b"{}"))
            await tried_in_vain(other, 2)
            reason = (await sidecar.stats())["reason"]
            assert f"{gateway.url}: The gateway" in reason
            assert f"{other.url}: something that is no gateway" in reason
            other.between = None
            assert (await asking).startswith(b"HTTP/1.1 200 ")


async def test_a_request_makes_an_idle_sidecar_look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.sidecar.link_search.delay_s", lambda failures, _: 1000.0 if failures else 0.0)
    async with fake_gateway() as gateway:
        gateway.between = BETWEEN["a balancer"]
        async with running(gateway.url, settings=PATIENT) as sidecar:
            await sidecar.tried()
            assert len(gateway.upgrades) == 1
            gateway.between = None
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        assert len(gateway.upgrades) == 2


async def test_requests_without_patience_make_it_look_too_but_not_each_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.sidecar.link_search.delay_s", lambda failures, _: 1000.0 if failures else 0.0)
    settings = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=0.001))
    async with fake_gateway() as gateway:
        gateway.between = BETWEEN["a balancer"]
        async with running(gateway.url, settings=settings) as sidecar:
            await sidecar.tried()
            answers = await asyncio.gather(*(sidecar.post(b"%d" % number) for number in range(30)))
            assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
            assert len(gateway.upgrades) < 15
            gateway.between = None  # the next one is answered, however long the outage was
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")


async def test_when_nobody_waits_any_more_it_looks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = asyncio.Event()

    def delay(failures: int, _: float) -> float:
        if failures:
            idle.set()
        return 1000.0 if failures else 0.0

    monkeypatch.setattr("segue.sidecar.link_search.delay_s", delay)
    async with fake_gateway() as gateway, running(gateway.url, settings=PATIENT) as sidecar:
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        gateway.between = BETWEEN["a balancer"]
        [session] = gateway.sessions.values()
        await session.close()
        await asyncio.wait_for(idle.wait(), 20)


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_session_that_ends_acknowledges_the_reply_that_it_has(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a gateway that drains would wait for it to come back."""
    for wait in ("ACK_DELAY_S", "IDLE_S"):
        monkeypatch.setattr(f"segue.tunnel.link.{wait}", 1000.0)
    async with fake_gateway() as gateway, running(gateway.url, settings=PATIENT) as sidecar:
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        [session] = gateway.sessions.values()
        assert len(session.end) == 1, "the acknowledgement is held back"
        if leaves:
            gateway.drain()
        else:
            await sidecar.sidecar.aclose()
        async with asyncio.timeout(20):
            while len(session.end):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)


async def test_a_full_buffer_has_room_again_when_the_exchange_has_ended() -> None:
    exchange = AgentExchange(unlinked_session(), TunnelRequest(head_of_post(), None, "websocket"), keep_bytes=0)
    exchange.session.open(exchange)
    exchange.writable.set()
    assert exchange.session.has_room(exchange)
    exchange.session.send(exchange, bytes(BUFFER_BYTES))
    assert not exchange.session.has_room(exchange)
    assert not exchange.writable.is_set()
    exchange.session.finish(exchange)
    exchange.session.cancel(exchange)
    assert exchange.writable.is_set()
    ended = exchange.ending
    exchange.session.cancel(exchange)  # twice is once
    assert exchange.ending is ended == ExchangeReset(exchange.handle, "cancelled", b"nobody waits for it")


async def test_an_exchange_may_lose_its_agent_and_its_document_and_get_another() -> None:
    exchange = waiting_exchange()
    session = exchange.session
    orphaned: list[bool] = []
    for change in (session.orphan, session.adopt):
        change(exchange)
        orphaned.append(exchange.orphaned)
    assert orphaned == [True, False]
    session.upload_again(exchange, b"whole")
    assert exchange.request.document == b"whole"
