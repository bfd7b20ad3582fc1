"""Evicted state in files: private, and gone with the process, however that ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segue.engine.kv.disk_tier import DiskTier


def test_what_was_written_is_read_until_it_is_removed(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path / "new" / "folder")
    for pieces in ([], [b"state"], [b"state", b"", b"of many pieces"]):
        assert disk.write(1, pieces)
        assert disk.read(1) == pieces
        disk.remove(1)
    assert disk.write(1, [b"state"])
    disk.remove(1)
    disk.remove(2)
    assert disk.read(1) is None
    disk.close()
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_damaged_file_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever it was cut, and whichever byte is wrong."""
    disk = DiskTier(tmp_path)
    disk.write(1, [b"state", b"more"])
    (path,) = (path for path in tmp_path.rglob("1"))
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :] for at in range(8, len(whole))]
    for data in damaged:
        path.write_bytes(data)
        assert disk.read(1) is None
    assert "action=unspill" in caplog.text
    disk.close()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path)
    disk.write(1, [b"state"])
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*"))
    disk.close()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = DiskTier(tmp_path)
    disk.close()
    assert not disk.write(1, [b"state"])
    assert "action=spill" in caplog.text


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """And nothing of a living one, or of somebody else."""
    code = (
        "import os, sys; from pathlib import Path; from segue.engine.kv.disk_tier import DiskTier; "
        "DiskTier(Path(sys.argv[1])).write(1, [b'state']); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (tmp_path / "other").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    first = DiskTier(tmp_path)
    first.write(1, [b"state"])
    second = DiskTier(tmp_path)
    assert first.read(1) == [b"state"]
    second.close()
    first.close()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
