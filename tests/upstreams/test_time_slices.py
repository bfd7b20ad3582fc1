"""A thread beside the event loop works for a slice at a time, and the loop goes round between two of them."""

from __future__ import annotations

import asyncio

from segue.upstreams.time_slices import TimeSlices


async def test_what_is_ready_in_the_loop_is_done_between_two_slices() -> None:
    loop, done = asyncio.get_running_loop(), list[str]()
    slices = TimeSlices(loop, slice_s=0.0)

    def work() -> None:
        for number in range(3):
            loop.call_soon_threadsafe(done.append, f"of the loop {number}")
            slices.pause()
            done.append(f"of the thread {number}")

    await asyncio.to_thread(work)
    assert done == [f"of the {whose} {number}" for number in range(3) for whose in ("loop", "thread")]


async def test_within_a_slice_nothing_is_asked_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    slices = TimeSlices(loop, slice_s=3600.0)
    await asyncio.to_thread(slices.pause)
    slices.pause()  # in the loop's own thread, which would wait for itself


async def test_work_that_outlives_its_loop_goes_on() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    slices = TimeSlices(closed, slice_s=0.0)
    slices.pause()
    slices.pause()
