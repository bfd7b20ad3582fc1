"""How many threads compute a step: all, or as many as had a processor when other processes wanted some."""

from __future__ import annotations

from segue.engine.thread_count import ThreadCount


def step(count: ThreadCount, processors: float, time_s: float = 0.01) -> int:
    """Compute a step with so many processors; returns how many threads did."""
    threads = count.now
    count.computed(time_s=time_s, processor_s=time_s * min(threads, processors))
    return threads


def held_s(count: ThreadCount) -> float:
    """Let a step of all threads wait; return for how long fewer compute then."""
    all_threads = step(count, 0.5 * count.now)
    held = 0.0
    while count.now < all_threads:
        step(count, count.now, 0.25)
        held += 0.25
    return held


def test_all_threads_compute_on_a_machine_that_is_idle() -> None:
    count = ThreadCount(4)
    assert {step(count, processors) for processors in (4, 3.9, 3.3, 4) * 5} == {4}


def test_as_many_as_had_a_processor_go_on() -> None:
    """At least one fewer, at least one, and fewer again if these waited too."""
    count = ThreadCount(8)
    assert [step(count, processors) for processors in (8, 6.2, 6, 3.5, 3, 0.2, 0.2)] == [8, 8, 6, 6, 3, 3, 1]
    two = ThreadCount(2)
    assert [step(two, processors) for processors in (2, 1.5, 1)] == [2, 2, 1]


def test_all_try_it_again_after_a_while() -> None:
    """Each time that they waited, a longer one; and no step that did not wait makes it shorter again."""
    count = ThreadCount(4)
    assert [held_s(count) for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    for _ in range(10):
        assert step(count, 4) == 4
    assert held_s(count) == 0.25


def test_one_thread_is_always_enough() -> None:
    count = ThreadCount(1)
    assert [step(count, 0.1) for _ in range(3)] == [1, 1, 1]


def test_a_step_without_any_time_says_nothing() -> None:
    count = ThreadCount(2)
    count.computed(time_s=0.0, processor_s=0.0)
    assert count.now == 2
