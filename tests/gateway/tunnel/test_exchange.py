"""One exchange: what reaches the provider, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading

import aiohttp
import pytest
from msgspec.structs import replace

from segue.config import KeyConfig, LimitsConfig, ServerConfig
from segue.egress.errors import EgressError
from segue.http.heads import Line, ReplyHead, RequestHead, values
from segue.stores.live.interface import LiveUnavailable
from segue.testing.provider import (
    Answer,
    ReceivedRequest,
    gzipped,
    provided,
)
from segue.tunnel.client import TunnelRequest
from segue.tunnel.documents import Base, encode_document
from segue.upstreams.time_slices import TimeSlices
from tests.faults.gateways import settled
from tests.gateway.peer import Peer
from tests.gateway.tunnel.forwarding import GET, KEY, advice_of, error_of, ok, post, running
from tests.loop_clock import LoopClock


async def test_a_request_reaches_the_provider_to_the_byte_and_its_reply_comes_back() -> None:
    body = b'{"model": "m",  "stream":true}'
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, replied = await peer.request(socket, post(encode_document(body)))
        (request,) = provider.requests
        host = provider.url.removeprefix("http://").encode()
        assert request.raw_head == (
            b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: " + host + b"\r\n"
            b"X-Api-Key: secret\r\naccept: a\r\nAccept: b\r\nX-Empty: \r\nContent-Length: 30\r\n\r\n"
        )
        assert request.body == body
    assert answer.head == ReplyHead(200, b"OK", (Line(b"X-One", b"1"), Line(b"x-one", b"2")))
    assert replied == b"hello world"


async def test_a_request_without_a_body_has_none_at_the_provider() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, TunnelRequest(GET, None))
        assert provider.requests[0].body is None
        assert b"ontent-" not in provider.requests[0].raw_head


class _Owners:
    """Who has forwarded which exchange: this gateway, another one, or nobody can tell."""

    def __init__(self, mine: bool | None) -> None:
        self.mine = mine
        self.asked: list[tuple[str, int]] = []

    async def claim(self, tenant: str, session: str, number: int) -> bool:
        self.asked.append((tenant, number))
        if self.mine is None:
            raise LiveUnavailable
        return self.mine


@pytest.mark.parametrize("mine", [True, None])
async def test_an_exchange_that_no_other_gateway_is_known_to_have_is_forwarded(mine: bool | None) -> None:
    async with running(ok) as (gateway, url, _):
        owners = gateway.tunnel.resources.owners = _Owners(mine)
        peer = Peer(url)
        async with peer.connected() as socket:
            _, replied = await peer.request(socket, post(encode_document(b"{}")))
    assert replied == b"hello world"
    assert len(owners.asked) == 1


async def test_an_exchange_that_another_gateway_has_had_is_not_forwarded_again() -> None:
    async with running(ok) as (gateway, url, provider):
        gateway.tunnel.resources.owners = _Owners(mine=False)
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, post(encode_document(b"{}")))
        assert error_of(answer) == (424, "segue_outcome_unknown")
        assert advice_of(answer) == [b"false"]
        assert provider.requests == []


async def test_an_empty_body_is_not_the_same_as_none() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(b"")))
        assert b"Content-Length: 0\r\n" in provider.requests[0].raw_head


async def test_a_delta_against_the_exchange_before_is_rebuilt() -> None:
    first = json.dumps({"messages": [{"role": "user", "content": "look " * 400}]}).encode()
    second = first[:-2] + b', {"role": "user", "content": "again"}]}'
    async with running(ok) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(first)))
            document = encode_document(second, Base(first), 0)
            answer, _ = await peer.request(socket, post(document))
        assert [request.body for request in provider.requests] == [first, second]
        assert len(document) < 150
        assert answer.misses == 0
        assert gateway.tunnel.resources.bases.size_bytes > 0


@pytest.mark.parametrize("times", [1, 2000], ids=["small", "rebuilt in a thread"])
async def test_a_body_is_a_base_as_soon_as_it_was_rebuilt(times: int) -> None:
    first = random.Random(1).randbytes(500) * times
    second, gate = first + b"news", asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"one ", b"two"), gates={1: gate})

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            documents = (encode_document(first), encode_document(second, Base(first)))
            answers = [peer.open(post(document)) for document in documents]
            await peer.pump(socket)
            for answer in answers:
                await answer.until(b"one ")
            assert [answer.misses for answer in answers] == [0, 0]
            gate.set()
            for answer in answers:
                await answer.whole()
        assert sorted(request.body or b"" for request in provider.requests) == sorted((first, second))


async def test_a_base_keeps_its_reply_while_the_same_body_is_answered_again() -> None:
    body, gate = b"x" * 500, asyncio.Event()
    again = body + b"hello world" * 20

    def script(_: object) -> Answer:
        return Answer(lines=(), pieces=(b"hello world" * 20, b"!"), gates={1: gate} if provider.requests[1:] else {})

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(body)))
            running_one = peer.open(post(encode_document(body)))
            await peer.pump(socket)
            await running_one.until(b"hello world" * 20)
            covering = peer.open(post(encode_document(again, Base(body, b"hello world" * 20))))
            await peer.pump(socket)
            await covering.until(b"hello world" * 20)
            assert covering.misses == 0
            gate.set()
            await covering.whole()


async def test_an_unknown_base_is_missed_and_the_body_sent_again() -> None:
    body = b"y" * 1000 + b"end"
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            document = encode_document(body, Base(b"y" * 1000))
            answer, replied = await peer.request(socket, post(document), encode_document(body))
        assert (answer.misses, replied) == (1, b"hello world")
        assert [request.body for request in provider.requests] == [body]


async def test_a_wrong_digest_with_a_base_is_missed_and_without_one_refused() -> None:
    first, body = b"x" * 500, b"x" * 500 + b"news"
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(first)))
            delta = encode_document(body, Base(first), 0)
            answer, _ = await peer.request(socket, post(_spoil(delta)), encode_document(body))
            refused, _ = await peer.request(socket, post(_spoil(encode_document(body))))
        assert answer.misses == 1
        assert error_of(refused) == (400, "invalid_request")
        assert [request.body for request in provider.requests] == [first, body]


async def test_a_second_document_that_names_a_base_again_is_refused() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            document = encode_document(b"y" * 500 + b"news", Base(b"y" * 500))
            answer, _ = await peer.request(socket, post(document), document)
        assert answer.misses == 1
        assert error_of(answer) == (400, "invalid_request")
        assert provider.requests == []


def _spoil(document: bytes) -> bytes:
    """Change a byte of the digest, which stands before the payload in every document."""
    digest_at = next(at for at in range(len(document)) if at > 2)
    return document[: digest_at + 15] + bytes([document[digest_at + 15] ^ 1]) + document[digest_at + 16 :]


async def test_a_base_of_another_tenant_is_missed() -> None:
    bob = KeyConfig("bob", "bob", hashlib.sha256(b"sk-bob").hexdigest())
    body = b"x" * 500
    async with running(ok, keys=[KEY, bob]) as (_, url, provider):
        alice, other = Peer(url), Peer(url)
        async with alice.connected({"Authorization": "Bearer sk-alice"}) as socket:
            await alice.request(socket, post(encode_document(body)))
        async with other.connected({"Authorization": "Bearer sk-bob"}) as socket:
            answer, _ = await other.request(socket, post(encode_document(body, Base(body))), encode_document(body))
        assert answer.misses == 1
        assert len(provider.requests) == 2


async def test_a_large_body_is_rebuilt_off_the_loop_in_slices_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    monkeypatch.setattr(TimeSlices, "pause", lambda _: threads.add(threading.current_thread().name))
    body = bytes(range(256)) * 8000
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            await peer.request(socket, post(encode_document(body)))
        assert provider.requests[0].body == body
    assert threads
    assert "MainThread" not in threads


@pytest.mark.parametrize("size", [100_001, 3_000_000])
async def test_a_body_over_the_limit_is_refused_before_it_is_expanded(size: int) -> None:
    async with running(ok, max_body_bytes=100_000) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, post(encode_document(b"\0" * size)))
        assert error_of(answer) == (413, "request_too_large")
        assert provider.requests == []


async def test_an_error_of_ours_builds_on_the_reply_before_too_if_its_stream_has_begun() -> None:
    def script(_: object) -> Answer:
        return Answer(pieces=(b"hello world",), delay_s=0.02, cut_before_head=len(provider.requests) > 1)

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            (one, _), (two, _) = [await peer.request(socket, post(encode_document(b"{}"))) for _ in range(2)]
    assert (one.prefix, two.prefix, error_of(two)) == (b"", b"hello world", (424, "upstream_closed"))


async def test_an_encoded_reply_comes_back_decoded() -> None:
    async with running(lambda request: gzipped(ok(request))) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, replied = await peer.request(socket, TunnelRequest(GET, None))
    assert replied == b"hello world"
    assert answer.head is not None
    assert all(line.name.lower() != b"content-encoding" for line in answer.head.lines)


async def test_the_first_piece_of_a_stream_is_not_held_back() -> None:
    gate = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await answer.until(b"data: 1\n\n")
            gate.set()
            assert await answer.whole() == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/nowhere", (404, "route_not_found")),
        (b"/v1/../etc", (400, "invalid_target")),
        (b"/v1/%2e%2e/etc", (400, "invalid_target")),
    ],
)
async def test_what_no_route_allows_is_refused(target: bytes, expected: tuple[int, str]) -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, TunnelRequest(replace(GET, target=target), None))
        assert error_of(answer) == expected
        assert provider.requests == []


@pytest.mark.parametrize(("method", "tells"), [(b"GET", False), (b"POST", False), (b"HEAD", True)])
async def test_what_the_gateway_replies_itself_is_framed_by_the_tunnel(method: bytes, *, tells: bool) -> None:
    """As replies of providers are: a length travels only where there is no body that it would frame."""
    async with running(ok) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            head = RequestHead(method, b"/nowhere", ())
            answer, body = await peer.request(socket, TunnelRequest(head, None))
    assert answer.head is not None
    assert answer.head.status == 404
    assert bool(values(answer.head.lines, b"content-length")) == tells
    assert bool(body) != tells


async def test_connect_is_not_passed_on() -> None:
    async with running(ok) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, TunnelRequest(replace(GET, method=b"CONNECT"), None))
        assert error_of(answer) == (400, "invalid_request")
        assert provider.connections == 0


async def test_a_reply_in_a_coding_that_is_not_known_is_passed_on_in_it() -> None:
    def script(_: object) -> Answer:
        return Answer(lines=(Line(b"Content-Encoding", b"dcz"),), pieces=(b"coded",))

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, body = await peer.request(socket, TunnelRequest(GET, None))
    assert answer.head is not None
    assert (values(answer.head.lines, b"content-encoding"), body) == ([b"dcz"], b"coded")


async def test_a_provider_that_is_not_there_is_told_as_502() -> None:
    async with provided(ok) as gone:
        pass
    async with running(ok, target=gone.url) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, post(encode_document(b"{}")))
    assert error_of(answer) == (502, "upstream_unreachable")
    assert advice_of(answer) == []  # nothing was sent, so the agent may ask again


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Answer(before=asyncio.Event()), (504, "upstream_timeout")),
        (Answer(cut_before_head=True), (502, "upstream_closed")),
        (Answer(lines=(Line(b"no name", b""),)), (502, "upstream_protocol_error")),
    ],
)
async def test_a_request_that_a_provider_may_have_carried_out_must_not_be_repeated(
    said: Answer, expected: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, answers = LoopClock(monkeypatch), []
    async with running(lambda _: said, reply_timeout_s=9.0) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            for number, asked_for in enumerate((post(encode_document(b"{}")), TunnelRequest(GET, None)), 1):
                asking = asyncio.create_task(peer.request(socket, asked_for))
                await provider.seen(number)
                if said.before is not None:
                    clock.forward(9.0)
                answers.append((await asking)[0])
        posted, asked = answers
        assert len(provider.requests) == 2
    assert (error_of(posted), advice_of(posted)) == ((424, expected[1]), [b"false"])
    assert (error_of(asked), advice_of(asked)) == (expected, [])  # a GET changes nothing


async def test_a_request_that_waited_for_a_connection_in_vain_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect_in_vain(*_: object, **__: object) -> object:
        raise EgressError("upstream_timeout", "it accepts no connection", sent=False)

    async with running(ok) as (gateway, url, _provider):
        monkeypatch.setattr(gateway.tunnel.resources.egress, "open", connect_in_vain)
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, post(encode_document(b"{}")))
    assert (error_of(answer), advice_of(answer)) == ((504, "upstream_timeout"), [])


async def test_a_reply_that_is_cut_is_not_taken_for_a_whole_one() -> None:
    def script(_: object) -> Answer:
        return Answer(pieces=(b"abcdef",), cut_after=3)

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer, _ = await peer.request(socket, TunnelRequest(GET, None))
    assert answer.reset is not None
    assert b"abcdef".startswith(answer.body)


async def test_a_cancelled_exchange_closes_the_request_at_the_provider() -> None:
    hanging = asyncio.Event()

    def script(_: object) -> Answer:
        return Answer(pieces=(b"a", b"b"), gates={1: hanging})

    async with running(script) as (_, url, provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await asyncio.wait_for(answer.started.wait(), 20)
            peer.end.cancel(1)
            await peer.pump(socket)
            await asyncio.wait_for(provider.abandoned(0), 20)


async def test_a_route_to_self_leads_into_the_own_api_as_the_tenant_of_the_tunnel() -> None:
    create = json.dumps({"model": "scripted", "input": "hello"}).encode()
    head = RequestHead(b"POST", b"/own/v1/responses", (Line(b"Content-Type", b"application/json"),))
    async with running(ok, keys=[KEY]) as (gateway, url, _provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            answer, replied = await peer.request(socket, TunnelRequest(head, encode_document(create)))
        assert answer.head is not None
        assert answer.head.status == 200
        stored = await gateway.services.store.record("alice", json.loads(replied)["id"], gateway.services.clock())
    assert stored is not None


async def test_the_messages_door_is_there_for_agents_behind_a_sidecar_and_keeps_their_threads() -> None:
    """Under the key of the tunnel; the agent's own means nothing here."""
    lines = (Line(b"Content-Type", b"application/json"), Line(b"x-api-key", b"sk-ant-of-the-agent"))
    head = RequestHead(b"POST", b"/own/v1/messages?beta=true", lines)
    asked = {"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    previous: str | None = None
    async with running(ok, keys=[KEY]) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            for _ in range(2):
                on = {"type": "create"} if previous is None else {"type": "continue", "previous_message_id": previous}
                body = encode_document(json.dumps({**asked, "thread": on}).encode())
                answer, replied = await peer.request(socket, TunnelRequest(head, body))
                assert answer.head is not None
                assert answer.head.status == 200
                previous = json.loads(replied)["id"]


async def test_a_route_that_is_not_for_a_key_is_refused_and_so_is_a_key_that_is_revoked() -> None:
    """Each request asks anew, on a link that was there before."""
    both, own = replace(KEY, routes=["/own", "/v1"]), replace(KEY, routes=["/own"])
    async with running(ok, keys=[both]) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            for keys, expected in (([both], None), ([own], (404, "route_not_found")), ([], (401, "segue_invalid_key"))):
                gateway.services.access.replace_keys(keys)
                answer, _ = await peer.request(socket, TunnelRequest(GET, None))
                assert (error_of(answer) if expected else None) == expected
        assert len(provider.requests) == 1


#: A gateway that does not wait for sidecars that have left in the middle.
BRIEF = ServerConfig(port=0, store="memory:", drain_s=0.1)
MALLORY = KeyConfig("mallory", "mallory", hashlib.sha256(b"sk-mallory").hexdigest())


async def test_uploads_and_bodies_that_one_tenant_holds_stop_no_other() -> None:
    """Six bodies of 1 MB, in documents of 100 bytes, for a provider that never answers: two of them are expanded."""
    never = asyncio.Event()

    def script(received: ReceivedRequest) -> Answer:
        return Answer(before=never) if b"mallory" in (received.body or b"")[:20] else ok(received)

    bearers = [{"Authorization": f"Bearer sk-{name}"} for name in ("mallory", "alice")]
    async with running(script, keys=[KEY, MALLORY], server=BRIEF, uploads_bytes=1_500_000) as (gateway, url, provider):
        attacker, peer = Peer(url, "a" * 32), Peer(url, "b" * 32)
        async with attacker.connected(bearers[0]) as theirs, peer.connected(bearers[1]) as socket:
            for number in range(6):
                body = b"mallory%d" % number + b"." * 1_000_000
                attacker.open(post(encode_document(body)))
            await attacker.pump(theirs)
            await provider.seen(1)
            body = random.Random(1).randbytes(600_000)
            answer, replied = await peer.request(socket, post(encode_document(body)))
            assert answer.head is not None
            assert (answer.head.status, replied) == (200, b"hello world")
            assert len(provider.requests) <= 3
            assert gateway.tunnel.resources.uploads.size_bytes < 7_000_000
            never.set()


async def test_a_body_is_not_held_any_more_when_the_provider_has_answered() -> None:
    """A reply may last for hours. Its body goes on as a base, in that budget."""
    gate = asyncio.Event()
    async with running(lambda _: Answer(pieces=(b"one", b"two"), gates={1: gate})) as (gateway, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            answer = peer.open(post(encode_document(b"x" * 300_000)))
            await peer.pump(socket)
            await answer.until(b"one")
            assert gateway.tunnel.resources.uploads.size_bytes == 0
            assert gateway.tunnel.resources.bases.get("local", Base(b"x" * 300_000).id) is not None
            gate.set()
            assert await answer.whole() == b"onetwo"


class Stalling(Peer):
    """A sidecar that sends so many packets, and then none but keeps its link."""

    packets_left = 2

    async def pump(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while self.packets_left and (packet := self.end.next_packet(asyncio.get_running_loop().time())) is not None:
            self.packets_left -= 1
            self.checker.sent("up", packet)
            await socket.send_bytes(packet)


async def test_an_upload_that_stops_coming_is_given_up() -> None:
    """It holds memory. While its sidecar has no link, that is not its fault."""
    async with running(ok, server=BRIEF, upload_stall_s=0.05) as (gateway, url, provider):
        peer = Stalling(url)
        async with peer.connected() as socket:
            answer = peer.open(post(encode_document(random.Random(1).randbytes(100_000))))
            await peer.pump(socket)
            await asyncio.wait_for(answer.ended.wait(), 20)
            assert error_of(answer) == (408, "request_timeout")
            assert gateway.tunnel.resources.uploads.size_bytes == 0
        assert provider.requests == []


async def test_a_key_over_a_limit_is_refused_before_anything_is_forwarded() -> None:
    """And told when to come back. What goes to the own API is counted there, as a turn."""
    limited = replace(KEY, limits=LimitsConfig(requests_per_minute=1, upload_bytes_per_minute=1000))
    async with running(ok, keys=[limited]) as (gateway, url, provider):
        peer = Peer(url)
        async with peer.connected({"Authorization": "Bearer sk-alice"}) as socket:
            own = await peer.request(socket, TunnelRequest(replace(GET, target=b"/own/v1/models"), None))
            assert own[0].head is not None
            assert own[0].head.status == 200
            await peer.request(socket, post(encode_document(b"x" * 500)))
            refused, _ = await peer.request(socket, TunnelRequest(GET, None))
            assert error_of(refused) == (429, "rate_limit_exceeded")
            assert refused.head is not None
            assert 1 <= int(values(refused.head.lines, b"retry-after")[0]) <= 60
        assert len(provider.requests) == 1
        (scope,) = (one for _, key, one in gateway.services.rules.quotas.counted() if key == "alice")
        assert (scope.counts.turns, scope.counts.refused, scope.counts.upload_bytes) == (1, 1, 500)
        assert scope.running == 0


@pytest.mark.parametrize("path", [b"/own/metrics", b"/own/readyz"])
async def test_what_is_for_this_machine_is_not_for_sidecars(path: bytes) -> None:
    async with running(ok) as (_, url, _provider):
        peer = Peer(url)
        async with peer.connected() as socket:
            head = RequestHead(b"GET", path, (Line(b"Accept", b"*/*"),))
            answer, _ = await peer.request(socket, TunnelRequest(head, None))
        assert error_of(answer) == (403, "forbidden_peer")


async def test_a_provider_that_floods_waits_for_a_slow_sidecar() -> None:
    """What was read and is not acknowledged is bounded."""
    piece = bytes(range(256)) * 256
    made: list[bytes] = []

    def script(_: object) -> Answer:
        chosen = random.Random(1)
        made.extend(chosen.randbytes(len(piece)) for _ in range(64))
        return Answer(pieces=tuple(made))

    async with running(script) as (_, url, _provider):
        peer = Peer(url)
        peer.consuming = False
        async with peer.connected() as socket:
            answer = peer.open(TunnelRequest(GET, None))
            await peer.pump(socket)
            await asyncio.wait_for(answer.started.wait(), 20)
            await settled(lambda: len(answer.body))
            assert 0 < len(answer.body) < len(b"".join(made))
            peer.consuming = True
            peer.end.consume(1, len(answer.body))
            await peer.pump(socket)
            assert await answer.whole() == b"".join(made)
