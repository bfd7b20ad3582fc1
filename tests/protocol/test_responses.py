"""The response object: every key that the schema requires, whatever the request left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.problems import Problem
from segue.protocol.requests import Create, Settings, json_text, parse_create
from segue.protocol.responses import (
    EncodedResponse,
    Failure,
    IncompleteDetails,
    ResponseObjectHead,
    Usage,
    encode_echo,
    encode_start,
    parse_echo,
    settings_of,
    usage,
)
from segue.testing.protocol_checker import check_response, parse_json
from segue.testing.store_conformance import sample_id
from tests.strategies import bodies, examples, pretty

ID = sample_id("turn")
PARENT = sample_id("parent")
BORN = ResponseObjectHead(id=ID, created_at=100)
HEADS = [
    BORN,
    ResponseObjectHead(
        id=ID, created_at=100, completed_at=101, status="completed", previous_response_id=PARENT, usage=usage(9, 4)
    ),
    ResponseObjectHead(id=ID, created_at=100, status="failed", error=Failure("server_error", "no")),
    ResponseObjectHead(
        id=ID,
        created_at=100,
        status="incomplete",
        incomplete_details=IncompleteDetails("max_output_tokens"),
        usage=usage(9, 4, cached=8, reasoning=3),
    ),
]
MESSAGE = b'{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[]}'
CALL = b'{"id":"fc_1","type":"function_call","status":"completed","call_id":"c","name":"f","arguments":"{}"}'
KEYS = [
    *("id", "object", "created_at", "completed_at", "status", "error", "incomplete_details", "previous_response_id"),
    *("usage", "output", "model", "instructions", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text"),
    *("top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
]


def echo(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - any setting
    return parse_json(encode_echo(Settings(model="m", **fields), store=True).decode())


def joined(head: ResponseObjectHead, output: Sequence[bytes], echo: bytes) -> bytes:
    return EncodedResponse(encode_start(head, output), echo).whole()


def test_a_response_that_was_just_made_echoes_the_defaults() -> None:
    """All 31 keys, in one order."""
    response = joined(BORN, (), encode_echo(Settings(model="m"), store=False))
    assert len(KEYS) == 31
    assert list(parse_json(response.decode()).items()) == [
        ("id", ID),
        ("object", "response"),
        ("created_at", 100),
        ("completed_at", None),
        ("status", "in_progress"),
        ("error", None),
        ("incomplete_details", None),
        ("previous_response_id", None),
        ("usage", None),
        ("output", []),
        ("model", "m"),
        ("instructions", None),
        ("tools", []),
        ("tool_choice", "auto"),
        ("truncation", "disabled"),
        ("parallel_tool_calls", True),
        ("text", {"format": {"type": "text"}}),
        ("top_p", 1.0),
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
        ("top_logprobs", 0),
        ("temperature", 1.0),
        ("reasoning", None),
        ("max_output_tokens", None),
        ("max_tool_calls", None),
        ("store", False),
        ("background", False),
        ("service_tier", "default"),
        ("metadata", {}),
        ("safety_identifier", None),
        ("prompt_cache_key", None),
    ]


@settings(max_examples=examples(300))
@given(
    bodies, st.sampled_from(HEADS), st.lists(st.sampled_from([MESSAGE, CALL])), st.sampled_from([json.dumps, pretty])
)
def test_the_response_to_every_valid_request_is_whole_and_on_one_line(
    fields: dict[str, Any], head: ResponseObjectHead, output: list[bytes], write: Callable[[object], str]
) -> None:
    """However the client laid its JSON out: a line break would end the event that carries the object."""
    create = parse_create(write(fields), "http")
    assert isinstance(create, Create)
    response = joined(head, output, encode_echo(create.settings, store=create.store))
    assert b"\n" not in response
    assert b"\r" not in response
    value = parse_json(response.decode())
    check_response(value)
    assert list(value) == KEYS
    assert value["output"] == [json.loads(item) for item in output]
    given_ = {name: fields[name] for name in ("model", "instructions", "metadata") if fields.get(name) is not None}
    assert {name: value[name] for name in given_} == given_


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (
            {"type": "function", "name": "f"},
            {"description": None, "parameters": None, "strict": None, "type": "function", "name": "f"},
        ),
        (
            {"type": "function", "name": "f", "description": "d", "parameters": {"a": 1}, "strict": True, "x": 1},
            {"description": "d", "parameters": {"a": 1}, "strict": True, "type": "function", "name": "f", "x": 1},
        ),
        ({"type": "custom", "name": "c"}, {"type": "custom", "name": "c"}),
        ({"type": "web_search"}, {"type": "web_search"}),
    ],
)
def test_only_a_function_is_echoed_with_the_keys_that_it_left_out(
    tool: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The schema knows nothing of the other kinds."""
    assert echo(tools=[tool])["tools"] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({}, {"format": {"type": "text"}}),
        ({"format": None, "verbosity": None}, {"format": {"type": "text"}}),
        ({"format": {}, "verbosity": "low"}, {"format": {"type": "text"}, "verbosity": "low"}),
        ({"format": {"name": "x"}}, {"format": {"type": "text", "name": "x"}}),
        ({"format": {"type": "json_object"}}, {"format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", "name": "x", "schema": {"a": None}, "strict": None}},
            {
                "format": {
                    "description": None,
                    "strict": False,
                    "type": "json_schema",
                    "name": "x",
                    "schema": {"a": None},
                }
            },
        ),
    ],
)
def test_the_text_format_is_echoed_in_full(text: dict[str, Any], expected: dict[str, Any]) -> None:
    """Plain text is the format of whoever names none."""
    assert echo(text=text)["text"] == expected


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (None, None),
        ({}, {"effort": None, "summary": None}),
        ({"effort": "low", "context": "auto"}, {"effort": "low", "summary": None, "context": "auto"}),
    ],
)
def test_reasoning_is_echoed_with_both_its_keys(reasoning: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    """If it was asked for at all."""
    assert echo(reasoning=reasoning)["reasoning"] == expected


@pytest.mark.parametrize(("asked", "told"), [(None, "default"), ("auto", "default"), ("flex", "flex")])
def test_the_service_tier_is_the_one_that_was_used(asked: str | None, told: str) -> None:
    """`auto` is a wish, not a tier."""
    assert echo(service_tier=asked)["service_tier"] == told


def test_items_are_put_in_as_they_are() -> None:
    """Neither the settings nor the output are encoded again."""
    odd = b'{"id":"x", "n":1e2}'
    assert joined(BORN, (odd, MESSAGE), b'{"model":"m"}').endswith(
        b'"output":[' + odd + b"," + MESSAGE + b'],"model":"m"}'
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_head_can_be_read_back(head: ResponseObjectHead) -> None:
    """Stores keep it as JSON."""
    assert msgspec.json.decode(msgspec.json.encode(head), type=ResponseObjectHead) == head


def test_usage_adds_up() -> None:
    """The whole history counts as input; details say what of it cost nothing."""
    counted = usage(10, 5, cached=8, reasoning=2)
    assert isinstance(counted, Usage)
    assert msgspec.to_builtins(counted) == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }


def test_usage_in_full() -> None:
    counted = usage(10, 5, cached=8, reasoning=2, written=1)
    assert msgspec.to_builtins(counted) == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
    assert usage(10, 5) == usage(10, 5, cached=0, reasoning=0, written=0)


def test_the_echo_of_every_setting_that_was_sent() -> None:
    sent: dict[str, Any] = {
        "model": "m",
        "instructions": "Be brief.",
        "tools": [{"type": "function", "name": "look", "description": "d", "parameters": {}, "strict": True}],
        "tool_choice": "required",
        "truncation": "auto",
        "parallel_tool_calls": False,
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
        "top_p": 0.25,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "top_logprobs": 3,
        "temperature": 0.75,
        "reasoning": {"effort": "low", "summary": "auto"},
        "max_output_tokens": 9,
        "max_tool_calls": 2,
        "service_tier": "flex",
        "metadata": {"a": "b"},
        "safety_identifier": "u",
        "prompt_cache_key": "k",
    }
    given_ = {**sent, "instructions": json_text("Be brief.")}
    echo = encode_echo(Settings(**given_), store=False, background=True)
    assert msgspec.json.decode(echo) == sent | {"store": False, "background": True}
    assert settings_of(echo) == Settings(**given_)


def test_settings_come_back_from_an_echo_without_its_defaults() -> None:
    """Nobody sent those."""
    tool = {"type": "function", "name": "look"}
    for sent in (Settings(model="m"), Settings(model="m", tools=[tool], reasoning={"effort": "low"})):
        assert settings_of(encode_echo(sent, store=True)) == sent


def test_an_echo_that_somebody_sent_is_checked() -> None:
    """Ours is as it was; keys that are not known are kept, and those of the response itself are refused."""
    ours = encode_echo(Settings(model="m", metadata={"a": "b"}), store=True)
    assert parse_echo(ours, "settings[0]") == ours
    more = ours[:-1] + b', "new": 1.50}'
    found = parse_echo(more, "settings[0]")
    assert isinstance(found, bytes)
    assert msgspec.json.decode(found) == msgspec.json.decode(more)
    for raw, param in (
        (ours[:-1] + b',"output":[]}', "settings[0].output"),
        (ours.replace(b'"m"', b"1"), "settings[0].model"),
        (ours[:-1] + b',"deep":' + b"[" * 600 + b"]" * 600 + b"}", None),
        (ours.replace(b'"instructions":null', b'"instructions":1'), "settings[0].instructions"),
        (b"[]", "settings[0]"),
    ):
        refused = parse_echo(raw, "settings[0]")
        assert isinstance(refused, Problem)
        assert refused.param == param
