"""A process is measured with its children, to the nanosecond where the system has such clocks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segue.bench.meters import process_tree
from segue.bench.meters.process_tree import TreeUsage, processes_of, usage_of

NOBODY = 2**22 + 1  # beyond the largest process id of Linux


def test_children_belong_to_the_tree() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE) as child:
        until = time.monotonic() + 20
        while len(found := processes_of(child.pid)) < 2 and time.monotonic() < until:
            pass  # its child starts
        used = usage_of(child.pid, with_memory=True)
        assert child.pid in processes_of(os.getpid())
    assert found[0] == child.pid
    assert len(found) == 2
    assert used.cpu_s is not None
    assert used.cpu_s > 0
    assert used.memory_bytes is not None
    assert used.memory_bytes > 1_000_000


def test_cpu_time_is_that_of_the_process() -> None:
    before = time.process_time_ns()
    used = usage_of(os.getpid()).cpu_s
    assert used is not None
    assert before / 1e9 <= used
    assert usage_of(os.getpid()).memory_bytes is None


def test_what_has_ended_has_used_nothing() -> None:
    assert usage_of(NOBODY, with_memory=True) == TreeUsage(None, None)


def test_elsewhere_there_are_no_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "17").mkdir()  # as a process that has just ended
    monkeypatch.setattr(process_tree, "_PROC", tmp_path)
    monkeypatch.delattr(time, "clock_gettime_ns")
    assert usage_of(os.getpid(), with_memory=True) == TreeUsage(None, None)


def test_a_rollup_without_its_line_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / str(os.getpid())
    folder.mkdir()
    (folder / "stat").write_bytes(b"1 (a ) b) S 0 1")
    (folder / "smaps_rollup").write_bytes(b"Rss: 12 kB\n")
    monkeypatch.setattr(process_tree, "_PROC", tmp_path)
    assert usage_of(os.getpid(), with_memory=True).memory_bytes is None
