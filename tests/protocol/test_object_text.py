"""An object's text: what changes is cut, and every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.problems import Problem
from tests.strategies import examples

NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
OBJECTS = st.dictionaries(NAMES, st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5))


def read(text: bytes) -> ObjectText:
    body = read_object(text)
    assert isinstance(body, ObjectText), body
    return body


def test_a_value_is_replaced_and_the_rest_stays() -> None:
    body = read(b' { "a" : 1e0 ,\n "b\\u0062":[1, 2 ] , "c":{"a":"}"}  } ')
    assert (body.value("bb"), body.value("a"), body.value("x")) == (b"[1, 2 ]", b"1e0", None)
    changed = body.changed({"a": (b"[", b"9]")}, added={"z": b"0"})
    assert b"".join(changed) == b' { "a" : [9] ,\n "b\\u0062":[1, 2 ] , "c":{"a":"}"}  ,"z":0} '


@pytest.mark.parametrize(
    ("without", "left"),
    [
        ({"a"}, b'{ "b": 2, "c": 3 }'),
        ({"b"}, b'{ "a": 1, "c": 3 }'),
        ({"c"}, b'{ "a": 1, "b": 2 }'),
        ({"a", "b"}, b'{ "c": 3 }'),
        ({"b", "c"}, b'{ "a": 1 }'),
        ({"a", "c"}, b'{ "b": 2 }'),
        ({"a", "b", "c"}, b"{  }"),
        ({"x"}, b'{ "a": 1, "b": 2, "c": 3 }'),
    ],
)
def test_fields_are_left_out_with_their_comma(without: set[str], left: bytes) -> None:
    assert b"".join(read(b'{ "a": 1, "b": 2, "c": 3 }').changed({}, without=without)) == left


@given(given=OBJECTS, data=st.data(), indent=st.sampled_from([None, 1]))
@settings(max_examples=examples(200))
def test_any_change_gives_the_object_that_it_says(
    given: dict[str, Any], data: st.DataObject, indent: int | None
) -> None:
    body = read(json.dumps(given, indent=indent).encode())
    without = data.draw(st.sets(st.sampled_from(sorted(given)))) if given else set[str]()
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(given)), st.integers())) if given else {}
    added = {name: 7 for name in ("new", "newer") if name not in given}
    pieces = body.changed(
        {name: (str(value).encode(),) for name, value in changes.items()},
        without=without,
        added=dict.fromkeys(added, b"7"),
    )
    wanted = {name: changes.get(name, value) for name, value in given.items() if name not in without} | added
    assert list(json.loads(b"".join(pieces)).items()) == list(wanted.items())


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"1", b"{", b'{"a":}', b'{"a":1}}', b"\xff"),
        *(b'{"a":"\xff"}', b'{"a":["\xed\xa0\x80"]}'),
        *(b'{"a":1,"a":1}', b'{"a":12,"a":1}', b'{"a":1,"a":12}', b'{"a":1,"\\u0061":2}'),
    ],
)
def test_what_is_no_object_or_no_text_or_names_a_field_twice_is_refused(text: bytes) -> None:
    """Readers take the first or the last of two: they must not disagree on what a request says."""
    problem = read_object(text)
    assert isinstance(problem, Problem)
    assert problem.code == "invalid_json"
