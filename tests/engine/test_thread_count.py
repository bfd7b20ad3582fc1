"""How many threads compute a step: all, or as many as had a processor when other processes wanted some."""

from __future__ import annotations

from segue.engine.thread_count import ThreadCount


class Steps:
    """Steps one after the other, on a clock of their own."""

    def __init__(self, threads: int) -> None:
        self.count = ThreadCount(threads)
        self.at = 0.0

    def step(self, processors: float, time_s: float = 1.0) -> int:
        """Compute a step with so many processors; returns how many threads did."""
        threads = self.count.begin(self.at)
        self.at += time_s
        self.count.end(self.at, time_s=time_s, processor_s=time_s * min(threads, processors))
        return threads

    def held_s(self) -> float:
        """Let all threads wait until fewer compute; return for how long these do."""
        all_threads = self.count.begin(self.at)
        while self.count.begin(self.at) == all_threads:
            self.step(0.5 * all_threads, 0.25)
        began_at = self.at
        while (fewer := self.count.begin(self.at)) < all_threads:
            self.step(fewer, 0.125)
        return self.at - began_at


def test_all_threads_compute_on_a_machine_that_is_idle() -> None:
    steps = Steps(4)
    assert {steps.step(processors) for processors in (4, 3.9, 3.3, 4) * 5} == {4}


def test_as_many_as_had_a_processor_go_on() -> None:
    """At least one fewer, at least one, and fewer again if these waited too."""
    eight = Steps(8)
    had = (8, 6.5, 5, 4.5, 4, 2, 2, 2)
    assert [eight.step(processors, 0.24) for processors in had] == [8, 8, 8, 8, 5, 5, 3, 3]
    two = Steps(2)
    assert [two.step(processors, 0.24) for processors in (2, 1, 1, 1)] == [2, 2, 2, 1]


def test_one_step_that_waits_changes_nothing() -> None:
    """Who reads an answer needs a processor for a moment, and threads that have slept may wake on the same one."""
    steps = Steps(2)
    assert [steps.step(1, 0.2), steps.step(2, 0.02)] == [2, 2]
    assert {steps.step(processors, 0.02) for processors in (2, 2, 1, 2, 2, 2, 1.2, 2, 2, 2) * 5} == {2}


def test_short_steps_that_wait_one_after_the_other_are_noticed_soon() -> None:
    steps = Steps(2)
    while steps.step(1, 0.02) == 2:
        pass
    assert steps.at < 0.2


def test_all_try_it_again_after_a_while() -> None:
    """Each time that they waited at once, a longer one; and when they have not waited for as long, a short one."""
    steps = Steps(4)
    assert [steps.held_s() for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    for _ in range(10):
        assert steps.step(4) == 4
    assert steps.held_s() == 0.25


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
