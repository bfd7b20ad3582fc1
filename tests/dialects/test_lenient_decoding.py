"""What can be read of JSON that strict decoding refuses."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from segue.dialects.lenient_decoding import LenientDecoder, LenientResult, decode_json
from segue.protocol.codec import UNREADABLE
from tests.strategies import any_text, hostile_bytes, json_values


class _Inner(msgspec.Struct):
    need: str
    score: float | None = None


class _Outer(msgspec.Struct):
    text: str | None = None
    index: int = 0
    inner: _Inner | None = None
    many: list[_Inner] | None = None
    either: str | list[int] | None = None
    fields: dict[str, msgspec.Raw] | None = None
    raw: msgspec.Raw = msgspec.Raw(b"null")
    anything: Any = None


OUTER = LenientDecoder(_Outer, answer=frozenset({"text", "many", "fields"}))


def read(value: object) -> LenientResult[_Outer]:
    return OUTER.decode(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("given_to_it", "wanted"),
    [
        ({"index": "3"}, _Outer(index=3)),
        ({"index": 3.0}, _Outer(index=3)),
        ({"index": None, "text": None}, _Outer()),
        ({"text": 7}, _Outer(text="7")),
        ({"inner": {"need": "x", "score": "0.5"}}, _Outer(inner=_Inner("x", 0.5))),
        ({"inner": {"need": "x", "score": [1]}}, _Outer(inner=_Inner("x"))),
        ({"many": [None, {"need": "x"}, None]}, _Outer(many=[_Inner("x")])),
        ({"either": "x"}, _Outer(either="x")),
        ({"either": ["1"]}, _Outer(either=[1])),
        ({"anything": [{"a": None}], "unknown": 1}, _Outer(anything=[{"a": None}])),
        ({"text": "", "inner": "", "many": False, "fields": [], "index": {}}, _Outer(text="")),
    ],
)
def test_what_can_be_read_is_read(given_to_it: object, wanted: _Outer) -> None:
    assert read(given_to_it).value == wanted


@pytest.mark.parametrize(
    ("given_to_it", "left_out"),
    [
        ({"index": "x", "text": "a"}, ("index",)),
        ({"inner": {"score": 1}}, ("inner",)),
        ({"inner": 5, "either": {"a": 1}}, ("inner", "either")),
        ({"inner": {"need": "x", "score": [1]}}, ("score",)),
        ({"inner": []}, ()),
    ],
)
def test_what_cannot_be_read_is_named_unless_it_says_nothing(given_to_it: object, left_out: tuple[str, ...]) -> None:
    assert read(given_to_it).left_out == left_out


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"<html>",
        b"[]",
        b"7",
        b'{"text":["a"]}',
        b'{"text":true}',
        b'{"many":[5]}',
        b'{"fields":"x"}',
        b'{"many":[{"score":1}]}',
        b'{"text":' + b"[" * 200000,
    ],
)
def test_what_does_not_hold_the_answer_is_refused(document: bytes) -> None:
    with pytest.raises(UNREADABLE):
        OUTER.decode(document)


def test_halves_of_characters_stay_in_the_answer_and_are_replaced_elsewhere() -> None:
    document = b'{"text":"a\\ud83d","either":"a\\ud83d","anything":{"\\ud83d":["\\ude00"]},"raw":"a\\ud83d"}'
    got = OUTER.decode(document).value
    assert (got.text, got.either, got.anything) == ("a\ud83d", "a\ufffd", {"\ufffd": ["\ufffd"]})
    assert bytes(got.raw) == b'"a\\ufffd"'
    fields = OUTER.decode(b'{"index":"1","fields":{"text":"\\ud83d","more":"\\ud83d"}}').value.fields
    assert fields is not None
    assert {name: bytes(raw) for name, raw in fields.items()} == {"text": b'"\\ud83d"', "more": b'"\\ufffd"'}


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "\U0001f600"),  # a pair, each half written as UTF-8
        (b'"a\xf0\x9f"', "a\ufffd"),
        (b'["\t", NaN, -Infinity, 1]', ["\t", None, None, 1]),
    ],
)
def test_what_is_no_json_by_the_letter(document: bytes, value: object) -> None:
    assert decode_json(document) == value


@given(value=json_values)
def test_sound_json_is_read_as_it_is(value: object) -> None:
    assert decode_json(json.dumps(value).encode()) == value


@given(text=any_text)
def test_what_is_read_can_always_be_written(text: str) -> None:
    msgspec.json.encode(decode_json(json.dumps({text: [text]}).encode()))


@given(document=hostile_bytes)
def test_nothing_but_what_is_unreadable_is_raised(document: bytes) -> None:
    try:
        OUTER.decode(document)
    except UNREADABLE:
        return
