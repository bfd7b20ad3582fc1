"""A model provider that solves the agent's tasks, in four APIs: Chat Completions, Messages, Responses and Gemini.

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
from segue.testing.offered_tools import CODE_TOOL, OfferedTool, tool_of
from segue.testing.provider import Answer, ReceivedRequest, answer_with
from segue.testing.replies import Api, Json, ProviderReply, ReplyContext, make_reply
from segue.testing.response_events import called, said
from segue.upstreams.scripted_tasks import Answered, Called, PlannedCall, Said, TaskAnswer, next_answer

#: What it says to a conversation without the marker of a task.
NO_TASK = "There is no task in this conversation."

_CREATED_AT = 1_800_000_000
_Entries = Iterator[Said | Called | Answered]


class TaskApi(msgspec.Struct, frozen=True):
    """How one API writes a conversation, the tools that an agent offers, and the output of a model."""

    api: Api
    identity: str
    read: Callable[[Json], _Entries]
    tools: Callable[[Json], Iterator[OfferedTool]]
    write: Callable[[TaskAnswer, str], list[Json] | Json]

    def identity_of(self, number: int) -> str:
        """Return the id of the answer to the request with this number."""
        return f"{self.identity}{number:04}"

    def reply(self, answer: TaskAnswer, body: Json, number: int) -> ProviderReply:
        """Write the answer to the request with this number."""
        identity = self.identity_of(number)
        context = ReplyContext(request=body, identity=identity, created_at=_CREATED_AT, seed=identity)
        return make_reply(self.api, self.write(answer, identity), context)


def task_api(target: bytes) -> TaskApi | None:
    """Return the API that a request's target belongs to; None: it is none in which a model is asked."""
    return TASK_APIS.get(target.partition(b"?")[0].rpartition(b"/")[2].rpartition(b":")[2])


def solving_tasks(request: ReceivedRequest) -> Answer:
    """Answer a request with the scripted model: a script for `provided`."""
    return answer_task(request, lambda api, body: next_answer(list(api.read(body))) or TaskAnswer(NO_TASK))


def answer_task(request: ReceivedRequest, answer: Callable[[TaskApi, Json], TaskAnswer | None]) -> Answer:
    """Answer a request in its own API, with what `answer` makes of its body; None: what it goes on from is unknown."""
    api = task_api(request.target)
    if api is None or request.method != b"POST":
        return _refusal(404, "not_found", "There is nothing here.")
    try:
        body: Json = json.loads(request.body or b"")
    except ValueError:
        return _refusal(400, "invalid_json", "The body is no JSON.")
    if body.get("previous_response_id"):
        return _refusal(400, "previous_response_not_found", "This provider keeps no responses.")
    said = answer(api, body)
    if said is None:
        return _refusal(404, "not_found_error", "This is not known here: what came before.")
    streamed = bool(body.get("stream")) or b":stream" in request.target
    return answer_with(api.reply(said, body, request.number), streamed=streamed)


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


def _chat_tools(body: Json) -> Iterator[OfferedTool]:
    for tool in body.get("tools") or ():
        yield tool_of(tool["function"]["name"], tool["function"].get("parameters"))


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


def _messages_tools(body: Json) -> Iterator[OfferedTool]:
    for tool in body.get("tools") or ():
        yield tool_of(tool["name"], tool.get("input_schema"))


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
            case "custom_tool_call", _:
                yield Called(item["call_id"], item["name"], json.dumps({"input": item["input"]}))
            case (("function_call_output" | "custom_tool_call_output"), _):
                yield Answered(item["call_id"], _text(item["output"]))
            case _:
                pass


def _responses_tools(body: Json) -> Iterator[OfferedTool]:
    """Codex' newer models are given their tools in an item, sorted into namespaces."""
    added = [
        item["tools"] for item in body["input"] if isinstance(item, dict) and item.get("type") == "additional_tools"
    ]
    for offered in (body.get("tools") or (), *added):
        for entry in offered:
            for tool in entry["tools"] if entry.get("type") == "namespace" else (entry,):
                if tool.get("type") in {"function", "custom"}:
                    yield tool_of(tool["name"], tool.get("parameters"))


def _write_responses(answer: TaskAnswer, identity: str) -> list[Json]:
    content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
    ids = identity.removeprefix("resp_")
    message = {"id": f"msg_{ids}", "type": "message", "status": "completed", "role": "assistant", "content": content}
    calls = [_responses_call(call, f"{ids}{index}") for index, call in enumerate(answer.calls)]
    return [*([message] if answer.text else []), *calls]


def _responses_call(call: PlannedCall, ids: str) -> Json:
    shared = {"status": "completed", "call_id": call.call_id, "name": call.name}
    if call.name == CODE_TOOL:
        return {"id": f"ctc_{ids}", "type": "custom_tool_call", **shared, **json.loads(call.arguments)}
    return {"id": f"fc_{ids}", "type": "function_call", **shared, "arguments": call.arguments}


# --- Gemini ----------------------------------------------------------------------------------------------------------


def _read_gemini(body: Json) -> _Entries:
    """Ids are optional there, and clients leave them out; the answers come in the order of the calls."""
    called = answered = 0
    for content in body["contents"]:
        for part in content["parts"]:
            if "functionCall" in part:
                call, called = part["functionCall"], called + 1
                yield Called(str(called), call["name"], json.dumps(call.get("args") or {}))
            elif "functionResponse" in part:
                answered += 1
                yield Answered(str(answered), _gemini_text(part["functionResponse"].get("response") or {}))
            elif content.get("role") == "user" and "text" in part:
                yield Said(part["text"])


def _gemini_text(response: Json) -> str:
    return "\n".join(value if isinstance(value, str) else json.dumps(value) for value in response.values())


def _gemini_tools(body: Json) -> Iterator[OfferedTool]:
    for tool in body.get("tools") or ():
        for declared in tool.get("functionDeclarations") or ():
            schema = declared.get("parametersJsonSchema") or declared.get("parameters")
            yield tool_of(declared["name"], schema)


def _write_gemini(answer: TaskAnswer, _: str) -> list[Json]:
    calls = [{"functionCall": {"name": call.name, "args": json.loads(call.arguments)}} for call in answer.calls]
    return [{"text": answer.text}, *calls]


#: By the last name of the path; Gemini's paths end in a method.
TASK_APIS: Mapping[bytes, TaskApi] = {
    b"completions": TaskApi("chat", "chatcmpl-", _read_chat, _chat_tools, _write_chat),
    b"messages": TaskApi("messages", "msg_", _read_messages, _messages_tools, _write_messages),
    b"responses": TaskApi("responses", "resp_", _read_responses, _responses_tools, _write_responses),
    b"generateContent": TaskApi("gemini", "gen-", _read_gemini, _gemini_tools, _write_gemini),
    b"streamGenerateContent": TaskApi("gemini", "gen-", _read_gemini, _gemini_tools, _write_gemini),
}
