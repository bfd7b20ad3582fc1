"""How many threads compute a step: all, unless a step has waited for processors that others had."""

from __future__ import annotations

from segue.engine.thread_count import ThreadCount


def waited(count: ThreadCount) -> int:
    """Let a step wait; return how many steps one thread fewer computes then."""
    count.computed(1, wall_s=0.2, processor_s=0.01)
    steps = 0
    while count.of_step(1) == 3:
        count.computed(1, wall_s=0.01, processor_s=0.01)
        steps += 1
    return steps


def test_all_threads_compute_a_machine_that_is_idle() -> None:
    count = ThreadCount(4)
    for _ in range(20):
        assert count.of_step(1) == count.of_step(512) == 4
        count.computed(1, wall_s=0.011, processor_s=0.01)


def test_one_thread_fewer_computes_after_a_step_that_waited() -> None:
    """But not a prompt, whose operations are large; and each time that all waited again, for longer."""
    count = ThreadCount(4)
    assert waited(count) == 8
    assert waited(count) == 16
    count.computed(1, wall_s=0.2, processor_s=0.01)
    assert (count.of_step(1), count.of_step(8), count.of_step(9), count.of_step(512)) == (3, 3, 4, 4)


def test_a_step_that_did_not_wait_shortens_the_next_time() -> None:
    count = ThreadCount(4)
    assert [waited(count) for _ in range(10)][-1] == 256
    for _ in range(10):
        count.computed(1, wall_s=0.01, processor_s=0.01)
    assert waited(count) == 8


def test_a_prompt_that_waited_changes_nothing() -> None:
    count = ThreadCount(4)
    count.computed(512, wall_s=2.0, processor_s=0.1)
    assert count.of_step(1) == 4


def test_there_is_always_one() -> None:
    count = ThreadCount(1)
    count.computed(1, wall_s=0.2, processor_s=0.01)
    assert count.of_step(1) == 1
