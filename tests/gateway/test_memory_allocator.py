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

#: Pieces of large requests, and what stays between them.
BETWEEN = """
import asyncio
from segue.gateway import memory_allocator as memory
memory.LOOK_S = 0.01
async def main():
    idle = False
    returning = asyncio.create_task(memory.return_free_memory(lambda: idle))
    await asyncio.sleep(0.05)
    before = memory._resident_bytes()
    pieces = [b"x" * 100_000 for _ in range(1500)]
    kept = pieces[::50]
    await asyncio.sleep(0.05)
    pieces.clear()
    await asyncio.sleep(0.05)
    print(memory._resident_bytes() - before)
    idle = True
    while memory._resident_bytes() - before > 32 << 20:
        await asyncio.sleep(0.01)
    returning.cancel()
asyncio.run(asyncio.wait_for(main(), 20))
"""


def held(how: str) -> int:
    """How much more memory a process has after it had 40 MiB in large blocks."""
    return int(run(HELD, how))


def run(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_large_blocks_go_back_to_the_system() -> None:
    assert held("set") < 2 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives it back when it is asked")
def test_what_is_free_between_other_blocks_goes_back_when_no_large_request_is_there() -> None:
    assert int(run(BETWEEN)) > 64 << 20
