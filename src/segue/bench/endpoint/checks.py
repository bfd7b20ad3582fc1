"""The single questions of the endpoint benchmark: unknown ids, a new connection, lanes, compressed bodies, other doors.

Each costs one request or two and ends in one line. Not here: the conversations (`conversation`), and the verdicts on
histories (`verdicts`).
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import aiohttp
import msgspec
from yarl import URL

from segue.bench.endpoint.conversation import EndpointRound, answer_of
from segue.bench.endpoint.plan import UNKNOWN_ID, EndpointPlan, Json, make_create, said_by, user_text
from segue.bench.endpoint.verdicts import RecallReference, judge_answer, support_of, told
from segue.bench.meters.responses_turns import SocketTurns, TurnReply
from segue.client.recovery import TurnFault
from segue.client.transports.http_exchange import ServerExchanges
from segue.client.transports.interface import TransportFault
from segue.client.transports.server_errors import MAX_BODY_BYTES
from segue.http_client.body import JsonBody

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CheckVerdict = Literal["yes", "no", "kept", "forgets", "refuses", "inconclusive", "failed", "not tried"]
Coding = Literal["gzip", "zstd"]

_OK, _REDIRECTS = 200, 300
_GZIP_WBITS = 31
_PARENT_LOST = "previous_response_not_found"
_LANES = ("bench-a", "bench-b")
_OTHER_DOORS_VERSION = "2023-06-01"


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found, in one word and one line. `input_tokens` is what the server counted for it."""

    name: str
    verdict: CheckVerdict
    detail: str = ""


def not_tried(name: str, why: str) -> CheckResult:
    """Say why a check was left out."""
    return CheckResult(name=name, verdict="not tried", detail=why)


# --- continuations that must not be answered -------------------------------------------------------------------------


def unknown_id_create(plan: EndpointPlan, held: EndpointRound) -> Json:
    """Make a create that continues a response which never was."""
    question = said_by("user", user_text(plan.turns, held.words, plan))
    return make_create(plan, [question], store=True, previous=UNKNOWN_ID)


def judge_unknown_id(name: str, reply: TurnReply) -> CheckResult:
    """An unknown id must be refused: an answer would be one without its history."""
    if reply.answered:
        return CheckResult(name=name, verdict="forgets", detail="it answered as if there were no id")
    return judge_refusal(name, reply.fault)


def judge_refusal(name: str, fault: TurnFault | None) -> CheckResult:
    """Judge a continuation that was not answered."""
    assert fault is not None, "what was not answered has a fault"
    named = "" if fault.code == _PARENT_LOST else f" (not as {_PARENT_LOST})"
    refused = support_of(fault) == "no" or fault.code == _PARENT_LOST
    return CheckResult(name=name, verdict="refuses" if refused else "failed", detail=told(fault) + named * refused)


def continue_create(plan: EndpointPlan, held: EndpointRound, *, store: bool) -> Json:
    """Ask once more for the second word, in a conversation that another connection held."""
    question = said_by("user", user_text(plan.turns, held.words, plan))
    return make_create(plan, [question], store=store, previous=held.last_id)


def judge_continued(name: str, reply: TurnReply, held: EndpointRound, reference: RecallReference) -> CheckResult:
    """Judge the answer to a continuation from another connection."""
    if not reply.answered:
        return judge_refusal(name, reply.fault)
    judged = judge_answer(answer_of(reply, asked="far", words=held.words), reference)
    return CheckResult(name=name, verdict=judged.verdict, detail=judged.why)


# --- lanes -----------------------------------------------------------------------------------------------------------


async def check_lanes(name: str, turns: SocketTurns, plan: EndpointPlan) -> CheckResult:
    """Run two turns at once, each in a lane with a name; a server with lanes names the lane in each event."""
    items = [said_by("user", "Answer with: OK.")]
    creates = [{**make_create(plan, items, store=False), "stream_id": lane} for lane in _LANES]
    replies = await turns.run(creates)
    broken = next((reply.fault for reply in replies if reply.fault is not None), None)
    if broken is not None:
        verdict: CheckVerdict = "no" if support_of(broken) == "no" else "failed"
        return CheckResult(name=name, verdict=verdict, detail=told(broken))
    if [reply.lane for reply in replies] == list(_LANES):
        return CheckResult(name=name, verdict="yes", detail="two turns ran, each in its lane")
    return CheckResult(name=name, verdict="no", detail="stream_id is ignored: events do not name their lane")


# --- compressed bodies -----------------------------------------------------------------------------------------------


async def check_coding(name: str, server: ServerExchanges, plan: EndpointPlan, coding: Coding) -> CheckResult:
    """Send a request whose body is compressed (RFC 9110, 8.4)."""
    body = msgspec.json.encode(make_create(plan, [said_by("user", "Answer with: OK.")], store=False))
    headers = {"Content-Encoding": coding}
    return await _post(name, server, server.responses_url(), packed(body, coding), headers)


def packed(body: bytes, coding: Coding) -> bytes:
    """Compress a body."""
    return zlib.compress(body, wbits=_GZIP_WBITS) if coding == "gzip" else zstd.compress(body)


# --- other doors -----------------------------------------------------------------------------------------------------


async def check_chat(name: str, server: ServerExchanges, plan: EndpointPlan) -> CheckResult:
    """Ask through Chat Completions."""
    message = {"role": "user", "content": "Answer with: OK."}
    body = msgspec.json.encode({"model": plan.model, "max_tokens": plan.max_output_tokens, "messages": [message]})
    return await _post(name, server, server.base_url / "chat" / "completions", body, {})


async def check_messages(name: str, server: ServerExchanges, plan: EndpointPlan, key: str | None) -> CheckResult:
    """Ask through Anthropic's Messages."""
    return await _post(name, server, server.base_url / "messages", _message(plan, {}), _messages_headers(key))


async def check_thread(name: str, server: ServerExchanges, plan: EndpointPlan, key: str | None) -> CheckResult:
    """Continue a message thread that never was: it must be refused, or the history is lost in silence."""
    thread = {"thread": {"type": "continue", "previous_message_id": "msg_000000000000000000000000"}}
    headers = {**_messages_headers(key), "anthropic-beta": "message-threads-2026-08-12"}
    done = await _post(name, server, server.base_url / "messages", _message(plan, thread), headers)
    match done.verdict:
        case "yes":
            return CheckResult(name=name, verdict="forgets", detail="it answered as if there were no thread")
        case "no":
            return CheckResult(name=name, verdict="refuses", detail=done.detail)
        case _:
            return done


def _message(plan: EndpointPlan, more: Mapping[str, Any]) -> bytes:
    message = {"role": "user", "content": "Answer with: OK."}
    body = {"model": plan.model, "max_tokens": plan.max_output_tokens, "messages": [message], **more}
    return msgspec.json.encode(body)


def _messages_headers(key: str | None) -> dict[str, str]:
    return {"anthropic-version": _OTHER_DOORS_VERSION, **({} if key is None else {"x-api-key": key})}


async def _post(name: str, server: ServerExchanges, url: URL, body: bytes, headers: Mapping[str, str]) -> CheckResult:
    """Send one request, and read as much of the answer as says whether it is one."""
    request_headers = {"Accept-Encoding": "identity", **headers}
    try:
        async with server.session.post(
            url, data=JsonBody((body,)), headers=request_headers, allow_redirects=False
        ) as response:
            data = await _start_of(response)
    except (OSError, aiohttp.ClientError, TransportFault):
        return CheckResult(name=name, verdict="failed", detail="no answer")
    if _OK <= response.status < _REDIRECTS:
        served = _is_object(data)
        return CheckResult(name=name, verdict="yes" if served else "no", detail="" if served else "it is no API")
    words = server.words.read_body(data, response.headers, time.time())
    fault = words.fault("refused", "http", status=response.status)
    return CheckResult(name=name, verdict="no" if support_of(fault) == "no" else "failed", detail=told(fault))


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    while len(read) < MAX_BODY_BYTES and (piece := await response.content.readany()):
        read += piece
    return bytes(read)


def _is_object(data: bytes) -> bool:
    return data.lstrip()[:1] == b"{"
