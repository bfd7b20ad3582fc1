"""Which computed state a prompt starts from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.kv.prefix_match import (
    MIN_RESTORE_GAIN,
    PrefixCandidate,
    PrefixMatch,
    common_prefix_length,
    find_prefix_match,
    is_continuation,
)

PROMPT = list(range(100))


def candidate(
    key: int, shared: int, *, more: int = 0, protected: int = 0, running: bool = False, in_context: bool = True
) -> PrefixCandidate:
    """A sequence that begins with some of the prompt, then goes another way."""
    return PrefixCandidate(key, PROMPT[:shared] + [-1] * more, protected, running, in_context)


def test_the_longest_common_beginning_wins() -> None:
    assert find_prefix_match(PROMPT, [candidate(1, 20), candidate(2, 60), candidate(3, 40)]) == PrefixMatch(
        2, 60, "take over"
    )


def test_nothing_in_common_starts_anew() -> None:
    assert find_prefix_match(PROMPT, [candidate(1, 0, more=50)]) is None


def test_what_a_finished_turn_needs_is_not_cut_off() -> None:
    """Behind what both have stands the other branch: it is copied; an answer that nobody needs is rewound."""
    assert find_prefix_match(PROMPT, [candidate(1, 60, more=20, protected=70)]) == PrefixMatch(1, 60, "copy")
    assert find_prefix_match(PROMPT, [candidate(1, 60, more=20, protected=60)]) == PrefixMatch(1, 60, "take over")


def test_a_running_turn_is_only_copied() -> None:
    assert find_prefix_match(PROMPT, [candidate(1, 60, running=True)]) == PrefixMatch(1, 60, "copy")
    assert find_prefix_match(PROMPT, [candidate(1, 60, running=True, in_context=False)]) is None, "it had to give way"


def test_taking_over_is_better_than_copying() -> None:
    both = [candidate(1, 60, more=20, protected=70), candidate(2, 60)]
    assert find_prefix_match(PROMPT, both) == find_prefix_match(PROMPT, both[::-1]) == PrefixMatch(2, 60, "take over")


def test_the_last_token_is_always_computed() -> None:
    """An answer needs what was computed of the token before it."""
    assert find_prefix_match(PROMPT, [candidate(1, 100)]) == PrefixMatch(1, 99, "take over")


def test_little_is_not_worth_restoring() -> None:
    assert find_prefix_match(PROMPT, [candidate(1, MIN_RESTORE_GAIN - 1, in_context=False)]) is None
    assert find_prefix_match(PROMPT, [candidate(1, MIN_RESTORE_GAIN, in_context=False)]) is not None
    near = candidate(2, 50)
    few, enough = (candidate(1, 50 + more, in_context=False) for more in (MIN_RESTORE_GAIN - 1, MIN_RESTORE_GAIN))
    assert find_prefix_match(PROMPT, [near, few]) == PrefixMatch(2, 50, "take over")
    assert find_prefix_match(PROMPT, [near, enough]) == PrefixMatch(1, 50 + MIN_RESTORE_GAIN, "take over")


def test_a_prompt_continues_what_it_begins_with() -> None:
    assert is_continuation([1, 2, 3], [1, 2])
    assert is_continuation([1], [])
    assert not is_continuation([1, 2], [1, 2]), "the last token is to be computed"
    assert not is_continuation([1, 2, 3], [1, 3])


few = st.lists(st.integers(0, 1), max_size=600)


@given(few, few, few)
def test_common_length_is_that_of_the_common_beginning(start: list[int], first: list[int], second: list[int]) -> None:
    first, second = start + first, start + second
    length = common_prefix_length(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]
