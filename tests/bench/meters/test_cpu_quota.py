"""Limits of CPU, in both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

from segue.bench.meters.cpu_quota import limited


def written(group: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in group.iterdir()}


def test_each_process_gets_a_group_of_version_2(tmp_path: Path) -> None:
    with limited([11, 12], 0.25, tmp_path) as possible:
        groups = [tmp_path / f"segue-bench-{os.getpid()}-{process}" for process in (11, 12)]
        assert possible
        assert [written(group) for group in groups] == [
            {"cpu.max": "5000 20000", "cgroup.procs": process} for process in ("11", "12")
        ]
    assert (tmp_path / "cgroup.procs").read_text() == "12"  # they are where they came from


def test_version_1_has_a_tree_for_it(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    with limited([11], 0.5, tmp_path) as possible:
        assert possible
        assert written(tmp_path / "cpu" / f"segue-bench-{os.getpid()}-11") == {
            "cpu.cfs_period_us": "20000",
            "cpu.cfs_quota_us": "10000",
            "cgroup.procs": "11",
        }


def test_where_nobody_may_make_groups_nobody_is_limited(tmp_path: Path) -> None:
    with limited([11], 0.5, tmp_path / "missing") as possible:
        assert not possible
