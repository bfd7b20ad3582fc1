"""The sentences about what was left out of a history."""

from __future__ import annotations

import pytest

from segue.dialects.loss_warnings import (
    BARE_REASONING,
    FOREIGN_REASONING,
    field_left_out,
    in_place_of,
    item_left_out,
    part_left_out,
    reasoning_left_out,
)
from segue.protocol.item_types import ContentPart, ReasoningItem


def test_reasoning_is_of_another_provider_or_without_what_was_encrypted() -> None:
    assert reasoning_left_out(ReasoningItem(encrypted_content="x")) == FOREIGN_REASONING
    assert reasoning_left_out(ReasoningItem(encrypted_content="")) == BARE_REASONING
    assert reasoning_left_out(ReasoningItem()) == BARE_REASONING


def test_items_and_fields_are_named() -> None:
    assert item_left_out("x") == "Items of type 'x' were left out: this API has nothing like them."
    assert field_left_out("y", "x") == "'y' of items of type 'x' was left out: this API has nothing like it."


@pytest.mark.parametrize(
    ("part", "described"),
    [
        (ContentPart("input_image", image_url="u", file_id="f"), "of type 'input_image' with image_url"),
        (ContentPart("input_image", file_id="f", file_url="u"), "of type 'input_image' with file_id"),
        (ContentPart("input_file", file_url="u"), "of type 'input_file' with file_url"),
        (ContentPart("input_audio"), "of type 'input_audio'"),
    ],
)
def test_parts_are_described_by_where_their_content_is(part: ContentPart, described: str) -> None:
    assert part_left_out(part) == (
        f"Parts {described} were left out: this API cannot take them. A note stands in their place."
    )


def test_the_note_for_the_model_is_short_whatever_the_part_says() -> None:
    assert in_place_of(ContentPart("input_file", filename="a.pdf")) == (
        "[a part of type input_file 'a.pdf' stood here and could not be passed on]"
    )
    assert in_place_of(ContentPart("x" * 50)) == f"[a part of type {'x' * 40} stood here and could not be passed on]"
    assert len(in_place_of(ContentPart("x", filename="y" * 5000))) < 200
