"""Responses over HTTP, against a scripted server on a loopback socket."""

from __future__ import annotations

import asyncio
import ssl

import msgspec
import pytest
import trustme
from msgspec.structs import replace

from segue.client.capabilities import PLAIN_SERVER
from segue.client.recovery import FaultKind, TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http import HttpTransport
from segue.client.transports.interface import Connected, TransportFault
from segue.http.heads import Line
from segue.protocol.requests import LeanForm
from segue.testing.provider import Answer, ReceivedRequest, gzipped, provided
from tests.client.transports.streams import (
    CREATE,
    HTML,
    JSON,
    SSE,
    create,
    drained,
    event,
    refusal,
    response,
    serving,
    settings_for,
    sse,
    streamed,
    until,
)
from tests.loop_clock import LoopClock

EVENTS = response()
STARTED = EVENTS[:2]
DOCUMENT = msgspec.json.encode({"id": "resp_1", "object": "response", "status": "completed", "error": None})


async def fault_of(transport: HttpTransport) -> TurnFault:
    with pytest.raises(TransportFault) as raised:
        await create(transport)
    return raised.value.fault


# --- a create --------------------------------------------------------------------------------------------------------


async def test_a_create_is_a_post_and_its_answer_a_stream_of_events() -> None:
    async with serving(streamed(*EVENTS, b"[DONE]")) as (provider, transport):
        assert await drained(await create(transport)) == (list(EVENTS), None)
        (request,) = provider.requests
    assert (request.method, request.target) == (b"POST", b"/v1/responses")
    assert request.body == b'{"stream":true,"model":"m","input":"hi"}'
    lines = {name.lower(): value for name, value in request.lines}
    assert lines[b"authorization"] == b"Bearer sk-of-the-test"
    assert lines[b"accept"] == b"text/event-stream"
    assert lines[b"accept-encoding"] == b"identity"
    assert lines[b"content-type"] == b"application/json"


async def test_the_header_lines_of_the_settings_go_along_and_win() -> None:
    headers = (("X-Team", "blue"), ("authorization", "Basic abc"))
    async with serving(streamed(*EVENTS), headers=headers) as (provider, transport):
        await drained(await create(transport))
        lines = [(name.lower(), value) for name, value in provider.requests[0].lines]
    assert (b"x-team", b"blue") in lines
    assert [value for name, value in lines if name == b"authorization"] == [b"Basic abc"]


async def test_turns_share_a_connection_and_it_is_counted_to_the_byte() -> None:
    async with serving(streamed(*EVENTS, b"[DONE]")) as (provider, transport):
        counts: list[tuple[int, int]] = []
        for _ in range(3):
            stream = await create(transport)
            await drained(stream)
            await stream.aclose()
            counts.append((stream.wire_sent_bytes, stream.wire_received_bytes))
            await asyncio.gather(*transport._tails)  # noqa: SLF001 - nothing else shows that the end was read
        assert [request.connection for request in provider.requests] == [0, 0, 0]
        sent = sum(len(request.raw_head) + len(request.raw_body) for request in provider.requests)
        assert transport.meter.sent_bytes == sent
        assert sum(count for count, _ in counts) == sent
        assert all(received > sum(map(len, EVENTS)) for _, received in counts)
        assert sum(count for _, count in counts) <= transport.meter.received_bytes


async def test_events_are_yielded_as_they_come() -> None:
    gate = asyncio.Event()
    async with serving(streamed(*EVENTS, gates={2: gate})) as (_, transport):
        stream = await create(transport)
        assert [await anext(stream), await anext(stream)] == list(STARTED)
        gate.set()
        assert await drained(stream) == ([EVENTS[2]], None)


async def test_a_json_document_in_place_of_a_stream_is_yielded_whole() -> None:
    async with serving(Answer(lines=JSON, pieces=(DOCUMENT[:9], DOCUMENT[9:]))) as (_, transport):
        stream = await create(transport)
        assert await drained(stream) == ([DOCUMENT], None)
        assert stream.wire_received_bytes > len(DOCUMENT)
        assert stream.wire_sent_bytes > len(CREATE)
        stream = await create(transport)
        await stream.aclose()
        assert await drained(stream) == ([], None)


async def test_a_stream_that_is_closed_early_cancels_the_turn() -> None:
    async with serving(streamed(*EVENTS, gates={2: asyncio.Event()})) as (provider, transport):
        stream = await create(transport)
        await anext(stream)
        await stream.aclose()
        await provider.abandoned(0)
        assert await drained(stream) == ([], None)
        await stream.aclose()


async def test_a_create_that_is_cancelled_in_the_middle_of_its_upload_breaks_it_off() -> None:
    """The answer waits for an event that never comes; the client must not."""
    async with serving(Answer(before=asyncio.Event())) as (provider, transport):
        task = asyncio.create_task(create(transport))
        await provider.seen(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await provider.abandoned(0)


async def test_whole_answers_that_are_closed_early_leave_their_connection_alone() -> None:
    """All bytes are here already and the connection may serve another request: it must not be broken."""
    async with serving(Answer(lines=SSE, pieces=sse(*EVENTS), framing="length")) as (provider, transport):
        first = await create(transport)
        await anext(first)
        await asyncio.gather(*transport._tails)  # noqa: SLF001 - as above
        second = await create(transport)
        await first.aclose()
        assert await drained(second) == (list(EVENTS), None)
        assert len(provider.requests) == 2


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (
            Answer(
                status=429,
                lines=(*JSON, Line(b"Retry-After", b"2")),
                pieces=(b'{"error":{"code":"rate_limit_exceeded","message":"slow down, sk-of-the-test","param":"p"}}',),
            ),
            TurnFault(
                kind="refused",
                transport="http",
                status=429,
                code="rate_limit_exceeded",
                message="slow down, …",
                param="p",
                retry_after_s=2.0,
                body_kind="json",
            ),
        ),
        (
            Answer(status=502, lines=HTML, pieces=(b"<html>bad gateway</html>",)),
            TurnFault(kind="refused", transport="http", status=502, body_kind="html"),
        ),
        (Answer(status=500), TurnFault(kind="refused", transport="http", status=500)),
        (
            Answer(status=307, lines=(Line(b"Location", b"/elsewhere"),)),
            TurnFault(kind="refused", transport="http", status=307),
        ),
        (
            Answer(lines=HTML, pieces=(b"<html>log in</html>",)),
            TurnFault(kind="unreadable", transport="http", status=200, body_kind="html"),
        ),
        (Answer(status=202, framing="length"), TurnFault(kind="unreadable", transport="http", status=202)),
        (
            Answer(lines=JSON, pieces=(b'{"error":{"code":"c","message":"m"}}',)),
            TurnFault(kind="refused", transport="http", status=200, code="c", message="m", body_kind="json"),
        ),
        (
            Answer(lines=JSON, pieces=(b'{"object":"list"}',)),
            TurnFault(kind="unreadable", transport="http", status=200, body_kind="json"),
        ),
        (
            Answer(lines=JSON, pieces=(b'{"object":',)),
            TurnFault(kind="unreadable", transport="http", status=200, body_kind="other"),
        ),
    ],
)
async def test_an_answer_that_is_no_response_is_a_fault(answer: Answer, fault: TurnFault) -> None:
    async with serving(answer) as (provider, transport):
        assert await fault_of(transport) == fault
        assert len(provider.requests) == 1, "no redirect is followed, and nothing is sent again"


async def test_a_compressed_stream_is_not_read() -> None:
    async with serving(gzipped(streamed(*EVENTS))) as (_, transport):
        fault = await fault_of(transport)
    assert (fault.kind, fault.status, fault.body_kind) == ("unreadable", 200, "other")


async def test_the_body_of_an_error_is_read_only_so_far() -> None:
    async with serving(Answer(status=400, lines=JSON, pieces=(b" " * 1_000_000,) * 3)) as (_, transport):
        fault = await fault_of(transport)
        assert transport.meter.received_bytes < 3_000_000
    assert (fault.kind, fault.status) == ("refused", 400)


async def test_an_error_whose_body_never_ends_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(status=503, lines=JSON, pieces=(b"busy", b""), gates={1: asyncio.Event()})
    clock = LoopClock(monkeypatch)
    async with serving(answer, connect_timeout_s=60.0) as (provider, transport):
        asking = asyncio.create_task(fault_of(transport))
        await provider.seen(1)
        fault = await clock.hurry(asking)
    assert (fault.kind, fault.status, fault.message) == ("refused", 503, "busy")


@pytest.mark.parametrize(
    ("events", "kind", "code"),
    [
        ((refusal("previous_response_not_found"),), "refused", "previous_response_not_found"),
        ((b'{"type":"error","code":"c","message":"m","param":null,"sequence_number":0}',), "refused", "c"),
        ((b'{"type":"keepalive"}', refusal("x")), "refused", "x"),
        ((*STARTED, refusal("server_error", 500)), "failed", "server_error"),
        ((*STARTED, b'{"type":"response.error","code":"c"}'), "failed", "c"),
    ],
)
async def test_an_error_event_ends_the_stream(events: tuple[bytes, ...], kind: FaultKind, code: str) -> None:
    async with serving(streamed(*events, *EVENTS)) as (_, transport):
        stream = await create(transport)
        got, fault = await drained(stream)
        assert await drained(stream) == ([], None)
    assert got == list(events[:-1])
    assert fault is not None
    assert (fault.kind, fault.code) == (kind, code)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        (sse(*STARTED), "stream_ended"),
        (sse(*STARTED, b"[DONE]"), "stream_ended"),
        ((*sse(*STARTED), b"data: " + EVENTS[2]), "stream_ended"),
        ((*sse(*STARTED), b"data: <html>\n\n"), "unreadable"),
        ((*sse(*STARTED), b"data: []\n\n"), "unreadable"),
        ((*sse(*STARTED), b"data: " + b"x" * 3000), "unreadable"),
    ],
)
async def test_a_stream_that_does_not_end_as_it_should_is_a_fault(pieces: tuple[bytes, ...], kind: FaultKind) -> None:
    async with serving(Answer(lines=SSE, pieces=pieces), max_message_bytes=2000) as (_, transport):
        got, fault = await drained(await create(transport))
    assert got == list(STARTED)
    assert fault is not None
    assert (fault.kind, fault.delivered) == (kind, "maybe")


@pytest.mark.parametrize("cut_after", [0, 1, 30, 150])
async def test_a_cut_anywhere_is_a_lost_connection_and_the_create_may_have_arrived(cut_after: int) -> None:
    async with serving(streamed(*EVENTS, cut_after=cut_after)) as (_, transport):
        try:
            _, fault = await drained(await create(transport))
        except TransportFault as raised:
            fault = raised.fault
    assert fault is not None
    assert (fault.kind, fault.delivered) == ("connection_lost", "maybe")
    assert fault.silent_s is None or 0 <= fault.silent_s < 60


async def test_a_reset_right_after_the_answer_takes_nothing_of_it_back() -> None:
    answer = streamed(*EVENTS)
    async with serving(replace(answer, cut_after=sum(map(len, answer.pieces)))) as (_, transport):
        stream = await create(transport)
        await until(vars(stream)["_response"].content.exception)
        assert await drained(stream) == (list(EVENTS), None)


async def test_a_connection_that_is_cut_without_an_answer_may_have_delivered_the_create() -> None:
    async with serving(Answer(cut_before_head=True)) as (provider, transport):
        fault = await fault_of(transport)
        assert len(provider.requests) == 1
    assert (fault.kind, fault.delivered) == ("connection_lost", "maybe")
    assert fault.silent_s is not None


async def test_a_kept_connection_that_closes_before_any_answer_may_have_delivered_the_create() -> None:
    def script(request: ReceivedRequest) -> Answer:
        return streamed(*EVENTS) if request.number == 0 else Answer(cut_before_head=True)

    async with serving(script) as (provider, transport):
        await drained(await create(transport))
        await asyncio.gather(*transport._tails)  # noqa: SLF001 - as above
        assert (await fault_of(transport)).delivered == "maybe"
        assert [request.connection for request in provider.requests] == [0, 0], "and it is not sent again"


async def test_a_server_that_cannot_be_reached_has_got_nothing() -> None:
    async with serving(Answer()) as (provider, _):
        gone = settings_for(provider)
    transport = HttpTransport(gone)
    fault = await fault_of(transport)
    await transport.aclose()
    assert (fault.kind, fault.delivered) == ("connect_failed", "no")
    assert fault.message == "The server cannot be reached."


async def test_a_name_that_does_not_exist_has_got_nothing() -> None:
    transport = HttpTransport(ConnectionSettings(base_url="http://nowhere.invalid/v1"))
    fault = await fault_of(transport)
    await transport.aclose()
    assert (fault.kind, fault.delivered) == ("connect_failed", "no")
    assert fault.message == "The server's name cannot be resolved."


async def test_a_certificate_that_nobody_trusts_gets_no_key() -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    async with provided(lambda _: streamed(*EVENTS), ssl=server) as provider:
        settings = ConnectionSettings(base_url=f"https://{provider.host}:{provider.port}/v1", api_key="sk-secret")
        untrusting, trusting = HttpTransport(settings), HttpTransport(settings, tls=client)
        fault = await fault_of(untrusting)
        assert provider.requests == []
        assert await drained(await create(trusting)) == (list(EVENTS), None)
        await untrusting.aclose()
        await trusting.aclose()
    assert (fault.kind, fault.delivered) == ("connect_failed", "no")
    assert fault.message == "The server's TLS certificate or handshake is not valid."


@pytest.mark.parametrize("answer", [Answer(before=asyncio.Event()), streamed(*EVENTS, gates={2: asyncio.Event()})])
async def test_a_server_that_says_nothing_for_too_long_is_a_fault(answer: Answer) -> None:
    async with serving(answer, idle_timeout_s=0.2) as (provider, transport):
        try:
            _, fault = await drained(await create(transport))
        except TransportFault as raised:
            fault = raised.fault
        await provider.abandoned(0)
    assert fault is not None
    assert (fault.kind, fault.delivered) == ("timeout", "maybe")
    assert fault.silent_s is not None
    assert fault.silent_s >= 0.1


async def test_what_is_no_http_is_unreadable() -> None:
    server = await asyncio.start_server(talk_nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport = HttpTransport(ConnectionSettings(base_url=f"http://127.0.0.1:{port}/v1"))
    async with server:
        fault = await fault_of(transport)
        await transport.aclose()
    assert (fault.kind, fault.delivered) == ("unreadable", "maybe")


async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"nonsense\r\n\r\n")
    writer.close()


# --- resume and retrieve ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "lean", "query"),
    [
        (17, False, b"stream=true&starting_after=17"),
        (-1, False, b"stream=true"),
        (0, True, b"stream=true&starting_after=0&lean=true"),
        (0, "compact", b"stream=true&starting_after=0&lean=compact"),
    ],
)
async def test_a_stream_is_resumed_after_a_number(after: int, lean: LeanForm, query: bytes) -> None:
    async with serving(streamed(*EVENTS[1:])) as (provider, transport):
        stream = await transport.resume("resp_a-B_1", after, lane=1, connection=0, lean=lean)
        assert await drained(stream) == (list(EVENTS[1:]), None)
        assert provider.requests[0].target == b"/v1/responses/resp_a-B_1?" + query
        assert provider.requests[0].method == b"GET"


async def test_events_that_are_gone_are_a_refusal() -> None:
    answer = Answer(status=404, lines=JSON, pieces=(b'{"error":{"code":"response_events_gone","message":"m"}}',))
    async with serving(answer) as (_, transport):
        with pytest.raises(TransportFault) as raised:
            await transport.resume("resp_1", 3, lane=1, connection=0)
    assert (raised.value.fault.kind, raised.value.fault.code) == ("refused", "response_events_gone")


@pytest.mark.parametrize("response_id", ["", "../models", "a/b", "a?b", "a#b", "a%2fb", "ü", "a" * 513, ".."])
async def test_an_id_that_is_none_leads_nowhere(response_id: str) -> None:
    async with serving(Answer()) as (provider, transport):
        with pytest.raises(TransportFault) as raised:
            await transport.retrieve(response_id)
        with pytest.raises(TransportFault):
            await transport.resume(response_id, 0, lane=1, connection=0)
        assert provider.requests == []
    assert (raised.value.fault.kind, raised.value.fault.delivered) == ("unreadable", "no")


async def test_a_stored_response_is_retrieved() -> None:
    async with serving(Answer(lines=JSON, pieces=(DOCUMENT,))) as (provider, transport):
        assert await transport.retrieve("resp_1") == DOCUMENT
        assert provider.requests[0].target == b"/v1/responses/resp_1"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(status=404, lines=JSON, pieces=(b'{"error":{"code":"not_found"}}',)), "refused"),
        (Answer(lines=HTML, pieces=(b"<html>",)), "unreadable"),
        (Answer(lines=JSON, pieces=(b"{}",)), "unreadable"),
        (Answer(lines=JSON, pieces=(DOCUMENT, b" " * 5000)), "unreadable"),
        (Answer(lines=JSON, pieces=(DOCUMENT,), cut_after=5), "connection_lost"),
        (Answer(lines=JSON, pieces=(DOCUMENT, b""), gates={1: asyncio.Event()}), "timeout"),
    ],
)
async def test_a_response_that_cannot_be_retrieved_is_a_fault(answer: Answer, kind: FaultKind) -> None:
    async with serving(answer, max_message_bytes=2000, idle_timeout_s=0.3) as (_, transport):
        with pytest.raises(TransportFault) as raised:
            await transport.retrieve("resp_1")
    assert raised.value.fault.kind == kind


@pytest.mark.parametrize("status", [200, 204, 404])
async def test_a_response_is_forgotten(status: int) -> None:
    async with serving(Answer(status=status, framing="length")) as (provider, transport):
        await transport.forget("resp_1")
        await transport.forget("resp_1")
        assert [(request.method, request.target) for request in provider.requests] == [
            (b"DELETE", b"/v1/responses/resp_1")
        ] * 2
        assert provider.connections == 1


async def test_a_response_that_cannot_be_forgotten_is_a_fault() -> None:
    async with serving(Answer(status=403)) as (_, transport):
        with pytest.raises(TransportFault) as raised:
            await transport.forget("resp_1")
    assert (raised.value.fault.kind, raised.value.fault.status) == ("refused", 403)


# --- what is left ----------------------------------------------------------------------------------------------------


async def test_over_http_a_lane_has_no_connection_of_its_own() -> None:
    async with serving(Answer(status=404)) as (_, transport):
        assert await transport.connect(lane=1) == Connected(0, PLAIN_SERVER)
        transport.release(1)
        assert transport.kind == "http"


async def test_a_tail_that_goes_on_for_ever_costs_its_connection_and_nothing_else() -> None:
    pieces = (*sse(*EVENTS), *((b": more" * 5000 + b"\n",) * 20))
    async with serving(Answer(lines=SSE, pieces=pieces, gates={len(pieces): asyncio.Event()})) as (provider, transport):
        assert await drained(await create(transport)) == (list(EVENTS), None)
        await asyncio.gather(*transport._tails)  # noqa: SLF001 - as above
        await drained(await create(transport))
        assert [request.connection for request in provider.requests] == [0, 1]


async def test_closing_the_transport_ends_what_it_still_reads() -> None:
    async with serving(streamed(*EVENTS, b"x", gates={3: asyncio.Event()})) as (provider, transport):
        await drained(await create(transport))
        await transport.aclose()
        await provider.abandoned(0)


async def test_events_after_the_last_are_not_shown() -> None:
    async with serving(streamed(*EVENTS, event("response.created", 3))) as (_, transport):
        assert await drained(await create(transport)) == (list(EVENTS), None)


async def test_a_query_of_the_base_url_is_kept() -> None:
    async with serving(streamed(*EVENTS)) as (provider, _):
        settings = ConnectionSettings(base_url=f"{provider.url}/openai/v1?api-version=preview")
        transport = HttpTransport(settings)
        await drained(await create(transport))
        await drained(await transport.resume("resp_1", 3, lane=1, connection=0))
        await transport.aclose()
        assert [request.target for request in provider.requests] == [
            b"/openai/v1/responses?api-version=preview",
            b"/openai/v1/responses/resp_1?api-version=preview&stream=true&starting_after=3",
        ]


def test_a_base_url_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValueError, match="api_key") as raised:
        HttpTransport(ConnectionSettings(base_url="https://alice:hunter2@host/v1"))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://host/v1", "http:///v1", "file:///etc"])
def test_a_base_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        HttpTransport(ConnectionSettings(base_url=url))
