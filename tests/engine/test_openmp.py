"""The setting of the OpenMP runtime, as a process that loads it later would see it."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import ctypes
from segue.engine.openmp import shorten_spinning

getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
before = getenv(b"GOMP_SPINCOUNT")
shorten_spinning()
print(before, getenv(b"GOMP_SPINCOUNT"))
"""


def test_libgomp_finds_a_short_spin_count_in_the_environment_of_the_process() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={}, timeout=60)
    assert done.stdout == "None b'100000'\n"
