"""Lets processes have a part of a core each, as a container's limit does, so that a measurement knows what is full.

It takes control groups, which root may make. Where that is not possible, nobody is limited, and the caller is told.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000


@contextmanager
def limited(processes: Sequence[int], share: float, root: Path = _ROOT) -> Iterator[bool]:
    """Give each process this part of a core around a block; yield whether that was possible."""
    groups = [(_place(root) / f"segue-bench-{os.getpid()}-{process}", process) for process in processes]
    try:
        try:
            for group, process in groups:
                group.mkdir()
                _limit(group, share)
                (group / "cgroup.procs").write_text(str(process))
        except OSError:
            yield False
        else:
            yield True
    finally:
        for group, process in groups:
            with contextlib.suppress(OSError):
                (group.parent / "cgroup.procs").write_text(str(process))
            with contextlib.suppress(OSError):
                group.rmdir()


def _place(root: Path) -> Path:
    """Return where groups are made: version 1 has a tree for each kind of limit."""
    return root / "cpu" if (root / "cpu" / "cpu.cfs_quota_us").exists() or (root / "cpu").is_dir() else root


def _limit(group: Path, share: float) -> None:
    quota = int(_PERIOD_US * share)
    if group.parent.name == "cpu":
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    else:
        (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
