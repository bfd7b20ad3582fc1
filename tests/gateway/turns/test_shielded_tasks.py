"""Work goes on though nobody waits for it any more."""

from __future__ import annotations

import asyncio
import gc

import pytest

from segue.gateway.turns.shielded_tasks import ShieldedTasks
from tests.faults.gateways import until


async def test_the_result_and_the_error_are_those_of_the_work() -> None:
    tasks = ShieldedTasks()

    async def work(number: int) -> int:
        return 6 // number

    assert await tasks.run(work(3)) == 2
    with pytest.raises(ZeroDivisionError):
        await tasks.run(work(0))
    assert not len(tasks)


async def test_work_goes_on_when_its_caller_is_cancelled_and_its_error_is_no_loss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gc.collect()  # what other tests have left is not told of here
    caplog.clear()
    tasks, gate, done = ShieldedTasks(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        done.set()
        raise ValueError("nobody hears this")

    caller = asyncio.create_task(tasks.run(work()))
    await until(lambda: len(tasks) == 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(tasks) == 1
    gate.set()
    await done.wait()
    await until(lambda: not len(tasks))
    gc.collect()
    assert "never retrieved" not in caplog.text
