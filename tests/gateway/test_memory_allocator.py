"""Memory that was taken for large requests is given back, in a process of its own: the setting stays."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HELD = """
import sys
from pathlib import Path
from segue.gateway.memory_allocator import return_large_blocks
if sys.argv[1] == "set":
    return_large_blocks()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
del (first := [bytearray(30 << 20)])[0]  # glibc takes this size for usual
before = resident()
blocks = [bytearray(b"x") * (8 << 20) for _ in range(5)]
blocks.append(bytearray(64))  # behind them, as something nearly always is
last = blocks.pop()
blocks.clear()
print(resident() - before)
"""


def held(how: str) -> int:
    """How much more memory a process has after it had 40 MiB in large blocks."""
    return int(subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_large_blocks_go_back_to_the_system() -> None:
    assert held("set") < 2 << 20
