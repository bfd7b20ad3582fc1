"""Runs in this process what a benchmark runs in a child process."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from segue.bench.arms.server import ProcessUsage, ServerSpec, serve_bare, serve_gateway


def with_stdin(monkeypatch: pytest.MonkeyPatch, given: bytes) -> io.BytesIO:
    """Give the process its whole input at once; returns where its output goes."""
    read, write = os.pipe()
    os.write(write, given)
    os.close(write)
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=printed))
    return printed


class InProcess:
    """Stands in for a child process: what a server in this process has used is what this process has."""

    loop = "asyncio"

    def __init__(self, address: tuple[str, int]) -> None:
        self.host, self.port = address

    async def usage(self) -> ProcessUsage:
        return ProcessUsage(time.process_time_ns(), 1_000_000)

    settled = usage


@asynccontextmanager
async def launched_here(spec: ServerSpec) -> AsyncIterator[InProcess]:
    """Serve in this process, which is the sooner ready."""
    async with serve_gateway(spec) if spec.kind == "gateway" else serve_bare(spec) as address:
        yield InProcess(address)
