"""Single checks against servers that answer in every way."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

from segue.bench.endpoint.checks import (
    check_chat,
    check_coding,
    check_lanes,
    check_messages,
    check_thread,
    judge_continued,
    judge_refusal,
    judge_unknown_id,
    packed,
)
from segue.bench.endpoint.conversation import EndpointRound
from segue.bench.endpoint.plan import CodeWords, EndpointPlan
from segue.bench.endpoint.verdicts import RecallReference
from segue.bench.meters.responses_turns import TurnReply, open_turns
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http import HttpTransport
from segue.testing.provider import Answer, ReceivedRequest, provided
from segue.testing.responses_rules import OPENAI
from segue.testing.responses_server import responding
from tests.bench.endpoint.servers import recalling

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAN = EndpointPlan(model="m")
HELD = EndpointRound(words=CodeWords("amber-1", "cedar-2"), turns=(), answers=())
REFUSED = TurnFault(kind="refused", transport="http", status=400, code="previous_response_not_found")


def json_answer(status: int, text: bytes) -> Answer:
    return Answer(status=status, reason=b"Said", pieces=(text,), framing="length")


@pytest.mark.parametrize(
    ("fault", "verdict", "detail"),
    [
        (REFUSED, "refuses", "400 previous_response_not_found"),
        (
            TurnFault(kind="refused", transport="websocket", status=404, code="server_error"),
            "refuses",
            "404 server_error (not as previous_response_not_found)",
        ),
        (TurnFault(kind="refused", transport="http", status=500, code=REFUSED.code), "refuses", f"500 {REFUSED.code}"),
        (TurnFault(kind="timeout", transport="http"), "failed", "it did not answer in time"),
    ],
)
def test_a_refusal_is_what_an_unknown_id_should_get(fault: TurnFault, verdict: str, detail: str) -> None:
    reply = TurnReply(ended="fault", fault=fault)
    for judged in (judge_refusal("x", fault), judge_unknown_id("x", reply)):
        assert (judged.verdict, judged.detail) == (verdict, detail)


def test_an_answer_to_an_unknown_id_is_one_without_its_history() -> None:
    assert judge_unknown_id("x", TurnReply(ended="completed", text="OK.")).verdict == "forgets"


@pytest.mark.parametrize(("text", "verdict"), [("cedar-2", "kept"), ("amber-1", "inconclusive")])
def test_a_continuation_elsewhere_is_judged_by_its_answer(text: str, verdict: str) -> None:
    judged = judge_continued("x", TurnReply(ended="completed", text=text), HELD, RecallReference())
    assert judged.verdict == verdict
    assert judge_continued("x", TurnReply(ended="fault", fault=REFUSED), HELD, RecallReference()).verdict == "refuses"


def test_bodies_are_compressed_as_their_names_say() -> None:
    assert gzip.decompress(packed(b"abc" * 99, "gzip")) == b"abc" * 99
    assert zstd.decompress(packed(b"abc" * 99, "zstd")) == b"abc" * 99


async def test_lanes_that_are_not_there_are_refused_or_ignored() -> None:
    """A server without lanes that refuses is one thing; here a lane's create fails for a reason of its own."""
    async with responding(OPENAI, model=recalling) as server:
        http = HttpTransport(ConnectionSettings(base_url=server.base_url))
        turns = await open_turns(http.server, 5.0)
        assert not isinstance(turns, TurnFault)
        assert (await check_lanes("lanes", turns, PLAN)).verdict == "yes"
        server.cut()
        assert (await check_lanes("lanes", turns, PLAN)).verdict == "failed"
        await turns.aclose()
        await http.aclose()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (json_answer(200, b'{"id":"1"}'), "yes"),
        (json_answer(200, b"<html>"), "no"),
        (json_answer(404, b"<html>"), "no"),
        (json_answer(415, b'{"error":{"code":"unsupported"}}'), "no"),
        (json_answer(302, b""), "no"),
        (json_answer(401, b"{}"), "failed"),
        (Answer(cut_before_head=True), "failed"),
    ],
)
async def test_other_doors(answer: Answer, verdict: str) -> None:
    async with provided(lambda _: answer) as provider:
        http = HttpTransport(ConnectionSettings(base_url=f"{provider.url}/v1", api_key="sk-very-secret"))
        found = [
            await check_chat("x", http.server, PLAN),
            await check_messages("x", http.server, PLAN, "sk-very-secret"),
            await check_coding("x", http.server, PLAN, "gzip"),
        ]
        thread = await check_thread("x", http.server, PLAN, None)
        await http.aclose()
        requests = list(provider.requests)
    assert [one.verdict for one in found] == [verdict] * 3
    assert thread.verdict == {"yes": "forgets", "no": "refuses"}.get(verdict, verdict)
    chat, messages, coded, threaded = requests
    assert (chat.target, messages.target, coded.target) == (b"/v1/chat/completions", b"/v1/messages", b"/v1/responses")
    assert (_values(messages, b"x-api-key"), _values(threaded, b"x-api-key")) == ([b"sk-very-secret"], [])
    assert _values(coded, b"content-encoding") == [b"gzip"]
    assert json.loads(threaded.body or b"")["thread"]["type"] == "continue"


async def test_what_a_server_writes_is_shown_plainly_and_without_the_key() -> None:
    hostile = json_answer(400, b'{"error":{"message":"\\u001b[31mNo sk-very-secret\\u0007\\nhere"}}')
    async with provided(lambda _: hostile) as provider:
        http = HttpTransport(ConnectionSettings(base_url=f"{provider.url}/v1", api_key="sk-very-secret"))
        found = await check_chat("x", http.server, PLAN)
        await http.aclose()
    assert found.detail.isprintable()
    assert "secret" not in found.detail
    assert found.detail.startswith("400 ")


def _values(request: ReceivedRequest, name: bytes) -> list[bytes]:
    return [line.value for line in request.lines if line.name.lower() == name]
