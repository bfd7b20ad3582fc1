"""The parameters of the statement that writes rows."""

from __future__ import annotations

import msgspec

from segue.stores.postgres.arrays import PackedArray
from segue.stores.postgres.new_rows import (
    WRITE,
    WRITE_TO_CONVERSATION,
    ConversationPointer,
    parameters,
    row_of,
    row_of_step,
)
from segue.testing.store_samples import ALICE, NOW, sample_conversation_id, sample_record, sample_step

ENTROPY = bytes(range(32))


def test_a_statement_has_a_parameter_for_each_column() -> None:
    row = row_of(sample_record("root"))
    pointer = ConversationPointer(sample_conversation_id("talk"), None)
    assert WRITE.count(b"%b") == len(parameters([row, row], ENTROPY))
    assert WRITE_TO_CONVERSATION.count(b"%b") == len(parameters([row], ENTROPY, pointer))


def test_an_item_is_one_that_was_made_or_one_that_was_given() -> None:
    """One that is both is one that was made."""
    record = sample_record("root", given=["in", "both"], made=["out", "both"])
    numbers, idents, made = parameters([row_of(record)], ENTROPY)[-3:]
    assert isinstance(idents, PackedArray)
    assert sorted(ident for ident in (b"in", b"out", b"both") if ident in idents.data) == [b"both", b"in", b"out"]
    assert isinstance(numbers, PackedArray)
    assert isinstance(made, PackedArray)
    assert len(numbers.data) == len(made.data) == 20 + 3 * 8


def test_a_step_has_neither_settings_nor_a_head() -> None:
    row = row_of_step(ALICE, sample_step("step", "root"), NOW)
    assert (row.digest, row.settings, row.head, row.output) == (None, None, None, b"[]")
    assert row.expires_at == float("inf")


def test_a_row_counts_what_it_takes_in_a_queue() -> None:
    record = sample_record("root")
    assert abs(row_of(record).size_bytes - record.size_bytes) < 64


def test_segments_of_one_moment_are_near_each_other() -> None:
    """The first bytes tell the time, the others are random: any time has room in them."""
    for at in (0.0, NOW, 1e12):
        row = msgspec.structs.replace(row_of(sample_record("root")), created_at=at)
        segments = parameters([row, row], ENTROPY)[3]
        assert isinstance(segments, PackedArray)
        first, second = segments.data[24:40], segments.data[44:60]
        assert first[:6] == second[:6] == (int(at * 1000) % 2**48).to_bytes(6)
        assert (first[6:], second[6:]) == (ENTROPY[:10], ENTROPY[16:26])
