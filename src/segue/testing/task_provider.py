"""A model provider that solves the agent's tasks, in three APIs: Chat Completions, Messages and Responses.

    async with provided(solving_tasks) as provider:
        ...  # an upstream at provider.url, then an agent with a task of `segue.agent.tasks`

    async with responding(OPENAI, model=task_model) as server:
        ...  # the same model in a server of the Responses API that keeps conversations

It reads each request in its own API, gives the conversation to the scripted model, and answers in that API, streamed or
whole. It keeps nothing between requests: each must hold the whole conversation. This module uses none of segue's own
dialect code, since that is the code under test. Not here: how the tasks are solved (`segue.upstreams.scripted_tasks`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest, answer_with
from segue.testing.replies import Api, Json, ReplyContext, make_reply
from segue.testing.response_events import called, said
from segue.upstreams.scripted_tasks import Answered, Called, Said, TaskAnswer, next_answer

#: What it says to a conversation without the marker of a task.
NO_TASK = "There is no task in this conversation."

_CREATED_AT = 1_800_000_000
_Entries = Iterator[Said | Called | Answered]


class _TaskApi(msgspec.Struct, frozen=True):
    """How one API writes a conversation, and the output of a model."""

    api: Api
    identity: str
    read: Callable[[Json], _Entries]
    write: Callable[[TaskAnswer, str], object]


def solving_tasks(request: ReceivedRequest) -> Answer:
    """Answer a request with the scripted model: a script for `provided`."""
    api = _APIS.get(request.target.partition(b"?")[0].rpartition(b"/")[2])
    if api is None or request.method != b"POST":
        return _refusal(404, "not_found", "There is nothing here.")
    try:
        body: Json = json.loads(request.body or b"")
    except ValueError:
        return _refusal(400, "invalid_json", "The body is no JSON.")
    if body.get("previous_response_id"):
        return _refusal(400, "previous_response_not_found", "This provider keeps no responses.")
    answer = next_answer(list(api.read(body))) or TaskAnswer(NO_TASK)
    identity = f"{api.identity}{request.number:04}"
    context = ReplyContext(request=body, identity=identity, created_at=_CREATED_AT, seed=identity)
    reply = make_reply(api.api, api.write(answer, identity), context)
    return answer_with(reply, streamed=bool(body.get("stream")))


def task_model(history: Sequence[Json]) -> Sequence[Json]:
    """Answer a whole history with the scripted model: a model for `segue.testing.responses_server`."""
    answer = next_answer(list(_read_responses({"input": history}))) or TaskAnswer(NO_TASK)
    return [said(answer.text), *(called(one.name, one.arguments, call_id=one.call_id) for one in answer.calls)]


def _refusal(status: int, code: str, message: str) -> Answer:
    body = json.dumps({"error": {"type": "invalid_request_error", "code": code, "message": message, "param": None}})
    lines = (Line(b"Content-Type", b"application/json"),)
    return Answer(status=status, reason=b"Refused", lines=lines, pieces=(body.encode(),), framing="length")


def _text(content: Any) -> str:  # noqa: ANN401 - the JSON of any API
    """Return the text of a message: a string, or parts of which some have text."""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or ())


# --- Chat Completions ------------------------------------------------------------------------------------------------


def _read_chat(body: Json) -> _Entries:
    for message in body["messages"]:
        match message["role"]:
            case "user":
                yield Said(_text(message["content"]))
            case "assistant":
                for call in message.get("tool_calls") or ():
                    yield Called(call["id"], call["function"]["name"], call["function"]["arguments"])
            case "tool":
                yield Answered(message["tool_call_id"], _text(message["content"]))
            case _:
                pass


def _write_chat(answer: TaskAnswer, _: str) -> Json:
    calls = [
        {
            "index": index,
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(answer.calls)
    ]
    return {"role": "assistant", "content": answer.text, **({"tool_calls": calls} if calls else {})}


# --- Messages --------------------------------------------------------------------------------------------------------


def _read_messages(body: Json) -> _Entries:
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for block in blocks:
            match block["type"], message["role"]:
                case "text", "user":
                    yield Said(block["text"])
                case "tool_use", _:
                    yield Called(block["id"], block["name"], json.dumps(block["input"]))
                case "tool_result", _:
                    yield Answered(block["tool_use_id"], _text(block.get("content")))
                case _:
                    pass


def _write_messages(answer: TaskAnswer, _: str) -> list[Json]:
    calls = [
        {"type": "tool_use", "id": call.call_id, "name": call.name, "input": json.loads(call.arguments)}
        for call in answer.calls
    ]
    return [{"type": "text", "text": answer.text}, *calls]


# --- Responses -------------------------------------------------------------------------------------------------------


def _read_responses(body: Json) -> _Entries:
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"), item.get("role"):
            case "message", "user":
                yield Said(_text(item["content"]))
            case "function_call", _:
                yield Called(item["call_id"], item["name"], item["arguments"])
            case "function_call_output", _:
                yield Answered(item["call_id"], _text(item["output"]))
            case _:
                pass


def _write_responses(answer: TaskAnswer, identity: str) -> list[Json]:
    content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
    ids = identity.removeprefix("resp_")
    message = {"id": f"msg_{ids}", "type": "message", "status": "completed", "role": "assistant", "content": content}
    calls = [
        {
            "id": f"fc_{ids}{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.call_id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for index, call in enumerate(answer.calls)
    ]
    return [message, *calls]


#: By the last name of the path.
_APIS: Mapping[bytes, _TaskApi] = {
    b"completions": _TaskApi("chat", "chatcmpl-", _read_chat, _write_chat),
    b"messages": _TaskApi("messages", "msg_", _read_messages, _write_messages),
    b"responses": _TaskApi("responses", "resp_", _read_responses, _write_responses),
}
