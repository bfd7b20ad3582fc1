"""Where things run during a measurement: the servers on one core, the client on another, and files enough for both.

Where the system cannot pin, or there is one core, nothing is pinned, and the report's settings say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class Cores(msgspec.Struct, frozen=True):
    """The cores that servers and client are pinned to; None is anywhere."""

    server: int | None
    client: int | None


@contextmanager
def place() -> Iterator[Cores]:
    """Pin this process, the client, around a block; servers are told their core when they are started."""
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
    """Raise this process's limit of open files as far as it may; its children inherit it."""
    try:
        import resource  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
