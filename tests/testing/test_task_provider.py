"""The provider that solves tasks: each API's conversation is read, and each API's answer is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.agent.tasks import check_task, make_task, task_prompt
from segue.testing.provider import Answer, ReceivedRequest
from segue.testing.task_provider import NO_TASK, solving_tasks, task_model
from tests.agent_tools import use_tool

TASK = "mend-a-failing-build"
Json = dict[str, Any]


def ask(path: str, body: Json | bytes, method: str = "POST") -> Answer:
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return solving_tasks(ReceivedRequest(number=3, connection=0, raw_head=head, raw_body=raw, body=raw))


def reply(path: str, body: Json) -> Json:
    answer = ask(path, {"model": "m", **body})
    assert answer.status == 200
    read: Json = json.loads(b"".join(answer.pieces))
    return read


def use_chat(messages: list[Json], workspace: Path) -> str | None:
    """Make one turn; return the last text, or None if the task goes on."""
    message = reply("/v1/chat/completions", {"messages": messages})["choices"][0]["message"]
    messages.append(message)
    for call in message.get("tool_calls", []):
        told = use_tool(workspace, call["function"]["name"], call["function"]["arguments"])
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": told})
    return None if "tool_calls" in message else message["content"]


def use_messages(messages: list[Json], workspace: Path) -> str | None:
    content = reply("/v1/messages", {"messages": messages})["content"]
    messages.append({"role": "assistant", "content": content})
    calls = [block for block in content if block["type"] == "tool_use"]
    results = [
        {
            "type": "tool_result",
            "tool_use_id": call["id"],
            "content": [{"type": "text", "text": use_tool(workspace, call["name"], json.dumps(call["input"]))}],
        }
        for call in calls
    ]
    messages.append({"role": "user", "content": results})
    return None if calls else content[0]["text"]


def use_responses(items: list[Json], workspace: Path) -> str | None:
    output = reply("/v1/responses", {"input": items})["output"]
    items += output
    calls = [item for item in output if item["type"] == "function_call"]
    for call in calls:
        told = use_tool(workspace, call["name"], call["arguments"])
        items.append({"type": "function_call_output", "call_id": call["call_id"], "output": told})
    return None if calls else output[0]["content"][0]["text"]


@pytest.mark.parametrize("use", [use_chat, use_messages, use_responses])
def test_it_solves_a_task_in_every_api(use: Callable[[list[Json], Path], str | None], tmp_path: Path) -> None:
    make_task(TASK, tmp_path)
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": task_prompt(TASK)}]
    texts = [use(conversation, tmp_path) for _ in range(12)]
    assert texts[:-1] == [None] * 11
    assert (texts[-1] or "").startswith("The build succeeds: 5 pages.")
    assert check_task(tmp_path).passed


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages?beta=true", "/v1/responses"])
def test_an_answer_comes_streamed_where_that_is_asked_for(path: str) -> None:
    parts = [{"type": "text", "text": task_prompt(TASK)}]
    body = {"messages": [{"role": "user", "content": parts}], "input": [{"role": "user", "content": parts}]}
    answer = ask(path, {"model": "m", "stream": True, **body})
    assert answer.lines[0].value.startswith(b"text/event-stream")
    assert len(answer.pieces) > 20
    assert b"call_task_mend_a_failing_build_01_2" in b"".join(answer.pieces)


def test_a_conversation_without_a_task_is_answered_too() -> None:
    assert reply("/v1/responses", {"input": "hi"})["output"][0]["content"][0]["text"] == NO_TASK
    assert reply("/v1/messages", {"messages": [{"role": "user", "content": "hi"}]})["content"][0]["text"] == NO_TASK


def test_a_responses_server_has_the_same_model() -> None:
    history = [{"role": "user", "content": task_prompt(TASK)}]
    message, run, listed = task_model(history)
    assert message["content"][0]["text"].startswith("I run the build to see its first error")
    assert [(call["name"], call["call_id"][-4:]) for call in (run, listed)] == [("run", "01_1"), ("list", "01_2")]
    assert [item["content"][0]["text"] for item in task_model([])] == [NO_TASK]


@pytest.mark.parametrize(
    ("path", "body", "method", "status", "code"),
    [
        ("/v1/models", b"", "GET", 404, "not_found"),
        ("/v1/messages/count_tokens", b"{}", "POST", 404, "not_found"),
        ("/v1/responses", b"{", "POST", 400, "invalid_json"),
        ("/v1/responses", {"previous_response_id": "resp_1"}, "POST", 400, "previous_response_not_found"),
    ],
)
def test_what_it_cannot_answer_is_refused(path: str, body: Json | bytes, method: str, status: int, code: str) -> None:
    answer = ask(path, body, method)
    assert (answer.status, json.loads(answer.pieces[0])["error"]["code"]) == (status, code)
