"""Arguments of calls in pieces: placeholders, and whether they are whole."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.call_arguments import BracketScanner, StreamedArguments
from tests.strategies import json_values


@pytest.mark.parametrize(
    ("pieces", "sent", "rest"),
    [
        (["{}"], "", "{}"),
        (["{}", '{"a":1}'], '{"a":1}', ""),
        ([" {} ", ' {"a":1}'], ' {"a":1}', ""),
        (["{}", "", " "], "", "{} "),
        (["{}", "{}"], "", "{}"),
        (["", '{"a":'], '{"a":', ""),
        (["{}", "x"], "{}x", ""),
        ([" " * 20, "{}"], " " * 20, ""),
    ],
)
def test_a_placeholder_waits_for_what_follows(pieces: list[str], sent: str, rest: str) -> None:
    arguments = StreamedArguments()
    got = ""
    for piece in pieces:
        if got:
            break  # only the beginning is held back
        got = arguments.first(piece)
    assert (got, arguments.held(), arguments.held()) == (sent, rest, "")


def test_the_state_follows_the_pieces() -> None:
    arguments = StreamedArguments()
    assert arguments.state() == "none"
    arguments.first("{}")
    assert arguments.state() == "placeholder"
    arguments.pieces.append('{"a":"}')
    assert arguments.state() == "partial"
    arguments.pieces += ['"', "}"]
    assert arguments.state() == "whole"
    assert arguments.state() == "whole"


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", False),
        ("  ", False),
        ("{", False),
        ('{"a":"}"', False),
        ('{"a":"\\"}', False),
        ('{"a":"\\\\"}', True),
        ("[{}]", True),
        ("[{}", False),
        ("*** Begin {", True),
        ('"a', True),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_end_of_json_is_found_however_it_is_cut(text: str, size: int, *, whole: bool) -> None:
    scanner = BracketScanner()
    for at in range(0, len(text), size):
        scanner.feed(text[at : at + size])
    assert scanner.whole is whole


@given(value=st.dictionaries(st.text(max_size=3), json_values, max_size=3), cuts=st.lists(st.integers(0, 60)))
def test_an_object_is_whole_at_its_end_and_not_before(value: dict[str, object], cuts: list[int]) -> None:
    text = json.dumps(value)
    places = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    scanner = BracketScanner()
    for one, two in itertools.pairwise(places):
        assert not scanner.whole
        scanner.feed(text[one:two])
    assert scanner.whole
