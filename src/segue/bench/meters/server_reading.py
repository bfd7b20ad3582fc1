"""Reads off a running server what it has used and what it keeps: from its process, its own metrics, and its database.

Not here: the process (`segue.bench.arms.child`), and which turn a reading belongs to.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from segue.bench.arms.server import ProcessUsage

_PARSED = "segue_received_bytes"
_SIZES = ("page_count", "freelist_count", "page_size")
_KEPT = ("segue_state_bytes", "segue_tunnel_bases_bytes")


class ServerProcess(Protocol):
    """A server whose process can be asked what it has used."""

    host: str
    port: int

    async def usage(self) -> ProcessUsage:
        """Return what it has used."""
        ...

    async def settled(self) -> ProcessUsage:
        """Return the same after it has collected its garbage."""
        ...


class ServerReading(msgspec.Struct, frozen=True):
    """One reading: of `parsed_bytes`, all requests so far; of `state_bytes`, what is kept in memory and on disk now."""

    memory_bytes: int | None
    parsed_bytes: int
    state_bytes: int


class ServerMeter:
    """Reads one server. Reading costs the server time: read its CPU time before the rest."""

    def __init__(self, process: ServerProcess, database: Path | None, session: aiohttp.ClientSession) -> None:
        self._process = process
        self._database = database
        self._session = session

    async def cpu_s(self) -> float:
        """Return the CPU time so far."""
        return (await self._process.usage()).cpu_ns / 1e9

    async def read(self) -> ServerReading:
        """Return what it holds now."""
        async with self._session.get(f"http://{self._process.host}:{self._process.port}/metrics") as answer:
            counted = read_metrics(await answer.text())
        return ServerReading(
            memory_bytes=(await self._process.settled()).rss_bytes,
            parsed_bytes=round(counted.get(_PARSED, 0.0)),
            state_bytes=round(sum(counted.get(name, 0.0) for name in _KEPT))
            + await asyncio.to_thread(_used_bytes, self._database),
        )


def read_metrics(text: str) -> Mapping[str, float]:
    """Return the sum of each metric over all of its labels."""
    return {
        family.name: sum(sample.value for sample in family.samples)
        for family in text_string_to_metric_families(text)
        if not family.name.endswith("_created")
    }


def _used_bytes(database: Path | None) -> int:
    """Return what an SQLite file holds, with what is still in its write-ahead log, and without what that wastes."""
    if database is None:
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        pages, free, size = (opened.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
    return int(pages - free) * int(size)
