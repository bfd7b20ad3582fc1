"""Requests of agents through a sidecar, over real sockets, to a gateway made of the tunnel core."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.protocol.problems import Problem
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.app import SidecarSettings
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.orphaned_exchanges import OrphanLimits
from segue.sidecar.request_handler import HandlerLimits, RequestHandler
from segue.sidecar.stats import reply_bytes, request_bytes
from segue.testing.link import linked
from segue.tunnel.documents import Base
from tests.sidecar.gateways import STREAM, Answer, Forwarded, fake_gateway
from tests.sidecar.sidecars import IMPATIENT, QUICK, conversation, post, running

CHUNKED_END = b"0\r\n\r\n"
WEBSOCKET_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
PATIENT = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=60.0))
PROTOCOLS = [Subprotocol("a"), Subprotocol("b")]


def dechunked(answer: bytes) -> bytes:
    """The body of a reply of whole chunks that have no line end inside."""
    assert answer.endswith(CHUNKED_END)
    return b"".join(answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])


async def test_head_and_body_arrive_byte_for_byte() -> None:
    head = (
        b"PoST /v1/m%6fdels/%2e%2e?x=%7e&key=%zz HTTP/1.1\r\nHOST: localhost\r\nx-B: 2\r\nX-a:1\r\nx-B:   3  \r\n"
        b"X-Obs: \xe9\tz\r\nConnection: close, X-Mine\r\nx-mine: no\r\nContent-Length: 6\r\n\r\n\x00\xffhi\r\n"
    )
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.ask(head)
        [forwarded] = gateway.forwarded
    lines = (Line(b"x-B", b"2"), Line(b"X-a", b"1"), Line(b"x-B", b"3"), Line(b"X-Obs", b"\xe9\tz"))
    assert forwarded.head == RequestHead(b"PoST", b"/v1/m%6fdels/%2e%2e?x=%7e&key=%zz", lines)
    assert forwarded.body == b"\x00\xffhi\r\n"


async def test_each_piece_of_a_reply_arrives_before_the_next_is_made() -> None:
    gates = {1: asyncio.Event(), 2: asyncio.Event()}
    head = ReplyHead(
        203, b"Fine", (Line(b"content-TYPE", b"text/event-stream"), Line(b"X-Id", b"1"), Line(b"x-id", b"2"))
    )
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"), gates=gates, head=head)
    async with fake_gateway(lambda _: answer) as gateway, running(gateway.url) as sidecar:
        agent = await sidecar.connect()
        await agent.send(b"GET /openai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await agent.head() == (
            b"HTTP/1.1 203 Fine\r\ncontent-TYPE: text/event-stream\r\nX-Id: 1\r\nx-id: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert await agent.until(b"1\n\n\r\n") == b"9\r\ndata: 1\n\n\r\n"
        gates[1].set()
        assert await agent.until(b"2\n\n\r\n") == b"9\r\ndata: 2\n\n\r\n"
        gates[2].set()
        assert await agent.until(CHUNKED_END) == b"9\r\ndata: 3\n\n\r\n" + CHUNKED_END
        [forwarded] = gateway.forwarded
        assert forwarded.body is None


async def test_the_second_turn_is_a_delta() -> None:
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.post(conversation(8))
        before = await sidecar.stats()
        await sidecar.post(conversation(9))
        after = await sidecar.stats()
        assert [one.body for one in gateway.forwarded] == [conversation(8), conversation(9)]
    assert (before["base_hits"], after["base_hits"], after["base_misses"]) == (0, 1, 0)
    assert before["tunnel_bytes_up"] > 16_000  # hex of random bytes compresses to half
    assert after["tunnel_bytes_up"] - before["tunnel_bytes_up"] < 3_000
    assert after["agent_bytes_in"] > 8 * 4000 + 9 * 4000
    assert [one["outcome"] for one in after["recent"]] == ["completed", "completed"]


async def test_large_bodies_are_deltas_too() -> None:
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.post(conversation(8, 100_000))
        before = await sidecar.stats()
        await sidecar.post(conversation(9, 100_000))
        after = await sidecar.stats()
        assert gateway.forwarded[1].body == conversation(9, 100_000)
    assert after["base_hits"] == 1
    assert after["tunnel_bytes_up"] - before["tunnel_bytes_up"] < 60_000


async def test_a_compressed_body_is_a_delta_and_arrives_as_it_was_sent() -> None:
    def request(turns: int) -> bytes:
        body = gzip.compress(conversation(turns), 6, mtime=1)
        return post(body).replace(b"X-Api-Key", b"Content-Encoding: gzip\r\nX-Api-Key")

    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.ask(request(8))
        before = await sidecar.stats()
        await sidecar.ask(request(9))
        after = await sidecar.stats()
        assert gateway.forwarded[1].body == gzip.compress(conversation(9), 6, mtime=1)
    assert after["tunnel_bytes_up"] - before["tunnel_bytes_up"] < 3_000


async def test_a_base_that_the_gateway_lost_costs_one_more_upload() -> None:
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.post(conversation(8))
        gateway.bases.clear()
        assert b"data: {}" in await sidecar.post(conversation(9))
        assert gateway.forwarded[1].body == conversation(9)
        await sidecar.post(conversation(10))
        told = await sidecar.stats()
    assert (told["base_misses"], told["base_hits"], gateway.misses) == (1, 1, 1)


async def test_a_gateway_that_folds_otherwise_misses_no_base_for_its_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.tunnel.parameters.OWN", ())
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.post(conversation(8))
        gateway.bases = {key: Base(base.body, b"") for key, base in gateway.bases.items()}
        await sidecar.post(conversation(9))
        told = await sidecar.stats()
    assert (told["base_hits"], told["base_misses"], gateway.misses) == (1, 0, 0)


async def test_a_new_start_goes_on_from_the_bases_on_disk(tmp_path: Path) -> None:
    settings = SidecarSettings(gateways=(), cache_directory=tmp_path / "bases")
    async with fake_gateway() as gateway:
        async with running(gateway.url, settings=settings) as sidecar:
            await sidecar.post(conversation(8))
        async with running(gateway.url, settings=settings) as sidecar:
            await sidecar.post(conversation(9))
            told = await sidecar.stats()
        assert gateway.forwarded[1].body == conversation(9)
    assert told["base_hits"] == 1
    assert told["tunnel_bytes_up"] < 4_000
    saved = b"".join(path.read_bytes() for path in (tmp_path / "bases").iterdir())
    assert b"X-Api-Key" not in saved


async def test_a_body_over_the_gateways_limit_is_413_at_once() -> None:
    async with fake_gateway() as gateway:
        gateway.max_body_bytes = 1000
        async with running(gateway.url) as sidecar:
            await sidecar.post(b"{}")
            answer = await sidecar.post(b"x" * 1001)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert len(gateway.forwarded) == 1


async def test_a_reply_cut_at_the_provider_is_cut_for_the_agent() -> None:
    async with (
        fake_gateway(lambda _: Answer(pieces=(b"data: 1\n\n",), aborts=True)) as gateway,
        running(gateway.url) as sidecar,
    ):
        answer = await sidecar.post(conversation(8))
        assert answer.endswith(b"9\r\ndata: 1\n\n\r\n")  # and no last chunk
        await sidecar.post(conversation(9))
        told = await sidecar.stats()
    assert [(one["outcome"], one["error"]) for one in told["recent"]] == [("cut", "cut")] * 2
    assert told["base_hits"] == 1  # what was received is a base all the same


async def test_an_agent_that_hangs_up_on_a_good_link_cancels() -> None:
    gate = asyncio.Event()
    async with fake_gateway(lambda _: Answer(before=gate)) as gateway, running(gateway.url) as sidecar:
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await gateway.seen(1)
        agent.hang_up()
        await gateway.forwarded[0].cancelled.wait()
        told = await sidecar.stats()
    assert (told["parked"], told["recent"][0]["outcome"]) == (0, "gone")


async def test_a_cut_inside_the_upload_is_not_seen() -> None:
    body = random.Random(1).randbytes(200_000)
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link, running(link.url) as sidecar:
        await sidecar.post(b"{}")
        cut = link.cut_after(up_bytes=60_000)
        assert b"data: {}" in await sidecar.post(body)
        assert cut.is_set()
        assert [one.body for one in gateway.forwarded] == [b"{}", body]
        assert (await sidecar.stats())["resumes"] == 1


async def test_a_cut_inside_the_reply_is_not_seen() -> None:
    pieces = tuple(b"data: %s\n\n" % random.Random(number).randbytes(3000).hex().encode() for number in range(20))
    async with fake_gateway(lambda _: Answer(pieces=pieces)) as gateway:
        async with linked("127.0.0.1", gateway.port) as link, running(link.url) as sidecar:
            cut = link.cut_after(down_bytes=20_000)
            answer = await sidecar.post(b"{}")
            assert cut.is_set()
        assert len(gateway.forwarded) == 1
    assert dechunked(answer) == b"".join(pieces)
    assert answer.endswith(CHUNKED_END)


async def test_an_agent_that_hangs_up_while_the_link_is_away_finds_its_exchange_again() -> None:
    gate = asyncio.Event()
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
    async with fake_gateway(lambda _: answer) as gateway, linked("127.0.0.1", gateway.port) as link:
        settings = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=30.0))
        async with running(link.url, settings=settings) as sidecar:
            agent = await sidecar.connect()
            await agent.send(post(conversation(3)))
            await agent.until(b"data: 1\n\n\r\n")
            async with link.refusing():
                link.cut()
                await sidecar.unlinked()
                agent.hang_up()
                await sidecar.parked(1)
            other = await sidecar.connect()
            await other.send(post(conversation(3), key="another"))
            await gateway.seen(2)
            again = await sidecar.connect()
            await again.send(post(conversation(3), retries=1))
            assert await again.until(b"data: 1\n\n\r\n")
            gate.set()
            assert (await again.rest()).endswith(b"9\r\ndata: 2\n\n\r\n" + CHUNKED_END)
            await other.rest()
            told = await sidecar.stats()
        keys = [dict(one.head.lines)[b"X-Api-Key"] for one in gateway.forwarded]
    assert keys == [b"k", b"another"]
    carried = [request_bytes(one.head) + len(one.body or b"") for one in gateway.forwarded]
    assert (told["attached"], told["parked"]) == (1, 0)
    assert told["agent_bytes_in"] == sum(carried)  # the second try, and not the first
    assert told["agent_bytes_out"] == 2 * (reply_bytes(STREAM) + len(b"data: 1\n\ndata: 2\n\n"))


async def test_a_parked_exchange_that_nobody_comes_for_is_cancelled() -> None:
    limits = HandlerLimits(orphans=OrphanLimits(keep_s=0.05))
    settings = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=30.0), handler=limits)
    async with (
        fake_gateway(lambda _: Answer(before=asyncio.Event())) as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=settings) as sidecar,
    ):
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await gateway.seen(1)
        async with link.refusing():
            link.cut()
            await sidecar.unlinked()
            agent.hang_up()
            await sidecar.parked(1)
        await gateway.forwarded[0].cancelled.wait()
        assert sidecar.sidecar.report().parked == 0


async def test_no_more_are_parked_than_there_are_places() -> None:
    limits = HandlerLimits(orphans=OrphanLimits(max_exchanges=2))
    settings = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=30.0), handler=limits)
    async with (
        fake_gateway(lambda _: Answer(before=asyncio.Event())) as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url, settings=settings) as sidecar,
    ):
        agents = [await sidecar.connect() for _ in range(3)]
        for number, agent in enumerate(agents):
            await agent.send(post(b"%d" % number))
            await gateway.seen(number + 1)
        async with link.refusing():
            link.cut()
            await sidecar.unlinked()
            for number, agent in enumerate(agents[:2]):
                agent.hang_up()
                await sidecar.parked(number + 1)
            agents[2].hang_up()
            await sidecar.finished(3)
        await gateway.forwarded[0].cancelled.wait()  # the oldest
        assert sidecar.sidecar.report().parked == 2


async def test_a_node_that_is_gone_before_the_head_leaves_the_outcome_unknown() -> None:
    async with fake_gateway(lambda _: Answer(before=asyncio.Event())) as gateway, running(gateway.url) as sidecar:
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await gateway.seen(1)
        await gateway.forget()
        answer = await agent.rest()
        assert answer.startswith(b"HTTP/1.1 424 Failed Dependency\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "segue_outcome_unknown"
        assert len(gateway.forwarded) == 1
        told = await sidecar.stats()
    assert [(one["status"], one["error"]) for one in told["recent"]] == [(424, "segue_outcome_unknown")]


async def test_a_node_that_is_gone_inside_the_reply_cuts_it() -> None:
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: asyncio.Event()})
    async with fake_gateway(lambda _: answer) as gateway, running(gateway.url) as sidecar:
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await agent.until(b"data: 1\n\n\r\n")
        await gateway.forget()
        assert await agent.rest() == b""
        assert len(gateway.forwarded) == 1


async def test_a_websocket_goes_through_with_cuts_that_nobody_sees() -> None:
    limit = Line(b"x-codex-websocket-max-message-bytes", b"20000")
    head = ReplyHead(101, b"Switching Protocols", (Line(b"Sec-WebSocket-Protocol", b"b"), limit))
    async with (
        fake_gateway(lambda _: Answer(head=head)) as gateway,
        linked("127.0.0.1", gateway.port) as link,
        running(link.url) as sidecar,
    ):
        url = sidecar.sidecar.url.replace("http", "ws") + "/openai/v1/responses?model=m"
        async with connect(url, subprotocols=PROTOCOLS, compression=None) as socket:
            assert socket.subprotocol == "b"
            assert socket.response is not None
            assert socket.response.headers["x-codex-websocket-max-message-bytes"] == "20000"  # the provider's own
            for number in range(5):
                message = f"é{number}" * 2000
                if number in {1, 3}:
                    link.cut()
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send(b"\x00\xff")
            assert await socket.recv() == b"\x00\xff"
        assert (socket.close_code, socket.close_reason) == (1000, "")
        told = await sidecar.stats()
    assert told["resumes"] == 2
    assert gateway.messages == [*(f"é{number}".encode() * 2000 for number in range(5)), b"\x00\xff"]


async def test_a_refused_upgrade_is_passed_through_with_its_body() -> None:
    head = ReplyHead(426, b"Upgrade Required", (Line(b"X-Why", b"no"),))
    upgrade = (
        b"GET /openai/v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with (
        fake_gateway(lambda _: Answer(head=head, pieces=(b"not here",))) as gateway,
        running(gateway.url) as sidecar,
    ):
        agent = await sidecar.connect()
        await agent.send(upgrade)
        assert await agent.head() == (
            b"HTTP/1.1 426 Upgrade Required\r\nX-Why: no\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert await agent.until(CHUNKED_END) == b"8\r\nnot here\r\n" + CHUNKED_END


async def test_a_websocket_whose_node_is_gone_is_closed_as_a_restart() -> None:
    head = ReplyHead(101, b"Switching Protocols", ())
    async with (
        fake_gateway(lambda _: Answer(head=head)) as gateway,
        running(gateway.url) as sidecar,
        connect(sidecar.sidecar.url.replace("http", "ws") + "/openai/v1/responses") as socket,
    ):
        await socket.send("one")
        assert await socket.recv() == "one"
        await gateway.forget()
        assert json.loads(await socket.recv())["error"]["code"] == "segue_outcome_unknown"
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert socket.close_code == 1012


async def test_a_wrong_key_is_told_at_once_with_the_gateways_reason() -> None:
    async with fake_gateway() as gateway:
        gateway.refusal = Problem("invalid_api_key", "this key is not known")
        async with running(gateway.url) as sidecar:
            for _ in range(3):
                answer = await sidecar.post(b"{}")
                assert answer.startswith(b"HTTP/1.1 401 ")
                assert b"this key is not known" in answer
                assert b"SEGUE_SIDECAR_KEY or with --key" in answer  # the agent must not take it for its own
            assert len(gateway.upgrades) == 1  # not once for each request
            told = await sidecar.stats()
    assert told["link"] == "refused"
    assert told["failed"] == {"segue_invalid_key": 3}
    assert told["agent_bytes_in"] + told["agent_bytes_out"] == 0  # nothing was carried, and so nothing saved


async def test_another_version_is_told_at_once() -> None:
    async with fake_gateway() as gateway:
        gateway.refusal = Problem("upgrade_required", "speak another version")
        async with running(gateway.url) as sidecar:
            answer = await sidecar.post(b"{}")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"] == {
        "type": "api_error",
        "code": "segue_gateway_refused",
        "message": "The gateway refused: speak another version",
    }


async def test_no_gateway_is_503_with_retry_after_when_patience_is_over() -> None:
    async with linked("127.0.0.1", 1) as link:
        await link.aclose()
        async with running(link.url, settings=IMPATIENT) as sidecar:
            began_at = asyncio.get_running_loop().time()
            answer = await sidecar.post(b"{}")
            waited_s = asyncio.get_running_loop().time() - began_at
    assert waited_s >= QUICK.wait_s / 2  # it counts from the start of the sidecar
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 5\r\n" in answer
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "segue_gateway_unreachable"
    assert f"{link.host}:{link.port}" in error["message"]


async def test_a_gateway_that_comes_later_than_the_agent_is_waited_for() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        async with link.refusing(), running(link.url, settings=PATIENT) as sidecar:
            asking = asyncio.create_task(sidecar.post(b"{}"))
            await sidecar.tried()
            await link.accept()
            assert (await asking).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [b"{}"]


async def test_a_link_that_was_there_is_waited_for_with_patience() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", gateway.port) as link:
        async with running(link.url, settings=IMPATIENT) as sidecar:
            await sidecar.linked()
            await sidecar.post(b"{}")
            async with link.refusing():
                link.cut()
                assert (await sidecar.post(b"[]")).startswith(b"HTTP/1.1 503 ")
            await sidecar.linked()
            assert (await sidecar.post(b"[1]")).startswith(b"HTTP/1.1 200 ")
        assert [one.body for one in gateway.forwarded] == [b"{}", b"[1]"]


async def test_the_first_gateway_that_is_there_is_used_with_its_key() -> None:
    async with fake_gateway() as gateway, linked("127.0.0.1", 1) as link:
        await link.aclose()
        settings = SidecarSettings(gateways=(), connector=ConnectorSettings(key="secret"))
        async with running(link.url, gateway.url, settings=settings) as sidecar:
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
            told = await sidecar.stats()
        assert gateway.upgrades[0]["authorization"] == "Bearer secret"
        assert len(gateway.upgrades[0]["segue-session"]) == 32
        assert "sec-websocket-extensions" not in gateway.upgrades[0]
        assert (told["link"], told["gateway"]) == ("up", gateway.url)


async def test_many_at_once() -> None:
    def script(forwarded: Forwarded) -> Answer:
        assert forwarded.body is not None
        return Answer(pieces=(forwarded.body,), head=ReplyHead(200, b"OK", ()))

    async with fake_gateway(script) as gateway, running(gateway.url) as sidecar:
        bodies = [b"%d " % number + random.Random(number).randbytes(1500).hex().encode() for number in range(100)]
        answers = await asyncio.gather(*(sidecar.post(body) for body in bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert dechunked(answer) == body


async def test_a_head_that_no_gateway_takes_is_431() -> None:
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(1100))
    for upgrade in (b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + WEBSOCKET_KEY):
        async with fake_gateway() as gateway, running(gateway.url) as sidecar:
            agent = await sidecar.connect()
            await agent.send(b"GET /v1 HTTP/1.1\r\nHost: localhost\r\n" + upgrade + lines + b"\r\n")
            assert (await agent.head()).startswith(b"HTTP/1.1 431 ")
            assert gateway.forwarded == []


async def test_an_agent_that_hangs_up_while_its_body_is_encoded_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, handle = BodyEncoder.encode, RequestHandler.handle
    handled: asyncio.Future[AgentRequest] = asyncio.get_running_loop().create_future()

    async def handle_and_note(self: RequestHandler, request: AgentRequest) -> None:
        handled.set_result(request)
        await handle(self, request)

    async def encode_slowly(
        self: BodyEncoder, head: RequestHead, body: bytes | None, *, folds_alike: bool
    ) -> EncodedBody | None:
        await (await handled).gone.wait()
        return await encode(self, head, body, folds_alike=folds_alike)

    monkeypatch.setattr(RequestHandler, "handle", handle_and_note)
    monkeypatch.setattr(BodyEncoder, "encode", encode_slowly)
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await handled
        agent.reset()
        await sidecar.finished(1)
        told = await sidecar.stats()
    assert (told["recent"][0]["outcome"], told["exchanges"]) == ("gone", 1)
    assert gateway.forwarded == []


async def test_a_websocket_without_a_gateway_is_refused_like_any_request() -> None:
    async with running("ws://127.0.0.1:1", settings=IMPATIENT) as sidecar:
        agent = await sidecar.connect()
        await agent.send(
            b"GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\n" + WEBSOCKET_KEY + b"\r\n"
        )
        assert (await agent.head()).startswith(b"HTTP/1.1 503 ")


async def test_a_websocket_that_no_node_takes_is_overloaded() -> None:
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.linked()
        gateway.takes_nothing = True
        with pytest.raises(InvalidStatus, match="503"):
            async with connect(sidecar.sidecar.url.replace("http", "ws") + "/openai/v1/responses"):
                pass
        assert gateway.forwarded == []
