"""The names of lanes: the grammar, and how a frame is put into a lane."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from segue.protocol.events import in_lane
from segue.protocol.lanes import BOUNDS, DEFAULT_LANE, LaneBounds, read_stream_id, tag
from segue.protocol.problems import invalid_stream_id

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,256}", fullmatch=True)


def read(value: object) -> object:
    return read_stream_id(Raw(json.dumps(value).encode()))


@given(NAMES)
def test_a_name_of_the_grammar_is_a_lane(name: str) -> None:
    """As it is."""
    assert read(name) == name


@pytest.mark.parametrize(
    "value", ["", "a" * 257, "a b", "a/b", "é", "a\n", "a\u0000", "\u0661", 7, True, [], ["a"], {}]
)
def test_another_name_is_none(value: object) -> None:
    """Whatever it is."""
    assert read(value) == invalid_stream_id()


@pytest.mark.parametrize("raw", [b'"\xff"', b'"\\ud800"', b"[" * 900 + b"]" * 900])
def test_what_is_no_text_is_no_name(raw: bytes) -> None:
    """Nothing raises."""
    assert read_stream_id(Raw(raw)) == invalid_stream_id()


def test_null_names_the_default_lane() -> None:
    """As the SDK takes it."""
    assert read(None) == DEFAULT_LANE


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1), NAMES)
def test_a_frame_in_a_lane_has_one_field_more(fields: dict[str, str], name: str) -> None:
    """However the upstream ended its line; in the default lane it is as it was."""
    fields.pop("stream_id", None)
    data = json.dumps({"type": "x", **fields}).encode()
    assert json.loads(in_lane(data, tag(name))) == {"type": "x", **fields, "stream_id": name}
    assert in_lane(data + b" \r", tag(name)) == in_lane(data, tag(name))
    assert json.loads(in_lane(b'[1,"x"]', tag(name))) == [name, 1, "x"]
    assert in_lane(data, tag(DEFAULT_LANE)) is data


def test_the_profiles_have_the_bounds_of_those_they_follow() -> None:
    """32 names and 16 turns at once, or neither."""
    assert {"openai": LaneBounds(32, 16), "serial": LaneBounds(0, 1)} == BOUNDS
