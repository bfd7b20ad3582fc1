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

from segue.bench.arms.ends import EndSpec, run_end
from segue.bench.arms.model_server import ModelServerSpec, serve_workload
from segue.bench.arms.server import ProcessUsage, ServerSpec, serve_bare, serve_gateway
from segue.bench.arms.tunnelled import RunningEnd


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


@asynccontextmanager
async def model_here(spec: ModelServerSpec) -> AsyncIterator[InProcess]:
    """Serve a workload's model in this process."""
    async with serve_workload(spec) as address:
        yield InProcess(address)


@asynccontextmanager
async def end_here(spec: EndSpec) -> AsyncIterator[RunningEnd]:
    """Run an end of the tunnel in this process."""
    async with run_end(spec) as (host, port):
        yield RunningEnd(host, port)


@asynccontextmanager
async def measured_end_here(spec: EndSpec) -> AsyncIterator[RunningEnd]:
    """Run an end in this process, with the CPU time of this process."""

    async def cpu_s() -> float:
        return time.process_time()

    async with end_here(spec) as end:
        yield RunningEnd(end.host, end.port, cpu_s)
