"""What a model sees of a history after a compaction, and that deltas and replays see the same."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.history.chains import CompactedTurn, History, Turn, lineage, path
from segue.history.compaction import (
    IMAGE_TOKENS,
    Compacted,
    NewestCompaction,
    compact,
    estimate_saving,
    estimate_tokens,
    find_newest,
    stand_in_of,
    summary_message,
)
from segue.protocol.items import Item
from segue.testing.store_conformance import sample_id
from tests.strategies import examples

BUDGET = 10_000


def item(**fields: object) -> Item:
    return json.dumps(fields).encode()


def said(role: str, text: str) -> Item:
    return item(role=role, content=text)


def compaction(number: int = 1, kind: str = "compaction") -> Item:
    return item(type=kind, id=f"cmp_{number}", encrypted_content=f"sealed {number}")


def summary(number: int = 1) -> Item:
    return summary_message("Summary:", str(number))


CALL = item(type="function_call", call_id="c", name="f", arguments="{}")
OUTPUT = item(type="function_call_output", call_id="c", output="1")
REASONING = item(type="reasoning", id="rs_1", summary=[], content=[{"type": "reasoning_text", "text": '"compaction'}])


def turn(
    name: str, parent: Turn | None, *, given: Sequence[Item], answer: Sequence[Item] = (), budget: int = BUDGET
) -> Turn:
    """A finished turn; if an item stands for what was before it, the turn is compacted as the gateway does it."""
    made = Turn(
        id=sample_id(name), parent=parent, input=tuple(given), output=tuple(answer), calls=frozenset(), stored=True
    )
    newest = find_newest((*given, *answer))
    if newest is not None:
        number = int(newest.sealed.split()[1])
        made.stand_in(stand_in_of(made, newest.place, summary=summary(number), budget_bytes=budget))
    return made


def seen(parent: Turn | None, new: Sequence[Item] = ()) -> list[Item]:
    return list(History(parent, tuple(new)).items())


# --- one compaction --------------------------------------------------------------------------------------------------


def test_the_newest_compaction_is_found() -> None:
    items = [compaction(1), REASONING, compaction(2, "compaction_summary"), said("user", "hi"), REASONING]
    assert find_newest(items) == NewestCompaction(2, "sealed 2")
    assert find_newest(items[:2]) == NewestCompaction(0, "sealed 1")
    assert find_newest([REASONING, CALL]) is None
    assert find_newest([item(type="compaction", encrypted_content=7)]) == NewestCompaction(0, "")
    assert find_newest([]) is None


def test_messages_that_are_not_the_models_stay_and_the_rest_becomes_the_summary() -> None:
    before = [said("developer", "d"), said("user", "u1"), said("assistant", "a"), REASONING, CALL, OUTPUT]
    items = [*before, item(type="message", role="system", content="s"), compaction(), said("user", "u2"), CALL]
    found = compact(None, items, 7, summary=summary(), budget_bytes=BUDGET)
    assert found == Compacted((items[0], items[1], items[6]), summary(), (items[8], items[9]))
    assert found.items == (items[0], items[1], items[6], summary(), items[8], items[9])


@pytest.mark.parametrize(("budget", "kept"), [(0, 1), (29, 1), (30, 1), (59, 1), (60, 2), (95, 2), (1000, 3)])
def test_the_newest_messages_within_the_budget_stay(budget: int, kept: int) -> None:
    """One that is too long is left out with all before it, so that what stays has no gap; but the user's last one."""
    items = [b'{"role":"user","content":"%s"}' % (b"x" * size) for size in (12, 2, 2)]
    assert [len(one) for one in items] == [40, 30, 30]
    found = compact(None, [*items, compaction()], 3, summary=summary(), budget_bytes=budget)
    assert found.retained == tuple(items[3 - kept :])


def image(size: int) -> Item:
    url = "data:image/png;base64," + "A" * size
    return item(role="user", content=[{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "?"}])


def test_an_image_counts_as_what_a_model_makes_of_it() -> None:
    """However large its data are: a photo costs a model about as much as a page of text."""
    small = item(role="user", content=[{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}])
    assert estimate_tokens([small]) == len(small) // 4
    assert IMAGE_TOKENS < estimate_tokens([image(4_000_000)]) < IMAGE_TOKENS + 50
    two = item(role="user", content=[{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 90_000}] * 2)
    assert 2 * IMAGE_TOKENS < estimate_tokens([two]) < 2 * IMAGE_TOKENS + 100
    assert estimate_tokens([b'"data:image/' + b"x" * 40_000]) < IMAGE_TOKENS + 10, "whatever it is"
    photo, budget = image(1_000_000), 4 * (IMAGE_TOKENS + 100)
    assert compact(None, (said("user", "old"), photo), 2, summary=summary(), budget_bytes=budget).retained[-1] == photo


def test_the_users_last_message_stays_whatever_it_has() -> None:
    """Else a model would be asked nothing. What is older has no place then."""
    question = said("user", "x" * 50_000)
    items = [said("user", "older"), question, said("developer", "y")]
    assert compact(None, items, 3, summary=summary(), budget_bytes=1000).retained == (question, items[2])
    assert compact(None, items[:1], 1, summary=summary(), budget_bytes=1).retained == (items[0],)


def test_a_model_sees_what_stands_in_for_a_turn_and_the_store_keeps_all() -> None:
    first = turn("a", None, given=[said("user", "u1")], answer=[said("assistant", "a1"), CALL])
    second = turn("b", first, given=[OUTPUT], answer=[compaction(), said("assistant", "a2")])
    third = turn("c", second, given=[said("user", "u2")], answer=[said("assistant", "a3")])
    wanted = [said("user", "u1"), summary(), said("assistant", "a2"), said("user", "u2"), said("assistant", "a3")]
    assert seen(third) == wanted
    assert path(third) == [second.compacted, third]
    assert lineage(third) == [first, second, third]
    assert isinstance(second.compacted, CompactedTurn)
    assert (second.compacted.id, second.compacted.parent) == (second.id, None)
    assert seen(first) == [*first.input, *first.output], "a fork of what was before sees all of it"


def test_a_second_compaction_replaces_the_first() -> None:
    first = turn("a", None, given=[said("user", "u1")], answer=[compaction(1)])
    second = turn("b", first, given=[said("user", "u2"), CALL, OUTPUT], answer=[compaction(2), said("assistant", "a")])
    assert seen(second) == [said("user", "u1"), said("user", "u2"), summary(2), said("assistant", "a")]


def test_a_call_that_a_summary_tells_of_cannot_be_answered() -> None:
    """No provider takes an output without its call."""
    first = turn("a", None, given=[said("user", "u")], answer=[CALL])
    first.calls = frozenset({"c"})
    second = turn("b", first, given=[OUTPUT], answer=[compaction(), CALL.replace(b'"c"', b'"d"')])
    second.calls = frozenset({"d"})
    assert History(first, ()).find_orphan([("c", 0)]) is None
    assert History(second, ()).find_orphan([("d", 0), ("c", 1)]) == ("c", 1)


def test_the_memory_of_what_stands_in_is_counted_with_its_turn() -> None:
    before = turn("a", None, given=[said("user", "u")], answer=[said("assistant", "x" * 500)])
    plain = Turn(
        id=sample_id("b"), parent=before, input=(), output=(compaction(),), calls=frozenset(), stored=True
    ).size_bytes
    compacted = turn("b", before, given=[], answer=[compaction()])
    assert len(summary()) < compacted.size_bytes - plain < 3000
    with pytest.raises(AssertionError):
        compacted.stand_in(stand_in_of(compacted, 0, summary=summary(), budget_bytes=BUDGET))


# --- whether to -------------------------------------------------------------------------------------------------------


def test_what_a_compaction_would_leave_out_is_all_but_messages_and_summaries() -> None:
    user, answer = said("user", "u" * 80), said("assistant", "a" * 40)
    assert estimate_saving([user, said("developer", "d" * 80), summary()]) == 0
    assert estimate_saving([user, CALL, answer]) == len(CALL + answer) // 4
    spoken = turn("a", None, given=[user, CALL], answer=[OUTPUT])
    done = turn("b", spoken, given=[user], answer=[compaction()])
    assert estimate_saving(seen(done, [user])) == 0, "nothing has come since"
    assert estimate_saving(seen(turn("c", done, given=[user], answer=[answer]), [user])) == len(answer) // 4


def test_tokens_are_estimated_by_bytes() -> None:
    assert estimate_tokens([b"1234", b"12345678"]) == 3
    assert estimate_tokens([]) == 0


# --- deltas and replays ----------------------------------------------------------------------------------------------

_items = st.sampled_from(
    [
        *(said(role, text) for role in ("user", "developer", "system", "assistant") for text in ("x", "long " * 8)),
        *(CALL, OUTPUT, REASONING, compaction(1), compaction(2), compaction(3)),
    ]
)
_turns = st.lists(st.tuples(st.lists(_items, max_size=4), st.lists(_items, max_size=3)), max_size=6)


@given(turns=_turns, new=st.lists(_items, max_size=4), budget=st.sampled_from([0, 100, BUDGET]))
@settings(max_examples=examples(1000))
def test_a_client_that_replays_all_has_the_model_see_what_a_chain_does(
    turns: list[tuple[list[Item], list[Item]]], new: list[Item], budget: int
) -> None:
    """However turns divide the items, and wherever the compactions are. (What a model said is never a user's.)"""
    parent: Turn | None = None
    replayed: list[Item] = []
    for number, (given_items, answer) in enumerate(turns):
        output = [
            one for one in answer if b'"user"' not in one and b'"developer"' not in one and b'"system"' not in one
        ]
        parent = turn(str(number), parent, given=given_items, answer=output, budget=budget)
        replayed += [*given_items, *output]
    assert _shown(parent, new, budget) == _shown(None, [*replayed, *new], budget)


def _shown(parent: Turn | None, new: Sequence[Item], budget: int) -> list[Item]:
    newest = find_newest(new)
    if newest is None:
        return seen(parent, new)
    number = int(newest.sealed.split()[1])
    return list(compact(parent, new, newest.place, summary=summary(number), budget_bytes=budget).items)
