"""Pins servers and client to different cores during a measurement, and raises the limit of open files.

Nothing is pinned if the system cannot pin or there is only one core; the report's settings show which it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class Cores(msgspec.Struct, frozen=True):
    """The cores of servers and client; None means not pinned."""

    server: int | None
    client: int | None


@contextmanager
def place() -> Iterator[Cores]:
    """Pin this process, the client, around a block. Servers get their core when they are started."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    if len(allowed) < 2:  # noqa: PLR2004 - one for each side
        yield Cores(None, None)
        return
    server, client, *_ = sorted(allowed)
    os.sched_setaffinity(0, {client})
    try:
        yield Cores(server, client)
    finally:
        os.sched_setaffinity(0, allowed)


def allow_open_files() -> None:
    """Raise the soft limit of open files to the hard limit; child processes inherit it."""
    try:
        import resource  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
