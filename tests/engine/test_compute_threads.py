"""Threads that compute stay on processors of their own, and let others go first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segue.engine.compute_threads import own_processors
from segue.engine.model import BatchEntry, LoadedModel, ModelFile
from segue.testing.tiny_model import write_tiny_model


@pytest.mark.parametrize(
    ("usable", "threads", "own"),
    [
        ({0, 1}, 2, [True, True, False, False]),
        ({1, 3}, 2, [False, True, False, True]),
        ({0, 1, 2}, 2, None),
        ({0, 1}, 3, None),
        ({0}, 1, None),
        ({0, 4}, 2, None),
        ((), 2, None),
    ],
)
def test_each_has_a_processor_only_if_they_are_as_many(usable: set[int], threads: int, own: list[bool] | None) -> None:
    """Else some processors would be theirs that others use, and others that are free would not."""
    assert own_processors(usable, threads, 4) == own


def _tasks() -> set[int]:
    return {int(one.name) for one in Path("/proc/self/task").iterdir()}


def _compute(file: Path, threads: int) -> tuple[list[tuple[set[int], int]], tuple[set[int], int]]:
    """Compute with a model; return where its threads ran and how, and the same of this thread when it is closed."""
    before = _tasks() - {_own()}
    model = LoadedModel(ModelFile(file, context=64, threads=threads, kv_bytes=1, slots=1))
    try:
        model.compute([BatchEntry(0, range(8), 0, sampled=True)])
        ran = [(os.sched_getaffinity(task), os.sched_getscheduler(task)) for task in sorted(_tasks() - before)]
    finally:
        model.close()
    return ran, (os.sched_getaffinity(0), os.sched_getscheduler(0))


def _own() -> int:
    return int(Path("/proc/thread-self").readlink().name)


@pytest.mark.local_engine
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux tells where a thread runs")
@pytest.mark.skipif(hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) != 2, reason="not two processors")
def test_two_threads_on_two_processors(tmp_path: Path) -> None:
    """In a thread of its own, since libgomp keeps the others for the thread that began with them."""
    file = tmp_path / "tiny.gguf"
    write_tiny_model(file)
    usable = os.sched_getaffinity(0)
    with ThreadPoolExecutor(max_workers=1) as executor:
        ran, after = executor.submit(_compute, file, 2).result()
    assert sorted(tuple(where) for where, _ in ran) == [(number,) for number in sorted(usable)]
    assert {policy for _, policy in ran} == {os.SCHED_BATCH}
    assert after == (usable, os.SCHED_OTHER)
