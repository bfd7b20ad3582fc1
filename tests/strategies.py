"""What generated tests are fed with: JSON values, requests that are valid, and documents that are anything but.

It says nothing about what segue answers; the tests do.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from segue.protocol.codec import MAX_DEPTH

_DEEP_EXAMPLES = 1000
_LEAST_EXAMPLES = 20


def examples(count: int) -> int:
    """Return how many examples a test draws of which the profile `deep` draws `count`: fewer in the others."""
    return max(_LEAST_EXAMPLES, count * settings().max_examples // _DEEP_EXAMPLES)


# -------------------------------------------------------------------------------------------------------------- values

#: Text as Python can hold it, lone surrogates included; `st.text()` leaves those out.
any_text = st.text(st.characters(exclude_categories=()))

names = st.sampled_from(["a", "look", "read_file", "x" * 64])
_texts = ("", "a", "é∑", "two\nlines", '"quoted" \\', "\x00\x7f\u2028", "\U0001f600", "</script>")
_leaves = st.sampled_from([None, True, False, 0, -1, 2**70, 0.5, -1e300, *_texts])
_keys = st.sampled_from(["type", "a", *_texts])
_branches = _leaves | st.lists(_leaves, max_size=3) | st.dictionaries(_keys, _leaves, max_size=3)
json_objects = st.dictionaries(_keys, _branches, max_size=3)
json_values = _branches | st.lists(_branches, max_size=3) | json_objects

# ------------------------------------------------------------------------------------------------------ valid requests


def objects(required: dict[str, SearchStrategy[Any]], **optional: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """JSON objects with these fields; an optional one may be missing or null."""
    return st.fixed_dictionaries(required, optional={name: st.none() | value for name, value in optional.items()})


_parts = objects({"type": st.sampled_from(["input_text", "output_text"]), "text": st.text(max_size=8)})
messages = objects(
    {
        "role": st.sampled_from(["user", "assistant", "system", "developer"]),
        "content": st.text(max_size=8) | st.lists(_parts, max_size=2),
    },
    type=st.just("message"),
    id=names,
)
calls = objects({"type": st.just("function_call"), "call_id": names, "name": names, "arguments": st.text(max_size=8)})
unknown_items = json_objects.map(lambda value: {**value, "type": "weather_call_2", "call_id": "x"})
items = messages | calls | unknown_items

_functions = objects(
    {"type": st.just("function"), "name": names},
    description=st.text(max_size=8),
    parameters=json_objects,
    strict=st.booleans(),
)
_custom_tools = objects({"type": st.just("custom"), "name": names})
_formats = st.sampled_from([{"type": "text"}, {"type": "json_object"}, {}]) | objects(
    {"type": st.just("json_schema"), "name": names, "schema": json_objects},
    description=st.text(max_size=8),
    strict=st.booleans(),
)

#: Every optional field of a request with its valid values, as the schema of the response object lets them be echoed.
FIELDS: dict[str, SearchStrategy[Any]] = {
    "previous_response_id": st.text(max_size=8),
    "store": st.booleans(),
    "stream": st.booleans(),
    "stream_options": objects({}, include_obfuscation=st.booleans()),
    "background": st.just(value=False),
    "generate": st.booleans(),
    "instructions": st.text(max_size=8),
    "tools": st.lists(_functions | _custom_tools, max_size=3),
    "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "name": "f"}]),
    "text": objects({}, format=_formats, verbosity=st.sampled_from(["low", "medium", "high"])),
    "reasoning": objects(
        {}, effort=st.sampled_from(["low", "medium", "high"]), summary=st.sampled_from(["auto", "concise", "detailed"])
    ),
    "metadata": st.dictionaries(st.text(max_size=64), st.text(max_size=8), max_size=3),
    "include": st.lists(st.just("reasoning.encrypted_content"), max_size=2),
    "parallel_tool_calls": st.booleans(),
    "max_output_tokens": st.integers(1, 2**40),
    "max_tool_calls": st.integers(1, 2**40),
    "temperature": st.floats(0, 2) | st.integers(0, 2),
    "top_p": st.floats(0, 1) | st.integers(0, 1),
    "top_logprobs": st.integers(0, 20),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "truncation": st.sampled_from(["auto", "disabled"]),
    "service_tier": st.sampled_from(["auto", "default", "flex", "priority"]),
    "safety_identifier": st.text(max_size=8),
    "prompt_cache_key": st.text(max_size=8),
}
bodies = objects({"model": names, "input": st.text(max_size=8) | st.lists(items, min_size=1, max_size=3)}, **FIELDS)


def pretty(value: object) -> str:
    """JSON as a person would write it: on many lines."""
    return json.dumps(value, indent=2)


# --------------------------------------------------------------------------------------------------- hostile documents

_NAMES = ("type", "model", "input", "stream_id", "conversation", "prompt", "role", "content", "call_id", "id", *FIELDS)
_DEPTHS = st.sampled_from([1, MAX_DEPTH - 2, MAX_DEPTH, MAX_DEPTH + 2, 500, 900, 990, 1500])
_TOKENS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "-0", "9" * 4500, "1" + "0" * 400 + ".5", "01", "+1", ".5"),
    *('"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"', '"\ud800"', '"\x00"', '"\\u0000"', '"\n"', '"\\x"', "'x'", "nul"),
    *("null", "true", "response.create", '"response.create"', '"message"', '"item_reference"', '"function_call"'),
)
_nested = _DEPTHS.map(lambda depth: "[" * depth + "]" * depth) | _DEPTHS.map(lambda n: '{"a":' * n + "1" + "}" * n)


def _write_object(fields: list[tuple[str, str]]) -> str:
    """Write an object of raw values, so that a key may come twice and a value may be no JSON."""
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields) + "}"


def _write_around(inner: SearchStrategy[str]) -> SearchStrategy[str]:
    fields = st.lists(st.tuples(st.sampled_from(_NAMES), inner), max_size=4)
    return inner | fields.map(_write_object) | st.lists(inner, max_size=3).map(lambda raws: f"[{','.join(raws)}]")


_raw = _write_around(_write_around(st.sampled_from(_TOKENS) | json_values.map(json.dumps) | _nested))
_creates = st.lists(st.tuples(st.sampled_from(_NAMES), _raw), max_size=6).map(
    lambda fields: _write_object([("type", '"response.create"'), ("model", '"m"'), ("input", '"hi"'), *fields])
)
_torn = st.tuples(bodies.map(json.dumps), st.integers(0, 200), st.integers(0, 20), any_text).map(
    lambda cut: cut[0][: cut[1]] + cut[3] + cut[0][cut[1] + cut[2] :]
)
#: What a client could send as the text of a message; nothing about it can be relied on.
hostile_texts = _creates | _raw | _torn | any_text | json_values.map(json.dumps)
#: The same, as the bytes of a body.
hostile_bytes = st.binary() | hostile_texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
