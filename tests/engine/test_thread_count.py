"""How many threads compute a step: all, or as many as had a processor when other processes wanted some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.engine.thread_count import ThreadCount


class Steps:
    """Steps one after the other, on a clock of their own."""

    def __init__(self, threads: int) -> None:
        self.count = ThreadCount(threads)
        self.at = 0.0

    def step(self, processors: float, time_s: float = 1.0, *, tokens: int = 1, slower: float = 8.0) -> int:
        """Compute a step that takes this time where each thread has a processor, and `slower` times as long elsewhere.

        Returns how many threads did.
        """
        threads = self.count.begin(self.at, tokens)
        took_s = time_s if threads <= processors else slower * time_s
        self.at += took_s
        self.count.end(self.at, tokens=tokens, time_s=took_s, processor_s=took_s * min(threads, processors))
        return threads

    def held_s(self) -> float:
        """Let all threads wait until fewer compute; return for how long these do."""
        all_threads = self.count.begin(self.at, 1)
        while self.count.begin(self.at, 1) == all_threads:
            self.step(0.5 * all_threads, 0.03125)
        began_at = self.at
        while (fewer := self.count.begin(self.at, 1)) < all_threads:
            self.step(fewer, 0.125)
        return self.at - began_at


def test_all_threads_compute_on_a_machine_that_is_idle() -> None:
    steps = Steps(4)
    assert {steps.step(processors) for processors in (4, 3.9, 3.3, 4) * 5} == {4}


def test_as_many_as_had_a_processor_go_on() -> None:
    """At least one fewer, at least one, and fewer again if these waited too."""
    eight = Steps(8)
    assert [eight.step(processors, 0.03) for processors in (8, 6.5, 5, 5, 5)] == [8, 8, 8, 8, 5]
    while eight.step(2, 0.03) > 2:
        assert eight.at < 3
    two = Steps(2)
    assert [two.step(processors, 0.03) for processors in (2, 1, 1, 1)] == [2, 2, 2, 1]


def test_one_step_that_waits_changes_nothing() -> None:
    """Who reads an answer needs a processor for a moment, and threads that have slept may wake on the same one."""
    steps = Steps(2)
    assert [steps.step(1, 0.025), steps.step(2, 0.02)] == [2, 2]
    assert {steps.step(had, 0.02, slower=2) for had in (2, 2, 1, 2, 2, 2, 1.2, 2, 2, 2) * 5} == {2}


def test_short_steps_that_wait_one_after_the_other_are_noticed_soon() -> None:
    steps = Steps(2)
    while steps.step(1, 0.005) == 2:
        pass
    assert steps.at < 0.2


def test_all_try_it_again_after_a_while() -> None:
    """Each time that they waited at once, a longer one; and when they have not waited for as long, a short one."""
    steps = Steps(4)
    assert [steps.held_s() for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    for _ in range(10):
        assert steps.step(4) == 4
    assert steps.held_s() == 0.25


@pytest.mark.parametrize("time_s", [0.008, 0.06, 1.4])
def test_threads_that_wait_but_are_no_slower_all_go_on(time_s: float) -> None:
    """Fewer try it once in a while, for one step: a machine whose threads sleep in each step is not a busy one."""
    steps = Steps(2)
    computed = []
    while steps.at < 60:
        threads = steps.count.begin(steps.at, 1)
        took_s = time_s if threads == 2 else 2 * time_s
        steps.at += took_s
        steps.count.end(steps.at, tokens=1, time_s=took_s, processor_s=1.4 * took_s if threads == 2 else took_s)
        computed.append(threads)
    assert 1 in computed[:50]
    assert computed.count(1) <= 8


def test_fewer_threads_compute_only_steps_of_the_size_that_waited() -> None:
    """A long prompt behind an answer whose steps have waited is read by all."""
    steps = Steps(2)
    while steps.step(1, 0.02) == 2:
        pass
    assert steps.step(1, 0.02) == 1
    assert steps.step(2, 3.0, tokens=512) == 2
    assert steps.step(2, 0.02) == 2


def test_steps_of_every_size_in_turn_are_all_computed_by_all() -> None:
    """Nobody knows whether fewer would be faster."""
    steps = Steps(2)
    assert {steps.step(1, 0.1, tokens=2 ** (number % 12)) for number in range(100)} == {2}


def test_a_machine_that_becomes_busy_after_a_trial_has_fewer_threads_at_once() -> None:
    steps = Steps(2)
    while steps.step(1.4, 0.02, slower=1) == 2:  # they are as fast with one
        pass
    assert steps.step(2, 0.02) == 2
    began_at = steps.at
    while steps.step(1, 0.02) == 2:
        assert steps.at < began_at + 1
    assert [steps.step(1, 0.02) for _ in range(5)] == [1] * 5


def test_time_in_which_nothing_is_computed_counts_too() -> None:
    steps = Steps(2)
    assert [steps.step(1) for _ in range(3)] == [2, 2, 1]
    steps.at += 60
    assert steps.step(2) == 2


def test_one_thread_is_always_enough() -> None:
    steps = Steps(1)
    assert [steps.step(0.1) for _ in range(3)] == [1, 1, 1]


def test_a_step_without_any_time_says_nothing() -> None:
    steps = Steps(2)
    assert [steps.step(0, 0.0) for _ in range(2)] == [2, 2]


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(1, 512), st.floats(0, 3), st.floats(0, 1), st.floats(0, 20)), max_size=200),
)
def test_there_are_always_between_one_and_all(threads: int, steps: list[tuple[int, float, float, float]]) -> None:
    count, now = ThreadCount(threads), 0.0
    for tokens, time_s, share, pause_s in steps:
        assert 1 <= count.begin(now, tokens) <= threads
        now += time_s
        count.end(now, tokens=tokens, time_s=time_s, processor_s=share * threads * time_s)
        now += pause_s
