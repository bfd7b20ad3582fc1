"""The standard input and output of a benchmark's child process, stood in for, so that it can run in this process."""

from __future__ import annotations

import io
import os
import sys
from types import SimpleNamespace

import pytest


def with_stdin(monkeypatch: pytest.MonkeyPatch, given: bytes) -> io.BytesIO:
    """Give the process its whole input at once; returns where its output goes."""
    read, write = os.pipe()
    os.write(write, given)
    os.close(write)
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=printed))
    return printed
