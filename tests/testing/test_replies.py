"""Replies say the same as a stream and as one object, in the shapes of each API."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import KINDS, make_session
from segue.testing.recorded_session import RecordedSession
from segue.testing.replies import Api, ReplyContext, make_reply, pieces

TEXT = "Grüße: the tests pass now.\n"
ARGUMENTS = {"path": "/src/a.py", "text": 'say "ja"'}
OUTPUTS: dict[Api, Any] = {
    "responses": [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "s",
        },
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": TEXT, "annotations": []}],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "edit",
            "arguments": json.dumps(ARGUMENTS),
        },
    ],
    "chat": {
        "content": TEXT,
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "edit", "arguments": json.dumps(ARGUMENTS)},
            }
        ],
    },
    "messages": [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": TEXT},
        {"type": "tool_use", "id": "toolu_1", "name": "edit", "input": ARGUMENTS},
    ],
    "gemini": [{"text": TEXT}, {"functionCall": {"name": "edit", "args": ARGUMENTS}, "thoughtSignature": "s"}],
}


def events_of(api: Api) -> tuple[list[Any], Any]:
    asked = ReplyContext(request={"model": "m", "tools": []}, identity="id_1", created_at=7, seed="x")
    reply = make_reply(api, OUTPUTS[api], asked)
    assert all(event.endswith((b"\n\n", b"\r\n\r\n")) for event in reply.events)
    data = [json.loads(message) for message in reply.messages if message != b"[DONE]"]
    return data, json.loads(reply.whole)


def joined(events: list[Any], kind: str, field: str) -> str:
    return "".join(event[field] for event in events if event["type"] == kind)


def test_responses() -> None:
    events, whole = events_of("responses")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1] == {"type": "response.completed", "sequence_number": len(events) - 1, "response": whole}
    assert whole["output"] == OUTPUTS["responses"]
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == whole["output"]
    assert joined(events, "response.output_text.delta", "delta") == TEXT
    assert json.loads(joined(events, "response.function_call_arguments.delta", "delta")) == ARGUMENTS
    assert joined(events, "response.reasoning_summary_text.delta", "delta") == "Hm."


def test_chat() -> None:
    events, whole = events_of("chat")
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == TEXT
    calls = [call["function"]["arguments"] for delta in deltas for call in delta.get("tool_calls", [])]
    assert json.loads("".join(calls)) == ARGUMENTS
    assert whole["choices"][0]["message"]["content"] == TEXT
    assert whole["choices"][0]["finish_reason"] == "tool_calls"


def test_messages() -> None:
    events, whole = events_of("messages")
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert joined(deltas, "text_delta", "text") == TEXT
    assert joined(deltas, "thinking_delta", "thinking") == "Hm."
    assert joined(deltas, "signature_delta", "signature") == "s"
    assert json.loads(joined(deltas, "input_json_delta", "partial_json")) == ARGUMENTS
    assert whole["content"] == OUTPUTS["messages"]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")


def test_gemini() -> None:
    events, whole = events_of("gemini")
    parts = [part for event in events for part in event["candidates"][0]["content"]["parts"]]
    assert "".join(part.get("text", "") for part in parts) == TEXT
    assert [part for part in parts if "functionCall" in part] == OUTPUTS["gemini"][1:]
    assert whole["candidates"][0]["content"]["parts"] == OUTPUTS["gemini"]


def test_pieces_are_small_and_make_the_whole() -> None:
    cut = list(pieces(TEXT * 20, random.Random(1)))
    assert "".join(cut) == TEXT * 20
    assert all(3 <= len(piece) <= 12 for piece in cut[:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_reply_of_a_session_has_a_type_and_its_own_head(kind: AgentKind) -> None:
    session: RecordedSession = make_session(kind, turns=3)
    for turn in session.turns:
        json.loads(turn.reply.whole)
        names = [line.name for line in turn.reply.head_lines(streamed=session.streamed)]
        assert names.count(b"Content-Type") == 1
    assert len({turn.reply.lines for turn in session.turns}) == 3
