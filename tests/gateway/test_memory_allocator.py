"""Memory that was taken for large requests is given back, in a process of its own: the setting stays."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from segue.gateway.memory_allocator import GROWN_BYTES, TrimPace

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

#: What is still held when the process is looked at for the first time.
LATER = """
import asyncio
from segue.gateway import memory_allocator as memory
memory.LOOK_S = 0.01
async def main():
    tries = []
    tried = memory.TrimPace.tried
    memory.TrimPace.tried = lambda pace, given: (tries.append(given), tried(pace, given))
    returning = asyncio.create_task(memory.return_free_memory(lambda: True))
    await asyncio.sleep(0.05)
    before = memory._resident_bytes()
    pieces = [b"x" * 100_000 for _ in range(1500)]
    kept = pieces[::50]
    while not tries:
        await asyncio.sleep(0.01)
    pieces.clear()
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives it back when it is asked")
def test_what_was_held_at_one_look_goes_back_at_a_later_one() -> None:
    run(LATER)


def test_a_large_process_is_tried_less_and_less_often_while_that_gives_nothing_back() -> None:
    pace, tries = TrimPace(100 << 20), list[int]()
    for look in range(1, 100):
        if pace.is_due(300 << 20):
            tries.append(look)
            pace.tried(0)
    assert tries == [1, 3, 7, 15, 31, 63, 95]
    pace.tried(GROWN_BYTES)
    assert pace.is_due(300 << 20)


def test_a_process_that_has_not_grown_is_left_alone() -> None:
    pace = TrimPace(100 << 20)
    assert not any(pace.is_due((100 << 20) + GROWN_BYTES - 1) for _ in range(3))
    assert pace.is_due((100 << 20) + GROWN_BYTES)
