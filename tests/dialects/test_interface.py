"""A rendered body is pieces, so that adding to its end copies none of the history."""

from __future__ import annotations

import json

import pytest

from segue.dialects.interface import Rendered
from tests.dialects.conversations import DIALECTS, USER, encode_items, render, replay


@pytest.mark.parametrize("name", DIALECTS)
def test_fields_are_added_without_copying_the_history(name: str) -> None:
    """To every piece but the last, which is short."""
    rendered = render(DIALECTS[name], replay(encode_items([USER | {"content": "x" * 5000}])))
    more = rendered.with_fields({"id_slot": 2, "a": "b"})
    assert json.loads(more.body) == json.loads(rendered.body) | {"id_slot": 2, "a": "b"}
    assert all(one is other for one, other in zip(more.pieces[:-1], rendered.pieces[:-1], strict=True))
    assert len(more.pieces[-1]) < 60


def test_a_body_is_its_pieces_one_after_the_other() -> None:
    assert Rendered((b'{"a":', b"1", b"}")).body == b'{"a":1}'
    assert Rendered((b"{", b'"a":1}'), ("lost",)).with_fields({"b": 2}) == Rendered((b"{", b'"a":1,"b":2}'), ("lost",))
