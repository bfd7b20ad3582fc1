"""Ids: their format, what a child inherits, and what is no id of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.protocol.ids import (
    ENTROPY_BYTES,
    ResponseId,
    chain_tag,
    derived_item_id,
    item_id,
    new_response_id,
    parse_item_id,
    parse_response_id,
)
from tests.strategies import any_text

entropies = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)
ROOT = new_response_id(bytes(range(20)))


def test_a_root_is_named_by_its_entropy() -> None:
    """The tag is the first four bytes, the rest is the id's own."""
    assert ROOT == "resp_" + "00010203" + "0405060708090a0b0c0d0e0f10111213"


def test_a_child_inherits_the_tag_of_its_root_and_nothing_else() -> None:
    """Only the 128 bits of its own come from its entropy."""
    assert new_response_id(b"\xff" * 20, ROOT) == "resp_" + "00010203" + "ff" * 16


@given(st.lists(entropies, min_size=1, max_size=5))
def test_every_id_of_a_chain_has_the_format_and_the_root_tag(drawn: list[bytes]) -> None:
    """Whatever the entropy and the depth, an id can be parsed back and is kept on its root's shard."""
    parent: ResponseId | None = None
    for entropy in drawn:
        parent = new_response_id(entropy, parent)
        assert parse_response_id(parent) == parent
        assert parent[5:13] == chain_tag(parent) == drawn[0][:4].hex()


@pytest.mark.parametrize("size", [0, ENTROPY_BYTES - 1, ENTROPY_BYTES + 1])
def test_the_wrong_amount_of_entropy_is_a_mistake_of_the_caller(size: int) -> None:
    """An id with fewer random bits could be guessed."""
    with pytest.raises(AssertionError, match="20 bytes of entropy"):
        new_response_id(bytes(size))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resp_",
        ROOT[:-1],
        ROOT + "0",
        ROOT + "\n",
        " " + ROOT,
        ROOT.upper(),
        ROOT.replace("resp_", "conv_"),
        ROOT.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
        ROOT.replace("0", "g"),
        "\ud800",
    ],
)
def test_what_has_not_the_format_is_no_id(text: str) -> None:
    """Such a text is never looked up."""
    assert parse_response_id(text) is None


@given(any_text)
def test_parsing_an_id_never_raises(text: str) -> None:
    """An id comes from a client."""
    assert parse_response_id(text) in {None, text}


def test_an_item_id_is_derived_from_its_response_and_index() -> None:
    """The same item has the same id whenever it is listed."""
    assert item_id("msg", ROOT, 26) == "msg_000102030405060708090a0b0c0d0e0f10111213" + "001a"


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("message", "msg"),
        ("function_call", "fc"),
        ("function_call_output", "fco"),
        ("custom_tool_call", "ctc"),
        ("custom_tool_call_output", "ctco"),
        ("reasoning", "rs"),
        ("item_of_next_year", "item"),
    ],
)
def test_a_derived_id_begins_as_clients_expect_of_its_type(kind: str, prefix: str) -> None:
    assert derived_item_id(kind, ROOT, 26) == item_id(prefix, ROOT, 26)


@given(st.sampled_from(["message", "custom_tool_call_output", "x"]), entropies, st.integers(0, 2**32 - 1))
def test_the_response_of_an_item_is_read_out_of_its_id(kind: str, entropy: bytes, number: int) -> None:
    """So that nothing has to be stored to find it."""
    response_id = new_response_id(entropy, ROOT)
    assert parse_item_id(derived_item_id(kind, response_id, number)) == response_id


ITEM = item_id("msg", ROOT, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "msg_1",
        ROOT,
        ITEM[:-1],
        ITEM + "\n",
        ITEM + "00000",
        ITEM.upper(),
        ITEM.replace("msg_", "_"),
        ITEM.replace("msg_", "msg"),
        ITEM.replace("msg_", "mmmmmmmmm_"),
        ITEM.replace("msg_", "m1_"),
        ITEM.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    ],
)
def test_an_id_that_somebody_else_made_names_no_response(text: str) -> None:
    assert parse_item_id(text) is None


@given(any_text)
def test_parsing_the_id_of_an_item_never_raises(text: str) -> None:
    """An id comes from a client."""
    parse_item_id(text)


@given(st.sets(st.integers(0, 2**20), min_size=2, max_size=5))
def test_item_ids_of_one_response_differ(indexes: set[int]) -> None:
    """However many items a response has."""
    assert len({item_id("msg", ROOT, index) for index in indexes}) == len(indexes)
