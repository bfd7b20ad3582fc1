"""The request: what is accepted and how it is read, and what is refused and how that is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from segue.protocol.codec import MAX_DEPTH, encode
from segue.protocol.events import error_event
from segue.protocol.items import Input, join, user_message
from segue.protocol.problems import Problem, invalid_json, invalid_stream_id, missing, unknown_type, unsupported
from segue.protocol.requests import (
    ClientMessage,
    Create,
    Resume,
    Settings,
    Steer,
    Stop,
    json_text,
    parse_create,
    parse_message,
)
from segue.protocol.responses import encode_echo
from tests.strategies import FIELDS, bodies, examples, hostile_bytes, hostile_texts, pretty

HI = Input((user_message("hi"),))


def body(**fields: object) -> str:
    return json.dumps({"model": "m", "input": "hi", **fields})


def message(**fields: object) -> str:
    return json.dumps({"type": "response.create", "model": "m", "input": "hi", **fields})


def read(**fields: object) -> Create | Problem:
    return parse_create(body(**fields), "http")


def accepted(**fields: object) -> Create:
    create = read(**fields)
    assert isinstance(create, Create), create
    return create


# --------------------------------------------------------------------------------------------------- what is accepted


def test_a_request_needs_a_model_and_an_input() -> None:
    """Everything else has a default."""
    assert read() == Create(settings=Settings(model="m"), input=HI, size_bytes=len(body()))


def test_every_field_is_read() -> None:
    """What the client sent is what the turn is run with."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "x": [1]}
    plain: dict[str, Any] = {
        "instructions": "Be brief.",
        "tools": [tool, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low", "x": 1},
        "reasoning": {"effort": "low", "summary": None, "x": 1},
        "metadata": {"k": "v"},
        "parallel_tool_calls": False,
        "max_output_tokens": 5,
        "max_tool_calls": 6,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_logprobs": 3,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "truncation": "auto",
        "service_tier": "flex",
        "safety_identifier": "s",
        "prompt_cache_key": "p",
    }
    sent = body(include=["a"], store=False, stream=True, generate=False, previous_response_id="resp_1", **plain)
    assert parse_create(sent, "http") == Create(
        settings=Settings(model="m", include=("a",), **{**plain, "instructions": json_text("Be brief.")}),
        input=HI,
        previous_response_id="resp_1",
        store=False,
        stream=True,
        generate=False,
        size_bytes=len(sent),
    )


@pytest.mark.parametrize("name", [*FIELDS, "stream_id", "conversation", "prompt"])
def test_null_means_absent(name: str) -> None:
    """For every optional field."""
    assert read(**{name: None}) == Create(settings=Settings(model="m"), input=HI, size_bytes=len(body(**{name: None})))


@pytest.mark.parametrize(
    "fields",
    [
        {"client_metadata": {"x": 1}},
        {"user": 7, "prompt_cache_retention": "24h"},
        {"": []},
        {"stream_options": {"x": 1, "include_obfuscation": False}},
        {"prompt_cache_options": {"mode": "implicit"}, "user": "u"},
    ],
)
def test_fields_that_are_not_ours_are_kept_as_they_came(fields: dict[str, object]) -> None:
    """Real clients send their own, whatever they hold; they are the upstream's business."""
    settings = accepted(**fields).settings
    assert {name: json.loads(bytes(raw)) for name, raw in settings.extra.items()} == fields
    assert settings == Settings(model="m", extra=settings.extra)


def test_fields_that_are_not_ours_keep_their_bytes() -> None:
    """Numbers that no float holds, and keys in their order; `null` means absent, as everywhere."""
    create = parse_create(
        '{"model":"m","seed": 12345678901234567890.10, "input":"hi","x":{"b": 1e2,"a":[]},"y":null}', "http"
    )
    assert isinstance(create, Create)
    assert {name: bytes(raw) for name, raw in create.settings.extra.items()} == {
        "seed": b"12345678901234567890.10",
        "x": b'{"b": 1e2,"a":[]}',
    }


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"[" * 99 + b"]" * 99, invalid_json("it is nested too deeply")),
        (b'"\xff"', invalid_json("it holds text that is not valid Unicode")),
    ],
)
def test_fields_that_are_not_ours_are_sound_json(raw: bytes, problem: Problem) -> None:
    """They go on to others as they are."""
    assert parse_create(b'{"model":"m","input":"hi","x":%b}' % raw, "http") == problem


@pytest.mark.parametrize(
    ("field", "param"),
    [('"x":{"a":1e999}', "x[...]"), ('"metadata":{},"tools":[{"type":"x","a":1e999}]', "tools[0][...]")],
)
def test_a_value_that_nobody_can_read_is_named_by_its_path(field: str, param: str) -> None:
    """In a field that is not ours, and in the part of one of ours that we do not act on."""
    body = f'{{"model":"m","input":"hi",{field}}}'
    assert parse_create(body, "http") == invalid(param, "Number out of range")


def test_what_the_gateway_acts_on_itself_is_not_passed_on() -> None:
    """Neither the head of a message nor what is asked of this product."""
    own = {"background": True, "segue": {"resume": True}, "prompt_cache_options": {"prewarm": True}, "stream": True}
    assert accepted(**own, type="response.create", store=True, generate=True).settings == Settings(model="m")


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [], "previous_response_id": "resp_1"},
        {"input": None, "previous_response_id": "resp_1"},
        {"input": [], "generate": False},
        {"input": None, "generate": False},
    ],
)
def test_a_continuation_and_a_warm_up_need_no_items(fields: dict[str, object]) -> None:
    """Both have something to stand on, or nothing to answer."""
    assert accepted(**fields).input == Input()


@pytest.mark.parametrize("kind", ["web_search", "", "tool_of_next_year"])
def test_a_tool_of_a_kind_we_do_not_know_is_the_upstreams_business(kind: str) -> None:
    """It need not even have a name."""
    assert accepted(tools=[{"type": kind}]).settings.tools == [{"type": kind}]


CUT = [
    {"role": "user", "content": [{"type": "input_text", "text": "a\ud83d"}]},
    {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"a":"\ud83d'},
    {"type": "function_call_output", "call_id": "c", "output": "b\ud83d"},
    {"type": "weather_call_2", "\ude00": ["\ude00"]},
]


def test_half_a_character_of_a_client_is_replaced_wherever_it_stands() -> None:
    """Agents cut the output of a tool after so many units of UTF-16, and send it in every turn from then on."""
    body = {"model": "m", "input": CUT, "instructions": "c\ud83d", "x\ud83d": {"y": "\ud83d\U0001f600"}}
    for create in (
        parse_create(json.dumps(body).encode(), "http"),
        parse_message(json.dumps({**body, "type": "response.create"})).request,
    ):
        assert isinstance(create, Create)
        assert [json.loads(item) for item in create.input.items] == json.loads(
            json.dumps(CUT).replace("\\ud83d", "\\ufffd").replace("\\ude00", "\\ufffd")
        )
        assert create.settings.instructions_text == "c\ufffd"
        assert json.loads(bytes(create.settings.extra["x\ufffd"])) == {"y": "\ufffd\U0001f600"}


def test_a_body_that_is_also_wrong_otherwise_is_refused_for_that() -> None:
    assert parse_create(b'{"model":"m","input":["\\ud83d"]}', "http") == Problem(
        "invalid_type", "Invalid type for 'input[0]': expected an object, but got a string instead.", "input[0]"
    )
    cut = parse_create(b'{"model":"m","input":"\\ud83d', "http")
    assert isinstance(cut, Problem)
    assert cut.code == "invalid_json"


def test_a_message_is_a_body_with_a_type() -> None:
    """WebSocket mode adds nothing else."""
    sent = message()
    assert parse_message(sent) == ClientMessage(Create(settings=Settings(model="m"), input=HI, size_bytes=len(sent)))


def test_the_size_of_a_request_is_counted_in_bytes() -> None:
    """Text from a socket is counted as what it was on the wire."""
    sent = '{"model":"m","input":"é∑😀"}'
    create = parse_create(sent, "http")
    assert isinstance(create, Create)
    assert create.size_bytes == len(sent.encode())
    assert parse_create(sent.encode(), "http") == create


@settings(max_examples=examples(300))
@given(bodies, st.sampled_from([json.dumps, pretty]))
def test_every_valid_request_is_accepted_as_it_is(fields: dict[str, Any], write: Callable[[object], str]) -> None:
    """In text and in bytes, however it is laid out."""
    create = parse_create(write(fields), "http")
    assert isinstance(create, Create), create
    given_ = {name: fields[name] for name in Settings.__struct_fields__ if fields.get(name) is not None}
    options = {name: fields.get(name) for name in ("stream_options", "prompt_cache_options")}
    kept = {
        name: {k: v for k, v in (value or {}).items() if k != "prewarm" and v is not None}
        for name, value in options.items()
    }
    extra = {name: Raw(encode(value)) for name, value in kept.items() if value}
    if "instructions" in given_:
        assert create.settings.instructions_text == given_["instructions"]
        given_["instructions"] = Raw(write(given_["instructions"]).encode())
    assert create.settings == Settings(**{**given_, "include": tuple(fields.get("include") or ())}, extra=extra)
    items = fields["input"]
    expected = join([user_message(items)]) if isinstance(items, str) else json.dumps(items)
    assert json.loads(join(create.input.items)) == json.loads(expected)
    assert parse_create(write(fields).encode(), "http") == create


# ---------------------------------------------------------------------------------------------------- what is refused


SAMPLES: dict[str, object] = {
    "null": None,
    "a boolean": True,
    "an integer": 7,
    "a number": 7.5,
    "a string": "x",
    "an array": [],
    "an object": {},
}
KINDS = {
    "model": ("a string",),
    "input": ("a string", "an array"),
    "previous_response_id": ("a string",),
    "store": ("a boolean",),
    "stream": ("a boolean",),
    "stream_options": ("an object",),
    "background": ("a boolean",),
    "generate": ("a boolean",),
    "instructions": ("a string",),
    "tools": ("an array",),
    "tool_choice": ("a string", "an object"),
    "text": ("an object",),
    "reasoning": ("an object",),
    "metadata": ("an object",),
    "include": ("an array",),
    "parallel_tool_calls": ("a boolean",),
    "max_output_tokens": ("an integer",),
    "max_tool_calls": ("an integer",),
    "temperature": ("a number", "an integer"),
    "top_p": ("a number", "an integer"),
    "top_logprobs": ("an integer",),
    "presence_penalty": ("a number", "an integer"),
    "frequency_penalty": ("a number", "an integer"),
    "truncation": ("a string",),
    "service_tier": ("a string",),
    "safety_identifier": ("a string",),
    "prompt_cache_key": ("a string",),
}


def test_the_table_of_kinds_has_every_field() -> None:
    """A field that is added is tested too."""
    assert set(KINDS) == {"model", "input", *FIELDS}


@settings(max_examples=examples(300))
@given(st.data())
def test_a_field_of_the_wrong_type_is_named(data: st.DataObject) -> None:
    """Whatever else the request holds."""
    fields = data.draw(bodies)
    name = data.draw(st.sampled_from(sorted(KINDS)))
    got = data.draw(st.sampled_from(sorted(set(SAMPLES) - {*KINDS[name], "null"})))
    problem = parse_create(json.dumps({**fields, name: SAMPLES[got]}), "http")
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == ("invalid_type", name)
    assert problem.message.endswith(f"but got {got} instead.")


def wrong_type(param: str, rest: str) -> Problem:
    return Problem("invalid_type", f"Invalid type for '{param}': expected {rest} instead.", param)


def invalid(param: str, rest: str) -> Problem:
    return Problem("invalid_value", f"Invalid value for '{param}': {rest}.", param)


FUNCTION = {"type": "function", "name": "f"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": None}, missing("model")),
        ({"model": ""}, missing("model")),
        ({"input": None}, missing("input")),
        ({"input": []}, missing("input")),
        ({"input": [7]}, wrong_type("input[0]", "an object, but got an integer")),
        ({"tools": [7]}, wrong_type("tools[0]", "an object, but got an integer")),
        ({"tools": [FUNCTION, {"name": "f"}]}, missing("tools[1].type")),
        ({"tools": [FUNCTION, {"type": "function"}]}, missing("tools[1].name")),
        ({"tools": [{"type": "function", "name": ""}]}, missing("tools[0].name")),
        ({"tools": [{"type": "custom"}]}, missing("tools[0].name")),
        (
            {"tools": [{**FUNCTION, "parameters": 7}]},
            wrong_type("tools[0].parameters", "an object or null, but got an integer"),
        ),
        (
            {"tools": [{**FUNCTION, "strict": "yes"}]},
            wrong_type("tools[0].strict", "a boolean or null, but got a string"),
        ),
        ({"tool_choice": "sometimes"}, invalid("tool_choice", "Invalid enum value 'sometimes'")),
        ({"tool_choice": {"name": "f"}}, missing("tool_choice.type")),
        ({"tool_choice": {"type": "function"}}, missing("tool_choice.name")),
        ({"tool_choice": {"type": "custom", "name": ""}}, missing("tool_choice.name")),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, missing("tool_choice.name")),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, missing("tool_choice.tools")),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "tools": [{"type": "mcp"}, {"type": "function", "function": {}}],
                }
            },
            missing("tool_choice.tools[1].name"),
        ),
        ({"text": {"verbosity": "loud"}}, invalid("text.verbosity", "Invalid enum value 'loud'")),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, missing("text.format.name")),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, missing("text.format.schema")),
        ({"text": {"format": {"type": 7}}}, wrong_type("text.format.type", "a string, but got an integer")),
        ({"reasoning": {"effort": 7}}, wrong_type("reasoning.effort", "a string or null, but got an integer")),
        ({"metadata": {"k": 7}}, wrong_type("metadata[...]", "a string, but got an integer")),
        ({"metadata": {"k": "v" * 513}}, invalid("metadata[...]", "Expected `str` of length <= 512")),
        ({"metadata": {"k" * 65: "v"}}, invalid("metadata", "Expected `str` of length <= 64")),
        ({"metadata": {str(n): "" for n in range(17)}}, invalid("metadata", "Expected `object` of length <= 16")),
        ({"include": ["a", 7]}, wrong_type("include[1]", "a string, but got an integer")),
        ({"max_output_tokens": 0}, invalid("max_output_tokens", "Expected `int` >= 1")),
        ({"temperature": 2.5}, invalid("temperature", "Expected `float` <= 2.0")),
        ({"top_p": -0.5}, invalid("top_p", "Expected `float` >= 0.0")),
        ({"top_logprobs": 21}, invalid("top_logprobs", "Expected `int` <= 20")),
        ({"presence_penalty": 3}, invalid("presence_penalty", "Expected `float` <= 2.0")),
        ({"truncation": "some"}, invalid("truncation", "Invalid enum value 'some'")),
        (
            {"prompt": {"id": "p"}},
            unsupported("prompt", "stored prompts do not exist here; send instructions and input"),
        ),
        (
            {"stream_id": "a"},
            unsupported("stream_id", "lanes are for WebSocket mode; each HTTP request is on its own anyway"),
        ),
        (
            {"background": True, "store": False},
            unsupported("background", "a background response is stored, so that it can be asked for; leave store out"),
        ),
    ],
    ids=str,
)
def test_a_bad_request_is_refused_by_name(fields: dict[str, object], expected: Problem) -> None:
    """The param is the path of what is wrong."""
    assert read(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": None}, missing("type")),
        ({"type": 7}, wrong_type("type", "a string or null, but got an integer")),
        ({"type": "response.steer"}, missing("previous_response_id")),
        ({"type": "response.steering"}, unknown_type("response.steering")),
        ({"stream_id": ""}, invalid_stream_id()),
        ({"stream_id": 7}, invalid_stream_id()),
        ({"type": ""}, unknown_type("")),
        (
            {"background": True},
            unsupported("background", "a WebSocket response is never a background one; leave it out"),
        ),
    ],
    ids=str,
)
def test_a_bad_message_is_refused_by_name(fields: dict[str, object], expected: Problem) -> None:
    """What only WebSocket mode knows."""
    assert parse_message(message(**fields)) == ClientMessage(expected)


@pytest.mark.parametrize(("stream_id", "lane"), [(None, ""), ("main", "main"), ("A.b_c-9", "A.b_c-9")])
def test_a_message_is_for_the_lane_it_names(stream_id: str | None, lane: str) -> None:
    """Whether it is good or bad; null names none."""
    good, bad = parse_message(message(stream_id=stream_id)), parse_message(message(stream_id=stream_id, input=7))
    assert isinstance(good.request, Create)
    assert isinstance(bad.request, Problem)
    assert good.lane == bad.lane == lane


def test_a_message_may_stop_the_turn_of_a_lane() -> None:
    """It names nothing else: what runs there is known."""
    assert parse_message('{"type":"segue.cancel"}') == ClientMessage(Stop())
    assert parse_message('{"type":"segue.cancel","stream_id":"a"}') == ClientMessage(Stop(), "a")
    wrong = parse_message('{"type":"segue.cancel","stream_id":""}').request
    assert isinstance(wrong, Problem)
    assert wrong.code == "invalid_stream_id"


def test_a_message_may_resume_a_stream() -> None:
    """In a lane; without a number, from the start."""
    text = '{"type":"segue.resume","response_id":"resp_1","starting_after":7,"stream_id":"a"}'
    assert parse_message(text) == ClientMessage(Resume(response_id="resp_1", starting_after=7), "a")
    assert parse_message('{"type":"segue.resume","response_id":"x"}') == ClientMessage(Resume(response_id="x"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [({}, "response_id"), ({"response_id": 7}, "response_id"), ({"starting_after": -2}, "starting_after")],
)
def test_a_bad_resume_is_refused_by_name(fields: dict[str, object], param: str) -> None:
    """As a bad create is."""
    good = {"response_id": "resp_1"} if "starting_after" in fields else {}
    request = parse_message(json.dumps({"type": "segue.resume", **good, **fields})).request
    assert isinstance(request, Problem)
    assert request.param == param


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, False),
        ({"segue": None}, False),
        ({"segue": {}}, False),
        ({"segue": {"resume": False, "later": 1}}, False),
        ({"segue": {"resume": True}}, True),
        ({"segue": {"idempotency_key": "k"}}, True),
        ({"background": True}, True),
        ({"background": False}, False),
    ],
    ids=str,
)
def test_a_turn_is_kept_if_it_was_asked_for(fields: dict[str, object], kept: bool) -> None:
    """Under this product's own name, or as a background one."""
    assert accepted(**fields).kept is kept


@pytest.mark.parametrize("key", ["", "k" * 256, 7])
def test_a_bad_idempotency_key_is_refused(key: object) -> None:
    """Its param is the path to it."""
    problem = read(segue={"idempotency_key": key})
    assert isinstance(problem, Problem)
    assert problem.param == "segue.idempotency_key"


def test_a_stream_is_lean_if_it_was_asked_for() -> None:
    """In a create, and in a resume for itself."""
    asked: list[dict[str, object]] = [{}, {"lean": None}, {"lean": False}, {"lean": True}, {"lean": "compact"}]
    forms = ["whole", "whole", "whole", "lean", "compact"]
    assert [accepted(segue=options).form for options in asked] == forms
    resume = {"type": "segue.resume", "response_id": "r"}
    resumes = [parse_message(json.dumps({**resume, **options})).request for options in asked]
    assert [resume.form for resume in resumes if isinstance(resume, Resume)] == forms
    problem = read(segue={"lean": "dense"})
    assert isinstance(problem, Problem)
    assert problem.param == "segue.lean"


def test_a_request_may_be_for_one_run_of_the_gateway() -> None:
    assert accepted(segue={"epoch": "0f1e"}).epoch == "0f1e"
    problem = read(segue={"epoch": ""})
    assert isinstance(problem, Problem)
    assert problem.param == "segue.epoch"


def test_requests_for_the_same_have_the_same_digest() -> None:
    """However they come and are to be answered; anything that changes the response changes it."""
    named: dict[str, Any] = {"segue": {"resume": True, "idempotency_key": "k"}}
    same: list[dict[str, Any]] = [{}, {"stream": True}, named, {"segue": {"lean": True, "epoch": "1"}}]
    assert len({accepted(**fields).digest() for fields in same}) == 1
    others: list[dict[str, Any]] = [{"input": "ho"}, {"store": False}, {"generate": False}, {"temperature": 1}]
    others += [{"background": True}, {"unknown": 1}]
    others += [{"previous_response_id": "resp_1"}, {"input": [{"role": "user", "content": "hi"}] * 2}]
    assert len({accepted(**fields).digest() for fields in [{}, *others]}) == len(others) + 1


@pytest.mark.parametrize("fields", [{"generate": False}, {"prompt_cache_options": {"prewarm": True}}])
def test_a_warm_up_has_two_spellings(fields: dict[str, object]) -> None:
    """And needs no input."""
    assert not accepted(**fields).generate
    assert not accepted(**fields, input=None).generate
    assert accepted(prompt_cache_options={"prewarm": False, "mode": "implicit"}).generate


def test_a_steer_names_the_response_it_is_for() -> None:
    """And keeps the bytes of its input; it has no lane of its own."""
    text = '{"type":"response.steer","previous_response_id":"resp_1","input": [ 1 ],"stream_id":"a"}'
    parsed = parse_message(text)
    assert isinstance(parsed.request, Steer)
    assert (parsed.request.previous_response_id, bytes(parsed.request.input), parsed.lane) == ("resp_1", b"[ 1 ]", "")


@pytest.mark.parametrize("name", ["tools", "tool_choice", "text", "reasoning"])
@pytest.mark.parametrize("depth", [MAX_DEPTH - 4, MAX_DEPTH + 1, 900, 980])
def test_settings_may_be_nested_as_deep_as_the_limit(name: str, depth: int) -> None:
    """They are read again, by code that recurses and with less of the stack left than there is here."""
    raw = '{"type":"x","x":' + "[" * depth + "]" * depth + "}"
    raw = f"[{raw}]" if name == "tools" else raw
    create = parse_create(f'{{"model":"m","input":"hi","{name}":{raw}}}', "http")
    assert isinstance(create, Create) == (depth < MAX_DEPTH)
    assert isinstance(create, Create) or create == invalid_json("it is nested too deeply")


@pytest.mark.parametrize("wide", [{"a": [[]] * 200}, {"a": "[" * 200}, [{}] * 200])
def test_many_brackets_are_not_deep(wide: object) -> None:
    """The limit is on depth alone."""
    assert accepted(reasoning={"x": wide}).settings.reasoning == {"x": wide}


# --------------------------------------------------------------------------------------------------- what never fails


def check(result: Create | Problem) -> None:
    """Whatever comes out of the core can be sent on: a problem to the client, a request to an upstream."""
    if isinstance(result, Problem):
        frame = error_event(result, "invalid_request_error", 400)
        assert json.loads(frame)["error"]["message"] == result.message
        assert len(frame) < 2000
        return
    assert json.loads(join(result.input.items)) is not None
    assert json.loads(encode_echo(result.settings, store=result.store))["model"] == result.settings.model


@given(hostile_texts)
@example("")
@example("\ud800")
@example('{"type":"response.create","model":"m","input":"hi","truncation":"%s"}' % ("x" * 10_000))
@example('{"type":"%s"}' % ("é" * 10_000))
@example("[" * 1_000_000)
@example('{"a":' * 1_000_000)
def test_no_text_raises(text: str) -> None:
    """The answer is a request or a problem, always."""
    request = parse_message(text).request
    if not isinstance(request, Steer | Resume | Stop):
        check(request)
    check(parse_create(text, "websocket"))


@given(hostile_bytes)
@example(b"")
@example(b"\xff")
@example(b'{"model":"m","input":"\xff"}')
@example(b'{"model":"m\xed\xa0\x80","input":"hi"}')
@example(b'{"model":"m","input":"hi","tools":[{"type":"x","\xff":1}]}')
@example(b'{"model":"m","input":[{"type":"x","x":"\xff"}]}')
@example(b'{"model":"m","input":"hi"}' + b" " * 100_000 + b"x")
def test_no_body_raises(data: bytes) -> None:
    """As above, for bytes that need not even be text."""
    check(parse_create(data, "http"))


def test_of_a_doubled_key_the_last_one_counts() -> None:
    """As for nearly every reader of JSON, so that we and an upstream see the same request."""
    doubled = '{"input":7,"model":"a","tools":7,"input":"hi","tools":[],"model":"m"}'
    create = parse_create(doubled, "http")
    assert isinstance(create, Create)
    assert (create.settings, create.input) == (Settings(model="m"), HI)


def test_what_is_read_again_without_half_characters_is_read_as_on_its_transport() -> None:
    text = '{"model":"m","input":"\\ud83d","stream_id":"a"}'
    assert isinstance(parse_create(text, "websocket"), Create)
    problem = parse_create(text, "http")
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == ("unsupported_parameter", "stream_id")
