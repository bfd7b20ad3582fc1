"""Where a conversation is: at home, and elsewhere only while its home is out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.upstreams.conversation_key import ConversationKey
from segue.upstreams.placement import Instance, MovedConversations, digest_of, home, rank
from tests.strategies import examples

CONVERSATIONS = [number.to_bytes(4, "big") for number in range(2000)]
instances = st.lists(
    st.builds(
        Instance,
        name=st.text(max_size=5),
        weight=st.integers(1, 1000),
        backup=st.booleans(),
        out=st.booleans(),
        full=st.booleans(),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda one: one.name,
)


def first(of: list[Instance], conversation: bytes, held_by: str | None = None, *, new: bool = False) -> str:
    return rank(of, conversation, held_by=held_by, new=new)[0].name


@settings(max_examples=examples(300))
@given(instances, st.binary(max_size=32), st.booleans(), st.text(max_size=5))
def test_every_instance_has_its_place_in_the_order(
    of: list[Instance], conversation: bytes, new: bool, held_by: str
) -> None:
    """Those that are out at the end; a backup before others only if it has the conversation."""
    ranked = rank(of, conversation, held_by=held_by, new=new)
    assert sorted(one.name for one in ranked) == sorted(one.name for one in of)
    assert [one.out for one in ranked] == sorted(one.out for one in ranked)
    others = [one for one in ranked if not one.out and one.name != held_by]
    assert [one.backup for one in others] == sorted(one.backup for one in others)
    assert rank(list(reversed(of)), conversation, held_by=held_by, new=new) == ranked, "the order in the file is none"


@settings(max_examples=examples(300))
@given(instances, st.binary(max_size=32))
def test_a_conversation_leaves_its_instance_only_if_that_is_out(of: list[Instance], conversation: bytes) -> None:
    """It stays where it has moved to when its home is back; without a move it is at home."""
    usable = [replace(one, out=False, full=False) for one in of]
    assert first(usable, conversation) == home(usable, conversation)
    for one in of:
        if not one.out:
            assert first(of, conversation, one.name) == one.name
    gone = home(usable, conversation)
    rest = [replace(one, out=one.name == gone) for one in usable]
    if len(of) > 1:
        assert first(rest, conversation) == first([one for one in usable if one.name != gone], conversation)


def test_shares_follow_the_weights() -> None:
    """And an instance that is added takes only its own share."""
    of = [Instance("a", 1), Instance("b", 3), Instance("spare", 100, backup=True)]
    before = {one: first(of, one) for one in CONVERSATIONS}
    counts = Counter(before.values())
    assert counts["b"] == pytest.approx(1500, abs=100)
    assert counts["spare"] == 0
    after = {one: first([*of, Instance("c", 4)], one) for one in CONVERSATIONS}
    moved = [one for one in CONVERSATIONS if after[one] != before[one]]
    assert {after[one] for one in moved} == {"c"}
    assert len(moved) == pytest.approx(1000, abs=100)


def test_a_new_conversation_passes_an_instance_without_a_place() -> None:
    """One that goes on waits: what its instance has cached is worth it."""
    of = [Instance("a", full=True), Instance("b")]
    at_a = next(one for one in CONVERSATIONS if home(of, one) == "a")
    assert (first(of, at_a, new=True), first(of, at_a)) == ("b", "a")
    assert first([replace(one, full=True) for one in of], at_a, new=True) == "a"
    assert first([Instance("a", full=True), Instance("b", backup=True)], at_a, new=True) == "a", (
        "backups are for outages"
    )


def test_all_turns_of_a_conversation_have_one_digest() -> None:
    """By the chain, or where the client sends all again by its beginning; and no other tenant has it."""
    one, other = ConversationKey("ann", "c"), ConversationKey("ann", "c", b"start", replayed=False)
    assert digest_of(one) == digest_of(other)
    replayed = [ConversationKey("ann", chain, b"start", replayed=True) for chain in ("c", "d")]
    assert digest_of(replayed[0]) == digest_of(replayed[1]) != digest_of(one)
    assert digest_of(ConversationKey("bob", "c")) != digest_of(one)
    assert digest_of(ConversationKey("\ud800", "c"))


def test_moves_are_remembered_of_the_latest_conversations() -> None:
    moved = MovedConversations(most=2)
    for one in (b"1", b"2"):
        moved.note("g", one, "a", at_home=False)
    assert (moved.find("g", b"1"), moved.find("other", b"1")) == ("a", None)
    moved.note("g", b"3", "a", at_home=False)
    assert [moved.find("g", one) for one in (b"1", b"2", b"3")] == ["a", None, "a"]
    moved.note("g", b"3", "a", at_home=True)
    moved.note("g", b"4", "a", at_home=True)
    assert [moved.find("g", one) for one in (b"3", b"4")] == [None, None]
