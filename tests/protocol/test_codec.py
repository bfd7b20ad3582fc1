"""Reading JSON without raising, and naming what is wrong by its path on the wire."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.codec import (
    MAX_DEPTH,
    decode,
    decode_value,
    explain,
    is_nested_too_deeply,
    is_utf8,
    join_long,
    keep_text,
    size_of,
    with_field,
    without_field,
    without_lone_surrogates,
)
from segue.protocol.problems import Problem
from tests.strategies import examples, hostile_bytes, hostile_texts, json_objects, json_values, pretty

Short = Annotated[str, msgspec.Meta(max_length=2)]


class Leaf(msgspec.Struct):
    """What `Tree` holds."""

    size: int
    kind: Literal["oak", "elm"] = "oak"


class Tree(msgspec.Struct):
    """A document with something of everything that the wire's types use."""

    name: str
    leaves: list[Leaf] = []
    tags: dict[Short, str] = {}
    text: str | list[Leaf] | None = None


trees = msgspec.json.Decoder(Tree)
anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def invalid_json(detail: str) -> Problem:
    return Problem("invalid_json", f"The request is not valid JSON: {detail}. Send one JSON object.")


def wrong_type(param: str, rest: str) -> Problem:
    return Problem("invalid_type", f"Invalid type for '{param}': expected {rest} instead.", param)


def invalid(param: str, rest: str) -> Problem:
    return Problem("invalid_value", f"Invalid value for '{param}': {rest}.", param)


def lacks(param: str) -> Problem:
    return Problem("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def test_a_good_document_becomes_its_value() -> None:
    """As bytes and as text."""
    expected = Tree("ash", [Leaf(3)])
    assert decode(b'{"name":"ash","leaves":[{"size":3}]}', trees) == expected
    assert decode('{"name":"ash","leaves":[{"size":3}]}', trees) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("[]", invalid_json("it is an array, not an object")),
        ("null", invalid_json("it is null, not an object")),
        ("7", invalid_json("it is an integer, not an object")),
        ("{}", lacks("name")),
        ('{"name":7}', wrong_type("name", "a string, but got an integer")),
        ('{"name":"a","leaves":{}}', wrong_type("leaves", "an array, but got an object")),
        (
            '{"name":"a","leaves":[{"size":1},{"size":1.5}]}',
            wrong_type("leaves[1].size", "an integer, but got a number"),
        ),
        ('{"name":"a","leaves":[{}]}', lacks("leaves[0].size")),
        ('{"name":"a","text":true}', wrong_type("text", "a string or an array or null, but got a boolean")),
        ('{"name":"a","leaves":[{"size":1,"kind":"fir"}]}', invalid("leaves[0].kind", "Invalid enum value 'fir'")),
        ('{"name":"a","tags":{"long":"x"}}', invalid("tags", "Expected `str` of length <= 2")),
        ('{"name":"a","tags":{"x":1}}', wrong_type("tags[...]", "a string, but got an integer")),
    ],
)
def test_a_document_of_the_wrong_kind_is_named_by_its_path(document: str, expected: Problem) -> None:
    """At the top of a request the path is the wire's own."""
    assert decode(document, trees) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("[]", wrong_type("input[2]", "an object, but got an array")),
        ("{}", lacks("input[2].name")),
        ('{"name":"a","leaves":[3]}', wrong_type("input[2].leaves[0]", "an object, but got an integer")),
    ],
)
def test_a_part_of_a_document_is_named_below_where_it_stands(document: str, expected: Problem) -> None:
    """`where` is put before the path."""
    assert decode(document, trees, "input[2]") == expected


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        ("", "Input data was truncated"),
        ('{"name":', "Input data was truncated"),
        ('{"name":NaN}', "JSON is malformed: invalid character (byte 8)"),
        ('{"name":"a"} x', "JSON is malformed: trailing characters (byte 14)"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_what_is_no_json_says_where(document: str, detail: str) -> None:
    """The reader's own words name the byte."""
    assert decode(document, anything) == invalid_json(detail)


@pytest.mark.parametrize("document", ['"\ud800"', '"\\ud800"', '"\\udc00"', b'"\xff"', b'{"\xff":1}'])
def test_text_that_is_no_unicode_is_no_json(document: str | bytes) -> None:
    """In raw bytes, in escapes, and in a text that Python let pass."""
    problem = decode(document, anything)
    assert isinstance(problem, Problem)
    assert problem.code == "invalid_json"


def test_a_long_value_does_not_make_a_long_message() -> None:
    """A client that sends megabytes is not answered with them."""
    problem = decode('{"name":"a","leaves":[{"size":1,"kind":"%s"}]}' % ("fir" * 100_000), trees)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == ("invalid_value", "leaves[0].kind")
    assert len(problem.message) < 500


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("a" * 200 + "b" * 200, "a" * 200 + "b" * 200),
        ("a" * 200 + "?" + "b" * 200, "a" * 200 + "…" + "b" * 200),
        ("a" * 1000 + "b" * 200, "a" * 200 + "…" + "b" * 200),
    ],
    ids=["400", "401", "1200"],
)
def test_of_a_long_message_both_ends_are_told(said: str, message: str) -> None:
    """What is wrong is at the one, where at the other; of a document as a whole there is no path."""
    assert explain(msgspec.ValidationError(said)) == Problem("invalid_value", f"{message}.")


def test_a_value_that_was_skipped_before_is_checked_and_named_where_it_stands() -> None:
    """No number of Python is so large."""
    assert decode_value(msgspec.Raw(b"[1e999]"), "x") == invalid("x[0]", "Number out of range")


@pytest.mark.parametrize("kind", ["x - at `$.size`", "` - at `$.name`", "Expected `int`, got `str`", "x` - at `$", ""])
def test_a_value_cannot_pose_as_a_path(kind: str) -> None:
    """Words of the reader inside a client's value mean nothing."""
    problem = decode(json.dumps({"name": "a", "leaves": [{"size": 1, "kind": kind}]}), trees)
    assert problem == invalid("leaves[0].kind", f"Invalid enum value '{kind}'")


@settings(max_examples=examples(500))
@given(hostile_texts | hostile_bytes)
def test_decoding_never_raises(document: str | bytes) -> None:
    """Whatever comes from a socket becomes a value or a problem that can be sent."""
    problem = decode(document, trees, "input[0]")
    assert isinstance(problem, Problem | Tree)
    assert len(msgspec.json.encode(problem)) < 2000 or isinstance(problem, Tree)


@settings(max_examples=examples(300))
@given(json_objects, st.text(max_size=8), json_values)
def test_with_field_sets_one_field_and_keeps_the_bytes_of_the_others(
    fields: dict[str, object], name: str, value: object
) -> None:
    """Spaces, escapes and the order of the other values are their author's."""
    raws = {key: pretty(field) for key, field in fields.items()}
    data = "{" + ",".join(f"{json.dumps(key)}:{raw}" for key, raw in raws.items()) + "}"
    changed = msgspec.json.decode(with_field(data.encode(), name, value), type=dict[str, msgspec.Raw])
    expected = {**{key: raw.encode() for key, raw in raws.items()}, name: msgspec.json.encode(value)}
    assert {key: bytes(raw) for key, raw in changed.items()} == expected
    assert list(changed) == list(expected)


def test_without_field_takes_one_field_out_and_keeps_the_bytes_of_the_others() -> None:
    document = b'{"a": 1.50, "b": {"c" : [ ]}, "d":"\\u00e9"}'
    assert without_field(document, "b") == b'{"a":1.50,"d":"\\u00e9"}'
    assert without_field(document, "x") == b'{"a":1.50,"b":{"c" : [ ]},"d":"\\u00e9"}'


@pytest.mark.parametrize(
    ("document", "repaired"),
    [
        (rb'"a\ud83d"', rb'"a\ufffd"'),
        (rb'"\uDE00b"', rb'"\ufffdb"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\ud83d\n\ude00"', rb'"\ufffd\n\ufffd"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (r'{"ü\udbff":"\\u1"}', '{"ü\\ufffd":"\\\\u1"}'.encode()),
    ],
)
def test_a_lone_surrogate_is_replaced(document: bytes | str, repaired: bytes) -> None:
    assert without_lone_surrogates(document) == repaired
    assert without_lone_surrogates(repaired) is None


@pytest.mark.parametrize("document", [b"", b'"\\', rb'"\ud83d\ude00"', rb'"\\ud83d"', rb'"\u00e9"', "é", b"\xff"])
def test_a_document_without_lone_surrogates_has_nothing_to_replace(document: bytes | str) -> None:
    assert without_lone_surrogates(document) is None


def test_very_many_lone_surrogates_are_no_accident() -> None:
    assert without_lone_surrogates(rb'"' + rb"\ud800" * 1000 + b'"') is not None
    assert without_lone_surrogates(rb'"' + rb"\ud800" * 1001 + b'"') is None


@given(text=st.text(st.characters(exclude_categories=()), max_size=6), escaped=st.booleans())
def test_what_python_writes_can_be_read_once_it_is_repaired(text: str, *, escaped: bool) -> None:
    document = json.dumps({text: [text, json.dumps(text)]}, ensure_ascii=escaped)
    assert isinstance(decode(without_lone_surrogates(document) or document, msgspec.json.Decoder()), dict)


@pytest.mark.parametrize("document", ["", "x", "é", "\udcff", b"\xff\xff"])
def test_the_size_of_a_document_is_that_of_its_bytes(document: str | bytes) -> None:
    data = document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass")
    assert size_of(document) == len(data)


def test_a_kept_value_is_nested_no_deeper_than_the_limit() -> None:
    for brackets in ("[]", "{}"):
        opened = '{"a":' if brackets == "{}" else "["
        fits = opened * MAX_DEPTH + "0" + brackets[1] * MAX_DEPTH
        assert not isinstance(decode_value(msgspec.Raw(fits.encode()), "x"), Problem)
        deep = opened * (MAX_DEPTH + 1) + "0" + brackets[1] * (MAX_DEPTH + 1)
        assert decode_value(msgspec.Raw(deep.encode()), "x") == invalid_json("it is nested too deeply")
    wide = b"[" + b",".join([b"[]"] * (2 * MAX_DEPTH)) + b"]"
    assert decode_value(msgspec.Raw(wide), "x") == [[]] * (2 * MAX_DEPTH)


@pytest.mark.parametrize(
    ("data", "text"), [(b"", True), ("é".encode(), True), (b"\xc3", False), (b"\xed\xa0\xbd", False)]
)
def test_utf8_is_known(data: bytes, *, text: bool) -> None:
    assert is_utf8(data) is text


@pytest.mark.parametrize(("depth", "deep"), [(1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True), (5000, True)])
def test_depth_is_told_without_recursion(depth: int, deep: bool) -> None:
    assert is_nested_too_deeply(b"[" * depth + b"]" * depth) == deep
    assert not is_nested_too_deeply(b"{}," * (MAX_DEPTH + depth)), "it is no JSON"


@pytest.mark.parametrize("size", [0, 65_536, 200_001])
def test_a_long_text_is_joined_with_what_stands_around_it(size: int) -> None:
    text = bytes(range(256)) * (size // 256 + 1)
    assert join_long(b"<", msgspec.Raw(text[:size]), b">") == b"<" + text[:size] + b">"


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_text_that_is_kept_keeps_nothing_else(size: int) -> None:
    document = b'["%b","other"]' % (b"x" * size)
    before = sys.getrefcount(document)
    kept = keep_text(msgspec.json.decode(document, type=list[msgspec.Raw])[0])
    assert bytes(kept) == b'"%b"' % (b"x" * size)
    assert sys.getrefcount(document) == before
