"""Answers that are slow to choose tokens pay for it, and nobody else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.slow_answers import QUICK_S, SlowAnswers

STEP_S = 0.02


def share_of(neighbours: int, slow_s: list[float], steps: int = 400) -> float:
    """The share of the time in which the neighbours' tokens were computed."""
    answers: SlowAnswers[str] = SlowAnswers()
    slow = {f"slow {number}": took_s for number, took_s in enumerate(slow_s)}
    running = {*slow, *(f"neighbour {number}" for number in range(neighbours))}
    passed_s, computed = 0.0, 0
    for _ in range(steps):
        keys = running - answers.held(running)
        computed += "neighbour 0" in keys
        passed_s += STEP_S
        answers.computed(keys, STEP_S)
        for key in keys:
            answers.sampled(key, slow.get(key, 0.0))
            passed_s += slow.get(key, 0.0)
    return computed * STEP_S / passed_s


def test_neighbours_keep_half_of_the_time() -> None:
    assert share_of(1, [0.3]) > 0.48
    assert share_of(2, [0.3, 0.9, 0.02]) > 0.48


@given(st.lists(st.floats(QUICK_S, 1.0), min_size=1, max_size=15))
def test_however_many_are_slow(slow_s: list[float]) -> None:
    """All that they owe at the end is of one step."""
    assert share_of(1, slow_s, steps=2000) > 0.5 - sum(slow_s) / (2000 * STEP_S)


def test_slow_answers_go_on_when_they_have_paid_and_when_there_is_nobody_else() -> None:
    answers: SlowAnswers[str] = SlowAnswers()
    answers.sampled("slow", 0.03)
    assert answers.held({"slow"}) == frozenset()
    assert answers.held({"slow", "other"}) == {"slow"}
    answers.computed({"slow"}, 1.0)
    assert answers.held({"slow", "other"}) == {"slow"}, "only what the others compute counts"
    answers.computed({"other"}, 0.02)
    assert answers.held({"slow", "other"}) == {"slow"}
    answers.computed({"other", "slow"}, 0.02)
    assert answers.held({"slow", "other"}) == frozenset()


@pytest.mark.parametrize("over", [True, False])
def test_who_is_quick_again_or_over_is_held_no_more(over: bool) -> None:
    answers: SlowAnswers[str] = SlowAnswers()
    answers.sampled("slow", 5.0)
    answers.sampled("other", 0.0)
    if over:
        answers.forget("slow")
    else:
        answers.sampled("slow", QUICK_S / 2)
    assert answers.held({"slow", "other"}) == frozenset()
