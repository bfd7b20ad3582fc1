"""Names that an upstream gave its replies: each used once at a time, for a while, and never more than so many."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.upstreams.continuation import ContinuationCounts, ContinuationTable
from tests.strategies import examples

ONE, TWO, THREE = (new_response_id(bytes([number]) * ENTROPY_BYTES) for number in range(3))


def table(max_names: int = 100) -> ContinuationTable[str]:
    return ContinuationTable(10.0, max_names=max_names)


def test_a_name_is_taken_once_and_comes_back_if_its_turn_came_to_nothing() -> None:
    names = table()
    names.keep("ann", ONE, "msg_1", used_at=0.0)
    assert names.take("ann", ONE, now=9.9) == "msg_1"
    assert names.take("ann", ONE, now=9.9) == "unknown"
    names.keep("ann", ONE, "msg_1", used_at=0.0)
    assert names.take("ann", ONE, now=10.0) == "expired"
    assert len(names) == 0


def test_a_name_belongs_to_its_tenant() -> None:
    names = table()
    names.keep("ann", ONE, "msg_1", used_at=0.0)
    assert names.take("bob", ONE, now=0.0) == "unknown"
    names.forget("bob", [ONE])
    names.forget_tenant("bob")
    assert names.take("ann", ONE, now=0.0) == "msg_1"


def test_what_is_gone_is_forgotten() -> None:
    names = table()
    for number, one in enumerate((ONE, TWO, THREE)):
        names.keep("ann", one, f"msg_{number}", used_at=0.0)
    names.forget("ann", [ONE, ONE])
    names.forget_where(lambda name: name == "msg_1")
    assert [names.take("ann", one, now=0.0) for one in (ONE, TWO)] == ["unknown", "unknown"]
    names.forget_tenant("ann")
    assert (len(names), names.take("ann", THREE, now=0.0)) == (0, "unknown")


def test_old_names_make_room_when_a_new_one_comes() -> None:
    names = table()
    names.keep("ann", ONE, "msg_1", used_at=0.0)
    names.keep("ann", TWO, "msg_2", used_at=5.0)
    names.keep("ann", THREE, "msg_3", used_at=10.0)
    assert len(names) == 2


def test_the_tenant_that_has_most_loses_its_oldest() -> None:
    names = table(2)
    names.keep("bob", ONE, "msg_b", used_at=0.0)
    names.keep("ann", ONE, "msg_1", used_at=1.0)
    names.keep("ann", TWO, "msg_2", used_at=2.0)
    assert [names.take(tenant, one, now=2.0) for tenant, one in (("bob", ONE), ("ann", ONE), ("ann", TWO))] == [
        "msg_b",
        "unknown",
        "msg_2",
    ]


@settings(max_examples=examples(500))
@given(st.lists(st.tuples(st.sampled_from(["keep", "take", "forget"]), st.sampled_from("ab"), st.integers(0, 5))))
def test_it_holds_no_more_than_it_may_and_counts_right(steps: list[tuple[str, str, int]]) -> None:
    names, held = table(3), set[tuple[str, ResponseId]]()
    for what, tenant, number in steps:
        response_id = new_response_id(bytes([number]) * ENTROPY_BYTES)
        if what == "keep":
            names.keep(tenant, response_id, "msg", used_at=0.0)
            held.add((tenant, response_id))
        elif what == "take":
            was_there = names.take(tenant, response_id, now=0.0) == "msg"
            assert not was_there or (tenant, response_id) in held
            held.discard((tenant, response_id))
        else:
            names.forget(tenant, [response_id])
            held.discard((tenant, response_id))
        assert len(names) <= min(3, len(held))


def test_hits_and_bytes_are_counted() -> None:
    counts = ContinuationCounts()
    counts.note_hit(100)
    counts.note_hit(-1)
    counts.replays["expired"] += 1
    assert (counts.hits, counts.saved_bytes, counts.replays["expired"]) == (2, 100, 1)
