"""A request that passes through: the client's bytes, but for what the gateway must change."""

from __future__ import annotations

import json

from segue.dialects.passed_on import passed_on
from segue.dialects.rules import Preset
from segue.protocol.object_text import ObjectText, read_object


def body(text: bytes) -> ObjectText:
    read = read_object(text)
    assert isinstance(read, ObjectText)
    return read


def test_a_field_is_replaced_where_it_stands_or_added_at_the_end() -> None:
    asked = body(b'{ "model" : "a", "x": 1.0 }')
    rendered = passed_on(asked, {"model": b'"b"', "stream": b"true"})
    assert rendered.body == b'{ "model" : "b", "x": 1.0 ,"stream":true}'
    assert (rendered.warnings, rendered.own_fields) == ((), frozenset())


def test_a_field_is_written_in_pieces() -> None:
    assert passed_on(body(b'{"m":[1]}'), {"m": (b"[0,", b"1]")}).body == b'{"m":[0,1]}'
    assert passed_on(body(b"{}"), {"m": (b"[0,", b"1]")}).body == b'{"m":[0,1]}'


def test_what_the_configuration_adds_gives_way_only_to_a_field_that_the_api_has() -> None:
    preset = Preset({"top_k": 5, "provider": {"deny": True}, "seed": 1}, frozenset({"id_slot"}))
    asked = body(b'{"top_k":9,"provider":{},"id_slot":3,"model":"a"}')
    sent = json.loads(passed_on(asked, {}, preset=preset, known=frozenset({"top_k"})).body)
    assert sent == {"top_k": 9, "model": "a", "provider": {"deny": True}, "seed": 1}


def test_a_field_is_left_out() -> None:
    assert passed_on(body(b'{"thread":{},"a":1}'), {}, without=frozenset({"thread"})).body == b'{"a":1}'
