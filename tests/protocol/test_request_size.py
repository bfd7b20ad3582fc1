"""What a request may hold is told before it is decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.items import Input, parse_input
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits, refuse_size
from segue.protocol.requests import Create, parse_create, parse_message
from tests.strategies import examples

FEW = RequestLimits(items=3, values=1000)
TOO_MANY = Problem("message_too_large", "The request holds more than 1000 JSON values.")
TEXT = '"' + 'a\\"b,[{\\\\' * 2000 + '"'


@pytest.mark.parametrize("unit", ['"f%d":1', '"f%d":[]', '"f%d":{}', '"f%d":[[]]', '"f%d":{"a":"b"}', '"f%d":"x,"'])
def test_many_values_of_any_kind_are_too_many(unit: str) -> None:
    whole = "{" + ",".join(unit % number for number in range(1002)) + "}"
    assert refuse_size(whole, FEW) == refuse_size(whole.encode(), FEW) == TOO_MANY
    some = "{" + ",".join(unit % number for number in range(300)) + "}"
    assert refuse_size(some, FEW) is None


@pytest.mark.parametrize("text", [TEXT, '"' + "\\\\" * 9000 + '"', '"' + ",é" * 9000 + '"', '"' + "," * 9000])
def test_what_is_within_texts_does_not_count(text: str) -> None:
    assert refuse_size(f'{{"input":{text}}}', FEW) is None
    assert refuse_size(f"[{text},{'1,' * 1200}1]", FEW) in {TOO_MANY, None if text[-1] == "," else TOO_MANY}


@pytest.mark.parametrize("as_text", [False, True])
def test_texts_of_millions_of_escapes_are_refused(*, as_text: bool) -> None:
    """They take long to read and to write. What a client writes that knows ASCII only are fewer, however much it is."""
    whole = b'{"input":"%b"}'
    escaped, ascii_only = whole % (b'\\"' * 3_000_001), whole % (rb"\u00e4" * 2_700_000)
    found = [refuse_size(one.decode() if as_text else one) for one in (escaped, ascii_only)]
    assert found == [Problem("message_too_large", "The request's texts hold more than 3000000 backslashes."), None]


def values(value: Any) -> int:  # noqa: ANN401 - any JSON
    """Count what begins a value or parts two of them."""
    match value:
        case dict():
            return max(1, len(value)) + sum(map(values, value.values()))
        case list():
            return max(1, len(value)) + sum(map(values, value))
        case _:
            return 0


texts = st.text(st.sampled_from('",[]{}\\:a\x00é\ud83d'), max_size=6)
documents = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=40,
)


@settings(max_examples=examples(400))
@given(documents, st.booleans())
def test_the_count_is_exact(document: Any, ascii_only: bool) -> None:  # noqa: ANN401 - any JSON
    """However texts are written."""
    text = json.dumps(document, ensure_ascii=ascii_only, separators=(",", ":"))
    count = values(document)
    for written in (text, text.encode("utf-8", "surrogatepass")):
        assert refuse_size(written, RequestLimits(values=count)) is None
        if count:
            assert (refuse_size(written, RequestLimits(values=count - 1)) is None) == (len(written) < 2 * (count - 1))


@given(st.binary())
def test_whatever_is_no_json_does_not_raise(data: bytes) -> None:
    assert isinstance(refuse_size(data, RequestLimits(values=1)), Problem | None)


def test_a_long_number_is_refused_and_long_digits_in_a_text_are_not() -> None:
    digits = "7" * 200_000
    refused = refuse_size(f'{{"a":"{digits}","b":{digits}}}')
    assert refused is not None
    assert (refused.code, "more than 1000 digits" in refused.message) == ("invalid_json", True)
    assert refuse_size(f'{{"a":"{digits}","b":123}}') is None
    assert refuse_size(f'{{"b":{digits[:2000]}}}') is None, "one or some are read soon"


def test_an_input_has_only_so_many_items() -> None:
    item = b'{"role":"user","content":"x"}'
    assert isinstance(parse_input(b"[" + b",".join([item] * 3) + b"]", FEW), Input)
    refused = parse_input(b"[" + b",".join([item] * 4) + b"]", FEW)
    assert isinstance(refused, Problem)
    assert (refused.code, refused.param) == ("invalid_value", "input")
    assert "has 4 items; a request may have 3" in refused.message


def test_requests_of_both_transports_are_held_to_the_limits() -> None:
    fields = ",".join(f'"f{number}":1' for number in range(1200))
    create = f'{{"type":"response.create","model":"m","input":"x",{fields}}}'
    assert parse_create(create.encode(), "http", FEW) == parse_message(create, FEW).request == TOO_MANY
    items = json.dumps({"type": "response.create", "model": "m", "input": [{"role": "user", "content": "x"}] * 4})
    for refused in (parse_create(items, "http", FEW), parse_message(items, FEW).request):
        assert isinstance(refused, Problem)
        assert refused.param == "input"


def test_what_real_agents_send_is_far_below() -> None:
    """Two thousand calls with their outputs, and a hundred and fifty tools of ten parameters."""
    call = {"type": "function_call", "call_id": "c", "name": "read", "arguments": '{"path":"a"}'}
    output = {"type": "function_call_output", "call_id": "c", "output": "x," * 2000}
    properties = {f"p{number}": {"type": "string", "description": "What it is"} for number in range(10)}
    tool = {"type": "function", "name": "t", "parameters": {"type": "object", "properties": properties}}
    body = {"model": "m", "input": [call, output] * 2000, "tools": [tool] * 150}
    assert isinstance(parse_create(json.dumps(body).encode(), "http"), Create)
    assert DEFAULT_LIMITS.items >= 4000 * 5


def test_a_request_has_only_so_many_tools() -> None:
    tool = {"type": "function", "name": "f"}
    body = {"model": "m", "input": "x", "tools": [tool] * 2000}
    assert isinstance(parse_create(json.dumps(body).encode(), "http"), Create)
    refused = parse_create(json.dumps(body | {"tools": [tool] * 2001}).encode(), "http")
    assert isinstance(refused, Problem)
    assert (refused.code, refused.param) == ("invalid_value", "tools")


def test_numbers_and_texts_are_told_apart_wherever_a_window_ends() -> None:
    """Backslashes and quotes at the border of what is looked at together."""
    for pad in range(16):
        text = "x" * (2**15 - 12 - pad) + '\\\\\\"' + "," * 5000 + "\\\\"
        document = f'{{"a":"{text}","b":[{"1," * 400}1]}}'
        assert json.loads(document)["b"][-1] == 1
        assert refuse_size(document, FEW) is None
        assert refuse_size(document, RequestLimits(values=400)) == Problem(
            "message_too_large", "The request holds more than 400 JSON values."
        )


def test_a_large_document_is_looked_at_with_pauses() -> None:
    """A shell that reads one beside others lets them work in between; a small one is read at once."""
    pauses: list[None] = []
    limits = RequestLimits(pause=lambda: pauses.append(None))
    assert refuse_size(b'{"input":"x"}', limits) is None
    assert not pauses
    for document in (b'"%b"' % (b"x" * 4_000_000), '"' + "x" * 4_000_000 + '"', b'["%b"]' % (b",1" * 400_000)):
        pauses.clear()
        assert refuse_size(document, limits) is None
        assert len(pauses) >= len(document) // (1 << 17)


def test_many_items_are_read_with_pauses() -> None:
    pauses: list[None] = []
    limits = RequestLimits(pause=lambda: pauses.append(None))
    for count, expected in ((15, 0), (16, 1), (100, 6)):
        pauses.clear()
        body = json.dumps([{"role": "user", "content": "x"}] * count).encode()
        assert isinstance(parse_input(body, limits), Input)
        assert len(pauses) == expected
