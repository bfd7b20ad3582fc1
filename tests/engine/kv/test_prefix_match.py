"""Which computed state a prompt starts from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.kv.prefix_match import WORTH_RESTORING, Candidate, Start, choose_start, common_length, continues

PROMPT = list(range(100))


def candidate(
    key: int, shared: int, *, more: int = 0, needed: int = 0, running: bool = False, in_context: bool = True
) -> Candidate:
    """A sequence that begins with some of the prompt, then goes another way."""
    return Candidate(key, PROMPT[:shared] + [-1] * more, needed, running, in_context)


def test_the_longest_common_beginning_wins() -> None:
    assert choose_start(PROMPT, [candidate(1, 20), candidate(2, 60), candidate(3, 40)]) == Start(2, 60, "take over")


def test_nothing_in_common_starts_anew() -> None:
    assert choose_start(PROMPT, [candidate(1, 0, more=50)]) is None


def test_what_a_finished_turn_needs_is_not_cut_off() -> None:
    """Behind what both have stands the other branch: it is copied; an answer that nobody needs is rewound."""
    assert choose_start(PROMPT, [candidate(1, 60, more=20, needed=70)]) == Start(1, 60, "copy")
    assert choose_start(PROMPT, [candidate(1, 60, more=20, needed=60)]) == Start(1, 60, "take over")


def test_a_running_turn_is_only_copied() -> None:
    assert choose_start(PROMPT, [candidate(1, 60, running=True)]) == Start(1, 60, "copy")
    assert choose_start(PROMPT, [candidate(1, 60, running=True, in_context=False)]) is None, "it had to give way"


def test_taking_over_is_better_than_copying() -> None:
    both = [candidate(1, 60, more=20, needed=70), candidate(2, 60)]
    assert choose_start(PROMPT, both) == choose_start(PROMPT, both[::-1]) == Start(2, 60, "take over")


def test_the_last_token_is_always_computed() -> None:
    """An answer needs what was computed of the token before it."""
    assert choose_start(PROMPT, [candidate(1, 100)]) == Start(1, 99, "take over")


def test_little_is_not_worth_restoring() -> None:
    assert choose_start(PROMPT, [candidate(1, WORTH_RESTORING - 1, in_context=False)]) is None
    assert choose_start(PROMPT, [candidate(1, WORTH_RESTORING, in_context=False)]) is not None
    near = candidate(2, 50)
    few, enough = (candidate(1, 50 + more, in_context=False) for more in (WORTH_RESTORING - 1, WORTH_RESTORING))
    assert choose_start(PROMPT, [near, few]) == Start(2, 50, "take over")
    assert choose_start(PROMPT, [near, enough]) == Start(1, 50 + WORTH_RESTORING, "take over")


def test_a_prompt_continues_what_it_begins_with() -> None:
    assert continues([1, 2, 3], [1, 2])
    assert continues([1], [])
    assert not continues([1, 2], [1, 2]), "the last token is to be computed"
    assert not continues([1, 2, 3], [1, 3])


few = st.lists(st.integers(0, 1), max_size=600)


@given(few, few, few)
def test_common_length_is_that_of_the_common_beginning(start: list[int], first: list[int], second: list[int]) -> None:
    first, second = start + first, start + second
    length = common_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]
