"""Requests of the Messages API: what of them the executor gets, what passes through, and what is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.messages.door_request import RequestReading, read_request
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits
from segue.protocol.requests import Create, Settings, ThreadContext, json_text

Json = dict[str, Any]

BODY: Json = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}


def read(
    *,
    speaks: bool = False,
    counting: bool = False,
    held: ThreadContext | None = None,
    **fields: Any,  # noqa: ANN401 - any JSON values
) -> Create | Problem:
    data = json.dumps({**BODY, **fields}).encode()
    return read_request(data, RequestReading(lambda model: speaks and model == "m", DEFAULT_LIMITS, counting, held))


def accepted(**fields: Any) -> Create:  # noqa: ANN401 - any JSON values
    create = read(**fields)
    assert isinstance(create, Create), create
    return create


def settings_of(**fields: Any) -> Settings:  # noqa: ANN401 - any JSON values
    return accepted(**fields).settings


def refused(**fields: Any) -> tuple[str, str | None]:  # noqa: ANN401 - any JSON values
    problem = read(**fields)
    assert isinstance(problem, Problem)
    return problem.code, problem.param


# --- to another API --------------------------------------------------------------------------------------------------


def test_a_request_needs_a_model_messages_and_a_limit() -> None:
    create = accepted()
    item = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}'
    assert create.input.items == (item,)
    assert (create.store, create.stream, create.kept, create.native) == (False, False, False, None)
    assert create.settings == Settings(model="m", max_output_tokens=9)
    assert accepted(stream=True).stream


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ({"system": "S"}, {"instructions": json_text("S")}),
        (
            {"system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]},
            {"instructions": json_text("S")},
        ),
        (
            {"tools": [TOOL, {"name": "g", "type": "custom", "strict": True}]},
            {
                "tools": [
                    {
                        "type": "function",
                        "name": "f",
                        "parameters": {"type": "object"},
                        "strict": False,
                        "description": "d",
                    },
                    {
                        "type": "function",
                        "name": "g",
                        "parameters": {"type": "object", "properties": {}},
                        "strict": True,
                    },
                ]
            },
        ),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
            {"tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": False},
        ),
        ({"temperature": 0.5, "top_p": 0.1}, {"temperature": 0.5, "top_p": 0.1}),
        ({"stop_sequences": ["x"]}, {"extra": {"stop": Raw(b'["x"]')}}),
        ({"metadata": {"user_id": "u"}}, {"safety_identifier": "u"}),
        ({"metadata": {"user_id": "u" * 65}}, {"safety_identifier": hashlib.sha256(b"u" * 65).hexdigest()}),
        ({"metadata": {}}, {}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning": {"effort": "low", "summary": "auto"}}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 9000, "display": "omitted"}},
            {"reasoning": {"effort": "medium"}},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 20000}},
            {"reasoning": {"effort": "high", "summary": "auto"}},
        ),
        ({"thinking": {"type": "adaptive"}}, {"reasoning": {"effort": "high", "summary": "auto"}}),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            {"reasoning": {"effort": "xhigh", "summary": "auto"}},
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "text": {
                    "format": {"type": "json_schema", "name": "output", "schema": {"type": "object"}, "strict": True}
                }
            },
        ),
        ({"output_config": {"format": {"type": "json_schema"}}}, {}),
        ({"context_management": {"edits": []}, "x": 1, "top_k": 4}, {}),
        ({"mcp_servers": []}, {}),
    ],
)
def test_each_field_has_a_counterpart_or_does_not_change_the_answer(fields: Json, settings: Json) -> None:
    plain = Settings(model="m", max_output_tokens=9)
    read_settings = settings_of(**fields)
    for name in Settings.__struct_fields__:
        wanted = settings.get(name, plain.__getattribute__(name))
        assert read_settings.__getattribute__(name) == wanted, name


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"model": None}, ("missing_required_parameter", "model")),
        ({"messages": None}, ("missing_required_parameter", "messages")),
        ({"messages": []}, ("missing_required_parameter", "messages[0]")),
        ({"messages": "hi"}, ("invalid_type", "messages")),
        ({"max_tokens": None}, ("missing_required_parameter", "max_tokens")),
        ({"max_tokens": 0}, ("invalid_value", "max_tokens")),
        ({"temperature": 2}, ("invalid_value", "temperature")),
        ({"system": 1}, ("invalid_type", "system")),
        ({"tools": [{"type": "custom"}]}, ("missing_required_parameter", "tools[0].name")),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, ("unsupported_parameter", "tools[0]")),
        ({"mcp_servers": [{"url": "u"}]}, ("unsupported_parameter", "mcp_servers")),
        ({"container": "c"}, ("unsupported_parameter", "container")),
    ],
)
def test_what_would_be_answered_wrongly_is_refused(fields: Json, refusal: tuple[str, str]) -> None:
    assert refused(**fields) == refusal


def test_only_the_number_of_tokens_needs_no_limit() -> None:
    assert accepted(counting=True, max_tokens=None).settings.max_output_tokens is None


def test_half_a_character_is_replaced() -> None:
    data = json.dumps(BODY).replace("hi", "\\ud800").encode()
    create = read_request(data, RequestReading(lambda _: False, DEFAULT_LIMITS))
    assert isinstance(create, Create)
    assert "\ufffd".encode() in create.input.items[0]


def test_a_body_is_bounded_before_it_is_read() -> None:
    problem = read_request(json.dumps([0] * 9).encode(), RequestReading(lambda _: False, RequestLimits(values=3)))
    assert isinstance(problem, Problem)
    assert problem.code == "message_too_large"
    assert isinstance(read_request(b"[", RequestReading(lambda _: True, DEFAULT_LIMITS)), Problem)


# --- through to the same API -----------------------------------------------------------------------------------------


def test_a_request_for_an_upstream_of_the_same_api_is_not_translated() -> None:
    """What the gateway does not know of it is the upstream's business."""
    fields: Json = {"tools": [{"type": "web_search_20250305"}], "x": [1], "stream": True, "system": 1}
    create = accepted(speaks=True, **fields)
    assert create.native is not None
    assert create.native.dialect == "messages"
    assert create.native.body.text == json.dumps({**BODY, **fields}).encode()
    assert (create.input.items, create.stream, create.settings.max_output_tokens) == ((), True, 9)
    assert accepted(speaks=True, model="n").native is None


def test_conversations_are_told_apart_by_what_comes_before_the_models_first_message() -> None:
    def opening(*messages: Json, system: str = "S") -> tuple[bytes, bool]:
        native = accepted(speaks=True, messages=messages, system=system).native
        assert native is not None
        return native.opening, native.replayed

    hi, ho = ({"role": "user", "content": word} for word in ("hi", "ho"))
    said = {"role": "assistant", "content": "x"}
    first, replayed = opening(hi)
    assert not replayed
    assert opening(hi, said, ho) == (first, True)
    assert opening(ho, said, hi)[0] != first
    assert opening(hi, system="T")[0] != first


@pytest.mark.parametrize("thread", [None, {"type": "create"}])
def test_thoughts_of_another_provider_do_not_pass(thread: object) -> None:
    """Anthropic refuses a signature that is not its own."""
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "segue:1:chat:{}"}
    messages = [*BODY["messages"], {"role": "assistant", "content": [thought, {"type": "text", "text": "x"}]}]
    native = accepted(speaks=True, messages=messages, thread=thread).native
    assert native is not None
    left = json.loads(native.fields["messages"])
    assert [block["type"] for block in left[1]["content"]] == ["text"]
    if thread is not None:
        assert json.loads(b"[%b]" % native.messages) == left


@pytest.mark.parametrize("fields", [{"messages": "hi"}, {"messages": None}, {"max_tokens": None}, {"model": 1}])
def test_what_the_gateway_reads_of_it_must_be_sound(fields: Json) -> None:
    assert isinstance(read(speaks=True, **fields), Problem)


def test_a_field_that_stands_there_twice_is_refused() -> None:
    data = b'{"max_tokens":1,"messages":[],"model":"x","model":"m"}'
    assert isinstance(read_request(data, RequestReading(lambda _: True, DEFAULT_LIMITS)), Problem)


# --- threads ---------------------------------------------------------------------------------------------------------

CREATE: Json = {"type": "create"}
CONTINUE: Json = {"type": "continue", "previous_message_id": "msg_1"}


def test_a_thread_keeps_its_system_and_tools_as_they_were_written() -> None:
    create = accepted(thread=CREATE, system="S", tools=[TOOL])
    assert create.thread == ThreadContext(Raw(b'"S"'), Raw(json.dumps([TOOL]).encode()))
    assert (create.settings.instructions_text, len(create.input.items), create.native) == ("S", 1, None)
    assert accepted(thread=CREATE).thread == ThreadContext()
    assert accepted(thread=None).thread is None


def test_a_request_that_goes_on_has_what_its_thread_keeps() -> None:
    """It need not say it again, nor anything else that is new."""
    held = ThreadContext(Raw(b'"S"'), Raw(json.dumps([TOOL]).encode()))
    create = accepted(thread=CONTINUE, held=held, messages=[])
    assert create.thread == held
    assert create.settings.instructions_text == "S"
    assert [tool["name"] for tool in create.settings.tools] == ["f"]
    assert create.input.items == ()
    assert refused(thread=CONTINUE, held=held, system="T") == ("thread_fingerprint_mismatch", "thread")
    assert refused(thread=CONTINUE) == ("thread_not_found", "thread.previous_message_id")


def test_a_thread_passes_through_and_is_read_as_well() -> None:
    """What has no counterpart is kept as text: the thread may go on at another upstream."""
    upload = {"type": "container_upload", "file_id": "f"}
    search = {"type": "web_search_20250305", "name": "web_search"}
    fields: Json = {"messages": [{"role": "user", "content": [upload]}], "tools": [TOOL, search], "container": "c"}
    create = accepted(thread=CREATE, speaks=True, **fields)
    assert create.native is not None
    assert create.native.messages == json.dumps(fields["messages"][0]).encode()
    assert create.native.fields == {}
    assert json.loads(create.input.items[0])["content"] == [{"type": "input_text", "text": json.dumps(upload)}]
    assert [tool["name"] for tool in create.settings.tools] == ["f"]
    held = create.thread
    on = accepted(thread=CONTINUE, speaks=True, held=held, messages=[])
    assert on.native is not None
    assert on.native.fields == {"tools": json.dumps(fields["tools"]).encode()}
    assert on.native.messages == b""


@pytest.mark.parametrize("fields", [{"messages": [{"role": "x"}]}, {"tools": 1}, {"system": 1}, {"max_tokens": None}])
@pytest.mark.parametrize("speaks", [True, False])
def test_what_is_unsound_in_a_thread_is_refused(fields: Json, speaks: bool) -> None:
    assert isinstance(read(thread=CREATE, speaks=speaks, **fields), Problem)


def test_a_field_that_stands_twice_in_a_thread_is_refused() -> None:
    data = json.dumps({**BODY, "thread": CREATE}).encode()
    data = b'{"messages":[],' + data[1:]
    assert isinstance(read_request(data, RequestReading(lambda _: True, DEFAULT_LIMITS)), Problem)


@pytest.mark.parametrize("speaks", [True, False])
@pytest.mark.parametrize("thread", [{"type": "x"}, {}, 1, [], "", {**CREATE, "ttl": 9}, {"type": "continue"}])
def test_an_unknown_thread_is_refused_as_its_clients_understand_it(thread: object, speaks: bool) -> None:
    assert refused(thread=thread, speaks=speaks) == ("thread_unsupported_request", "thread")
