"""What a process and its children have used: CPU time to the nanosecond, and memory. Elsewhere than on Linux, nothing.

CPU time comes from the clock that each process has (`clock_getcpuclockid`): `/proc` counts in steps of 10 ms. What
a child used that has ended since is lost, so a server must keep its workers. Memory is the proportional set size:
pages that processes share count once. Not here: our own children, which tell it themselves (`segue.bench.arms.child`).
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

_PROC = Path("/proc")
#: The kind of a process's clock that is its CPU time: see `MAKE_PROCESS_CPUCLOCK` of Linux.
_CPU_CLOCK = 2
_KIB = 1024


class TreeUsage(msgspec.Struct, frozen=True):
    """The sums over all processes of the tree; None where the system does not tell."""

    cpu_s: float | None
    memory_bytes: int | None


def processes_of(root: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.glob("[0-9]*"):
        parent = _parent_of(folder)
        if parent is not None:
            children.setdefault(parent, []).append(int(folder.name))
    found = [root]
    for process in found:  # it grows meanwhile
        found += children.get(process, [])
    return found


def usage_of(root: int, *, with_memory: bool = False) -> TreeUsage:
    """Return what the tree has used so far. Memory takes milliseconds to add up, so it must be asked for."""
    processes = processes_of(root)
    cpu_s = [used for process in processes if (used := _cpu_s(process)) is not None]
    memory = [size for process in processes if (size := _memory_bytes(process)) is not None] if with_memory else []
    return TreeUsage(sum(cpu_s) if cpu_s else None, sum(memory) if memory else None)


def _parent_of(folder: Path) -> int | None:
    try:
        stat = (folder / "stat").read_bytes()
    except OSError:
        return None  # it has ended
    return int(stat.rpartition(b") ")[2].split()[1])  # a name may hold spaces and brackets


def _cpu_s(process: int) -> float | None:
    try:
        return time.clock_gettime_ns((~process << 3) | _CPU_CLOCK) / 1e9
    except (OSError, AttributeError):  # it has ended; this system has no such clocks
        return None


def _memory_bytes(process: int) -> int | None:
    try:
        lines = (_PROC / str(process) / "smaps_rollup").read_bytes().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(b"Pss:")), None)
