"""The provider for real agents: it solves a task with an agent's own tools, and counts what comes twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from segue.agent.tasks import check_task, make_task, task_prompt
from segue.testing.agent_provider import NO_TOOLS, AgentTaskProvider
from segue.testing.provider import ReceivedRequest, SocketMessage
from segue.testing.task_provider import NO_TASK

TASK = "mend-a-failing-build"
Json = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
RESPONSES_SHELL = [{"type": "function", "name": "bash", "parameters": SCHEMA}, {"type": "web_search"}]
GEMINI_SHELL = [{"functionDeclarations": [{"name": "run_shell_command", "parametersJsonSchema": SCHEMA}]}]


def shell(workspace: Path, command: str) -> str:
    ran = subprocess.run(("/bin/sh", "-c", command), cwd=workspace, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr


def ask(model: AgentTaskProvider, path: str, body: Json, *, status: int = 200) -> Json:
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    raw = json.dumps(body).encode()
    answer = model.answer(ReceivedRequest(number=1, connection=0, raw_head=head, raw_body=raw, body=raw))
    assert answer.status == status
    read: Json = json.loads(b"".join(answer.pieces))
    return read


def test_gemini_solves_a_task_without_ids_of_calls(tmp_path: Path) -> None:
    make_task(TASK, tmp_path)
    model = AgentTaskProvider()
    contents: list[Json] = [
        {"role": "user", "parts": [{"text": "This is the folder /work."}]},
        {"role": "user", "parts": [{"text": task_prompt(TASK)}]},
    ]
    for _ in range(12):
        path = "/v1beta/models/gemini-2.5-pro:generateContent"
        content = ask(model, path, {"contents": contents, "tools": GEMINI_SHELL})["candidates"][0]["content"]
        contents.append(content)
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        told = [
            {"name": call["name"], "response": {"output": shell(tmp_path, call["args"]["command"])}} for call in calls
        ]
        contents.append({"role": "user", "parts": [{"functionResponse": one} for one in told]})
    assert contents[-2]["parts"][0]["text"].startswith("The build succeeds: 5 pages.")
    assert check_task(tmp_path).passed
    assert (model.requests, model.repeated) == (12, 0)


def create(model: AgentTaskProvider, body: Json | bytes, socket: int = 0) -> Json:
    """Send a message; return the last event of the answer."""
    data = body if isinstance(body, bytes) else json.dumps({"type": "response.create", **body}).encode()
    message = SocketMessage(number=model.requests, request=socket, data=data, text=True)
    last: Json = json.loads(model.answer_message(message).messages[-1])
    return last


def test_a_websocket_has_a_conversation_of_its_own() -> None:
    model = AgentTaskProvider()
    warm = create(model, {"input": "Be brief.", "tools": RESPONSES_SHELL, "generate": False})["response"]
    assert warm["output"] == []
    said = [{"role": "user", "content": [{"type": "input_text", "text": task_prompt(TASK)}]}]
    first = create(model, {"input": said, "tools": RESPONSES_SHELL, "previous_response_id": warm["id"]})["response"]
    message, ran, listed = first["output"]
    assert message["content"][0]["text"].startswith("I run the build")
    assert (ran["name"], json.loads(ran["arguments"])) == (
        "bash",
        {"command": 'python3 build.py; echo "exit status $?"'},
    )
    told = [{"type": "function_call_output", "call_id": call["call_id"], "output": "nothing"} for call in (ran, listed)]
    again = {"input": told, "tools": RESPONSES_SHELL, "previous_response_id": first["id"]}
    assert create(model, again)["response"]["output"][0]["content"][0]["text"].startswith("I stop here")
    refused = create(model, again, socket=1)
    assert refused["error"]["code"] == "previous_response_not_found"
    assert create(model, b"{")["error"]["code"] == "invalid_json"
    assert model.requests == 3


def test_a_model_that_writes_code_calls_the_shell_by_it() -> None:
    """The newer models of Codex have one tool, which is sorted into a namespace of an item of the input."""
    model = AgentTaskProvider()
    added = {
        "type": "additional_tools",
        "tools": [{"type": "namespace", "tools": [{"type": "custom", "name": "exec"}]}],
    }
    said = {"type": "message", "role": "user", "content": task_prompt(TASK)}
    first = create(model, {"input": [added, said]})["response"]
    _, ran, listed = first["output"]
    assert (ran["type"], ran["name"]) == ("custom_tool_call", "exec")
    assert ran["input"].startswith(
        """const ran = await tools.exec_command({"cmd": "python3 build.py; echo \\"exit status $?\\""}); text("""
    )
    told = [
        {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": [{"type": "input_text", "text": "x"}]}
        for call in (ran, listed)
    ]
    second = create(model, {"input": told, "previous_response_id": first["id"]})["response"]
    assert second["output"][0]["content"][0]["text"].startswith("I stop here")


def test_a_thread_of_messages_goes_on_from_what_was_said() -> None:
    """Claude Code sends only what is new where the provider keeps the thread."""
    model = AgentTaskProvider()
    tools = [{"name": "Bash", "input_schema": SCHEMA}]
    said = [{"role": "user", "content": task_prompt(TASK)}]
    first = ask(model, "/v1/messages", {"messages": said, "tools": tools, "thread": {"type": "create"}})
    told = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "nothing"}
        for block in first["content"]
        if block["type"] == "tool_use"
    ]
    news = {"messages": [{"role": "user", "content": told}], "tools": tools}
    goes_on = {"type": "continue", "previous_message_id": first["id"]}
    second = ask(model, "/v1/messages", {**news, "thread": goes_on})
    assert second["content"][0]["text"].startswith("I stop here, and the task is not done. I expected exit status 1")
    ask(model, "/v1/messages", {**news, "thread": {**goes_on, "previous_message_id": "msg_9"}}, status=404)


def test_equal_requests_are_counted() -> None:
    model = AgentTaskProvider()
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "Bash", "input_schema": SCHEMA}]}
    for _ in range(2):
        assert ask(model, "/v1/messages", body)["content"][0]["text"] == NO_TASK
    ask(model, "/v1/messages", {**body, "max_tokens": 5})
    assert (model.requests, model.repeated) == (3, 1)


@pytest.mark.parametrize("tools", [[], [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}]])
def test_a_request_without_tools_is_not_given_the_task(tools: list[Json]) -> None:
    """Such as one for a title of the conversation."""
    body = {"messages": [{"role": "user", "content": task_prompt(TASK)}], "tools": tools}
    message = ask(AgentTaskProvider(), "/v1/chat/completions", body)["choices"][0]["message"]
    assert (message["content"] == NO_TOOLS) == (not tools)


def test_what_asks_no_model_is_not_counted() -> None:
    model = AgentTaskProvider()
    for head in (b"HEAD / HTTP/1.1\r\n\r\n", b"POST /v1/messages/count_tokens HTTP/1.1\r\n\r\n"):
        request = ReceivedRequest(number=0, connection=0, raw_head=head, raw_body=b"", body=b"{}")
        assert model.answer(request).status == 404
    upgrade = b"GET /v1/responses HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
    request = ReceivedRequest(number=0, connection=0, raw_head=upgrade, raw_body=b"", body=None)
    assert model.answer(request).status == 101
    assert model.requests == 0
