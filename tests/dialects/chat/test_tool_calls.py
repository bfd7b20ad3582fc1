"""Which call a piece belongs to, whatever ids, indexes and names a server sends with it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.call_arguments import StreamedArguments
from segue.dialects.chat.tool_calls import CallAssembler, CallPiece, PendingCall


class Assembled(NamedTuple):
    """The calls by their keys, each with its id, name and arguments; and whether one has no name."""

    calls: list[tuple[str, str, str]]
    nameless: bool = False


def assembled(*pieces: CallPiece) -> Assembled:
    """Put pieces together as a reader does."""
    started: dict[int, StreamedArguments] = {}
    assembler = CallAssembler(started.__getitem__)
    names: dict[int, tuple[str, str]] = {}
    waiting: list[PendingCall] = []

    def add(call: PendingCall, text: str) -> None:
        arguments = started[call.key]
        if not arguments.pieces:
            text = arguments.first(text)
        if text:
            arguments.pieces.append(text)

    def start(call: PendingCall) -> None:
        names[call.key] = (call.id, call.name)
        started[call.key] = StreamedArguments()
        call.started = True
        add(call, "".join(call.early))

    for piece in pieces:
        call = assembler.find(piece)
        if call is None:
            continue
        if call.started:
            add(call, piece.arguments)
            continue
        call.early.append(piece.arguments)
        for one in [*(one for one in waiting if one is not call), *([call] if call.ready else [])]:
            start(one)
        waiting = [call] if call.name and not call.started else []
    for one in waiting:
        start(one)
    return Assembled(
        [(*names[key], "".join(started[key].pieces) or started[key].held()) for key in names], assembler.nameless
    )


def piece(index: int | None = None, ident: str = "", name: str = "", arguments: str = "") -> CallPiece:
    return CallPiece(index, ident, name, arguments)


ONE = Assembled([("a", "look", '{"n":1}')])


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "look", ""), piece(0, "", "", '{"n":'), piece(0, "", "", "1}")],
        [piece(0, "a", "look", ""), piece(0, "b", "", '{"n":'), piece(0, "c", "", "1}")],
        [piece(0, "a", "look", ""), piece(0, "b", "look", '{"n":'), piece(0, "c", "look", "1}")],
        [piece(0, "a", "look", ""), piece(0, "a", "look", '{"n":'), piece(0, "a", "look", "1}")],
        [piece(None, "a", "look", ""), piece(None, "a", "", '{"n":'), piece(None, "a", "", "1}")],
        [piece(None, "a", "look", ""), piece(None, "", "", '{"n":'), piece(None, "", "", "1}")],
        [piece(None, "a", "look", '{"n":'), piece(None, "b", "look", "1}")],
        [piece(0, "a", "look", ""), piece(1, "a", "", '{"n":'), piece(2, "a", "", "1}")],
        [piece(0, "a", "look", "{}"), piece(0, "", "", '{"n":1}')],
        [piece(0, "a", "look", "{}"), piece(0, "b", "", '{"n":1}')],
        [piece(0, "a", "lo"), piece(0, "a", "ok"), piece(0, "a", "", '{"n":1}')],
        [piece(0, "a", "lo"), piece(0, "", "ok", '{"n":1}')],
        [
            piece(0, "a", "l"),
            piece(0, "a", "oo"),
            piece(0, "", "k"),
            piece(0, "a", "look"),
            piece(0, "", "", '{"n":1}'),
        ],
        [piece(0, "a", "look"), piece(0), piece(0, "a", "look"), piece(0, "", "", '{"n":1}')],
        [piece(0, "a", "look", "null"), piece(0, "", "", '{"n":1}')],
        [piece(0, "a", "look", "null"), piece(0, "", "", "{}"), piece(0, "", "", '{"n":1}')],
        [piece(0, "a", "look", "{}"), piece(0, "", "", "null"), piece(0, "", "", '{"n":1}')],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "", "", "null"), piece(1, "", "", "null")],
        [piece(0, "a", "look", '{"n":1}'), piece(1)],
        [piece(0, "a", "look", '{"n":1}'), piece(1, "", "", "{}")],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "", "", "{}"), piece(0)],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "a", "look", '{"n":1}')],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "b", "", '{"n":1}')],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "b", "", ""), piece(0, "a", "look", "")],
        [piece(0, "", "", '{"n":'), piece(0, "a"), piece(0, "", "look", "1}")],
    ],
)
def test_pieces_of_one_call(pieces: list[CallPiece]) -> None:
    assert assembled(*pieces) == ONE


def test_a_name_that_is_said_again_without_an_id_goes_on_with_its_call() -> None:
    pieces = [piece(None, "a", "look", '{"n":'), piece(None, "", "look", '{"m":1}}')]
    assert assembled(*pieces) == Assembled([("a", "look", '{"n":{"m":1}}')])


TWO = Assembled([("a", "look", '{"n":1}'), ("b", "look", '{"n":2}')])


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "look", '{"n":1}'), piece(1, "b", "look", '{"n":2}')],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "b", "look", '{"n":2}')],
        [piece(0, "a", "look", ""), piece(0, "a", "", '{"n":1}'), piece(0, "b", "look"), piece(0, "b", "", '{"n":2}')],
        [piece(None, "a", "look", '{"n":1}'), piece(None, "b", "look", '{"n":2}')],
        [piece(i, k, n, t) for t in ("", '{"n":') for i, k, n in ((0, "a", "look"), (1, "b", "look"))]
        + [piece(0, "", "", "1}"), piece(1, "", "", "2}")],
        [
            piece(None, "a", "look"),
            piece(None, "b", "look"),
            piece(None, "a", "", '{"n":'),
            piece(None, "b", "", '{"n":'),
            piece(None, "a", "", "1}"),
            piece(None, "b", "", "2}"),
        ],
        [piece(0, "a", "look"), piece(0, "b", "look"), piece(0, "a", "", '{"n":1}'), piece(0, "b", "", '{"n":2}')],
        [piece(None, "a", "look", '{"n":'), piece(None, "b", "look", '{"n":2}'), piece(None, "a", "", "1}")],
    ],
)
def test_pieces_of_two_calls(pieces: list[CallPiece]) -> None:
    assert assembled(*pieces) == TWO


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # Without ids, and with one for all.
        ([piece(0, "", "look", '{"n":1}'), piece(0, "", "look", '{"n":2}')], [("", '{"n":1}'), ("", '{"n":2}')]),
        ([piece(None, "", "look", '{"n":1}'), piece(None, "", "look", "[]")], [("", '{"n":1}'), ("", "[]")]),
        ([piece(None, "", "look", '{"n":1}'), piece(None, "", "look", '{"n":1}')], [("", '{"n":1}'), ("", '{"n":1}')]),
        ([piece(0, "", "look", '{"n":1}'), piece(0, "", "look", '{"n":1}')], [("", '{"n":1}'), ("", '{"n":1}')]),
        ([piece(0, "", "look", "{}"), piece(0, "", "look", "{}")], [("", "{}"), ("", "{}")]),
        ([piece(None, "", "look", "{}"), piece(None, "", "look", "null")], [("", "{}"), ("", "null")]),
        ([piece(0, "c", "look", '{"n":1}'), piece(0, "c", "look", '{"n":2}')], [("c", '{"n":1}'), ("c", '{"n":2}')]),
        (
            [piece(0, "c", "look"), piece(1, "c", "look"), piece(0, "c", "", '{"n":1}'), piece(1, "c", "", "{}")],
            [("c", '{"n":1}'), ("c", "{}")],
        ),
        # What is whole and was meant.
        ([piece(0, "a", "look", "{}"), piece(0, "b", "look", "{}")], [("a", "{}"), ("b", "{}")]),
        ([piece(0, "a", "look", "{}"), piece(0, "b", "look", "[]")], [("a", "{}"), ("b", "[]")]),
    ],
)
def test_calls_that_their_arguments_tell_apart(pieces: list[CallPiece], calls: list[tuple[str, str]]) -> None:
    assert assembled(*pieces) == Assembled([(ident, "look", text) for ident, text in calls])


@pytest.mark.parametrize(
    ("index", "one", "two"),
    [
        *((0, "a", "b"), (0, "", "b"), (0, "", "")),
        *((None, "a", "b"), (None, "a", ""), (None, "", "b"), (None, "a", "a"), (None, "", "")),
    ],
)
def test_another_name_is_another_call(index: int | None, one: str, two: str) -> None:
    got = assembled(piece(index, one, "look", ""), piece(index, two, "read", "[]"))
    assert got == Assembled([(one, "look", ""), (two, "read", "[]")])


@pytest.mark.parametrize("two", ["a", "b", ""])
@pytest.mark.parametrize("index", [0, None])
def test_another_name_after_arguments_is_another_call(index: int | None, two: str) -> None:
    got = assembled(piece(index, "a", "look", "{}"), piece(index, two, "read", "[]"))
    assert got == Assembled([("a", "look", "{}"), (two, "read", "[]")])


def test_another_name_of_another_index_is_another_call() -> None:
    got = assembled(piece(0, "a", "look"), piece(1, "a", "read"))
    assert got == Assembled([("a", "look", ""), ("a", "read", "")])


def test_null_among_arguments_is_a_part_of_them() -> None:
    got = assembled(piece(0, "a", "look", '{"n":'), piece(0, "", "", "null"), piece(0, "", "", "}"))
    assert got == Assembled([("a", "look", '{"n":null}')])


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "", '{"n":1}')],
        [piece(0, "a")],
        [piece(0, "", "", '{"n":1}')],
        [piece(0, "a", "look", '{"n":1}'), piece(0, "b", "", '{"n":2}')],
    ],
)
def test_a_call_that_gets_no_name_is_noticed(pieces: list[CallPiece]) -> None:
    assert assembled(*pieces).nameless


@given(
    made=st.lists(st.tuples(st.sampled_from(["look", "read"]), st.integers(0, 99)), min_size=1, max_size=4),
    data=st.data(),
)
def test_calls_with_ids_and_indexes_are_put_together_however_they_are_mixed(
    made: list[tuple[str, int]], data: st.DataObject
) -> None:
    """As OpenAI sends them: in the order of their indexes at first, and then any piece of any call."""
    texts = [f'{{"n":"{number}"}}' for _, number in made]
    heads = [piece(index, f"call_{index}", name) for index, (name, _) in enumerate(made)]
    rest = data.draw(st.permutations([index for index, text in enumerate(texts) for _ in text]))
    letters = [iter(text) for text in texts]
    got = assembled(*heads, *(piece(index, "", "", next(letters[index])) for index in rest))
    wanted = [(f"call_{index}", name, text) for index, ((name, _), text) in enumerate(zip(made, texts, strict=True))]
    assert got == Assembled(wanted)
