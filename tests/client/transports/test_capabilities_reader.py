"""A server is asked what it offers once, and only one that may know the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from segue.client.capabilities import OPENAI_SERVICE, PLAIN_SERVER, read_capabilities_header
from segue.client.recovery import FaultKind
from segue.client.settings import ConnectionSettings
from segue.client.transports.capabilities_reader import fetch_capabilities
from segue.client.transports.http import HttpTransport
from segue.client.transports.http_exchange import ServerExchanges
from segue.client.transports.interface import TransportFault
from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest, provided
from tests.client.transports.streams import CREATE, HTML, JSON, drained, response, settings_for, streamed

TOLD = b'{"object":"segue.capabilities","epoch":"%b","extensions":["resume"],"limits":{"resume_s":60}}'
HEADER = 'epoch="%s", resume_s=60, extensions=(resume)'


def telling(*epochs: str) -> Callable[[ReceivedRequest], Answer]:
    """A server that tells one epoch after the other when it is asked, and answers creates with none."""
    left = iter(epochs)

    def script(request: ReceivedRequest) -> Answer:
        if request.target == b"/segue/capabilities":
            return Answer(lines=JSON, pieces=(TOLD % next(left).encode(),))
        return streamed(*response())

    return script


async def test_a_server_is_asked_once_at_its_root_by_all_at_once() -> None:
    async with provided(telling("one")) as provider:
        transport = HttpTransport(settings_for(provider))
        answers = await asyncio.gather(*(transport.connect(lane=lane) for lane in range(5)))
        await transport.aclose()
        assert [request.target for request in provider.requests] == [b"/segue/capabilities"]
    assert {answer.capabilities.epoch for answer in answers} == {"one"}


async def test_a_gateway_is_asked_again_when_its_epoch_matters() -> None:
    async with provided(telling("one", "two")) as provider:
        transport = HttpTransport(settings_for(provider))
        assert (await transport.connect(lane=1)).capabilities.epoch == "one"
        assert (await transport.connect(lane=1)).capabilities.epoch == "one"
        assert (await transport.connect(lane=1, fresh=True)).capabilities.epoch == "two"
        await transport.aclose()


async def test_a_plain_server_is_not_asked_again() -> None:
    async with provided(lambda _: Answer(status=404)) as provider:
        transport = HttpTransport(settings_for(provider))
        for fresh in (False, True):
            assert (await transport.connect(lane=1, fresh=fresh)).capabilities is PLAIN_SERVER
        await transport.aclose()
        assert len(provider.requests) == 1


async def test_a_gateway_that_is_away_is_not_taken_for_a_plain_server() -> None:
    """A proxy answers in its place. That it has lost its memory must not be concluded from that."""
    answers = iter((TOLD % b"one", None, TOLD % b"one"))

    def script(_: ReceivedRequest) -> Answer:
        told = next(answers)
        return Answer(status=502) if told is None else Answer(lines=JSON, pieces=(told,))

    async with provided(script) as provider:
        transport = HttpTransport(settings_for(provider))
        await transport.connect(lane=1)
        with pytest.raises(TransportFault) as raised:
            await transport.connect(lane=1, fresh=True)
        assert (raised.value.fault.kind, raised.value.fault.delivered) == ("connect_failed", "no")
        assert (await transport.connect(lane=1, fresh=True)).capabilities.epoch == "one"
        await transport.aclose()


async def test_a_server_that_cannot_say_yet_counts_as_plain_until_it_can() -> None:
    answers = iter((Answer(status=503), Answer(lines=JSON, pieces=(TOLD % b"one",))))
    async with provided(lambda _: next(answers)) as provider:
        transport = HttpTransport(settings_for(provider))
        assert (await transport.connect(lane=1)).capabilities is PLAIN_SERVER
        assert (await transport.connect(lane=1)).capabilities.epoch == "one"
        await transport.aclose()


async def test_the_head_of_any_answer_may_say_it() -> None:
    answer = streamed(*response())
    header = Line(b"Segue-Capabilities", (HEADER % "three").encode())
    async with provided(lambda _: Answer(lines=(*answer.lines, header), pieces=answer.pieces)) as provider:
        transport = HttpTransport(settings_for(provider))
        await drained(await transport.create(CREATE, lane=1, connection=0))
        assert (await transport.connect(lane=1)).capabilities == read_capabilities_header(HEADER % "three")
        await transport.aclose()
        assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=401, lines=JSON, pieces=(b'{"error":{}}',)),
        Answer(status=302, lines=(Line(b"Location", b"/"),)),
        Answer(lines=HTML, pieces=(b"<html>",)),
        Answer(lines=JSON, pieces=(b'{"object":"list"}',)),
        Answer(lines=JSON, pieces=(b" " * 1_000_000,)),
        Answer(lines=JSON, pieces=(b"{" * 60_000,)),
    ],
)
async def test_a_server_that_does_not_know_the_question_offers_nothing(answer: Answer) -> None:
    async with provided(lambda _: answer) as provider:
        server = ServerExchanges(settings_for(provider))
        assert await fetch_capabilities(server) is PLAIN_SERVER
        await server.aclose()
        assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(cut_before_head=True), "connection_lost"),
        (Answer(lines=JSON, pieces=(TOLD,), cut_after=9), "connection_lost"),
        (Answer(before=asyncio.Event()), "timeout"),
    ],
)
async def test_a_server_that_does_not_answer_is_a_fault(answer: Answer, kind: FaultKind) -> None:
    async with provided(lambda _: answer) as provider:
        server = ServerExchanges(settings_for(provider, idle_timeout_s=0.2))
        with pytest.raises(TransportFault) as raised:
            await fetch_capabilities(server)
        await server.aclose()
    assert (raised.value.fault.kind, raised.value.fault.delivered) == (kind, "no"), "the create was not sent yet"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1", b"/segue/capabilities"),
        ("/v1/", b"/segue/capabilities"),
        ("", b"/segue/capabilities"),
        ("/team/gateway/v1?api-version=2", b"/team/gateway/segue/capabilities"),
        ("/api", b"/segue/capabilities"),
    ],
)
async def test_the_question_is_asked_beside_the_apis_version(path: str, asked: bytes) -> None:
    """A proxy may have put the gateway under a prefix."""
    async with provided(lambda _: Answer(status=404)) as provider:
        server = ServerExchanges(ConnectionSettings(base_url=f"{provider.url}{path}"))
        await fetch_capabilities(server)
        await server.aclose()
        assert provider.requests[0].target == asked


async def test_openais_service_is_not_asked() -> None:
    server = ServerExchanges(ConnectionSettings(base_url="https://api.openai.com/v1"))
    assert await fetch_capabilities(server) is OPENAI_SERVICE
    await server.aclose()
