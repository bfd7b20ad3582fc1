"""Samples of records: what a name stands for is always the same, and no two names stand for the same."""

from __future__ import annotations

from segue.testing.store_samples import ALICE, BOB, link_of, sample_id, sample_record


def test_a_name_stands_for_one_record() -> None:
    assert sample_record("a", "b") == sample_record("a", "b")
    assert len({sample_id("a"), sample_id("b")}) == 2
    one, other = sample_record("a"), sample_record("b")
    assert one.input != other.input
    assert (one.tenant, sample_record("a", tenant=BOB).tenant, one.parent_id) == (ALICE, BOB, None)
    assert sample_record("a", "b").parent_id == sample_id("b")


def test_items_have_the_ids_that_are_asked_for() -> None:
    record = sample_record("a", given=["in"], made=["out"])
    assert record.input_ids() == {"in"}
    assert record.output_ids() == {"out"}


def test_a_link_has_what_a_chain_shows_of_a_record() -> None:
    record = sample_record("a")
    link = link_of(record, alive=False)
    assert (link.id, link.input, link.output, link.calls, link.alive) == (
        record.id,
        record.input,
        record.output,
        record.calls,
        False,
    )
