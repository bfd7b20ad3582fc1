"""The URL of a store, as the configuration gives it: parsing it, and opening the store. Not here: the stores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from segue.extras import how_to_add
from segue.stores.copying import CopyEnd
from segue.stores.interface import Store, StoreError
from segue.stores.memory import MemoryStore
from segue.stores.postgres.postgres_url import PostgresUrl, is_postgres, parse_postgres_url
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite_copying import SqliteCopyEnd
from segue.stores.sqlite_file import Synchronous

_POSSIBLE = (
    "possible are: memory: (forgotten when the gateway stops), sqlite:///segue.db (relative to the working directory), "
    "sqlite:////var/lib/segue/segue.db (absolute), either of them with ?synchronous=NORMAL (faster; a power cut can "
    "lose the last turns), postgresql://user@host/database (shared by any number of gateways)"
)


async def open_store(url: str) -> Store:
    """Open the store at `url`; the caller closes it.

    Raises `ValueError` if no store has such a URL, and `StoreError` if the store cannot be opened.
    """
    if url == "memory:":
        return MemoryStore()
    if is_postgres(url):
        return await _open_postgres(parse_postgres_url(url))
    path, synchronous = _parse_sqlite(url)
    return await SqliteStore.open(path, synchronous=synchronous)


def check_url(url: str) -> None:
    """Raise `ValueError` if no store has such a URL; open nothing."""
    if is_postgres(url):
        parse_postgres_url(url)
    elif url != "memory:":
        _parse_sqlite(url)


def file_of(url: str) -> Path | None:
    """Return the file of a store; None if it has none. Raises `ValueError` if no store has such a URL."""
    return None if url == "memory:" or is_postgres(url) else Path(_parse_sqlite(url)[0])


async def open_copy_end(url: str, *, new: bool) -> CopyEnd:
    """Open one end of a copy: a store that is there, or one that may be `new`.

    Raises `ValueError` if no store that outlives its process has such a URL, and `StoreError` if it cannot be opened.
    """
    if is_postgres(url):
        parsed = parse_postgres_url(url)
        with _asking_for_extra(parsed):
            from segue.stores.postgres.postgres_copying import PostgresCopyEnd  # noqa: PLC0415 - as below
        return await PostgresCopyEnd.open(parsed)
    file = file_of(url)
    if file is None:
        raise ValueError("memory: is in a gateway alone")
    if not new and not file.exists():
        raise ValueError(f"there is no file {file}")
    return await SqliteCopyEnd.open(file)


async def _open_postgres(url: PostgresUrl) -> Store:
    with _asking_for_extra(url):
        from segue.stores.postgres.store import PostgresStore  # noqa: PLC0415 - the extra may be missing
    return await PostgresStore.open(url)


@contextlib.contextmanager
def _asking_for_extra(url: PostgresUrl) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        message = f"{url.place}: psycopg is not installed ({error}): {how_to_add('cluster')}"
        raise StoreError(message) from error


def _parse_sqlite(url: str) -> tuple[str, Synchronous]:
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    named = parts.scheme == "sqlite" and url.startswith("sqlite:///") and not parts.fragment
    if not named or not path or path.endswith("/") or path == ":memory:":
        raise ValueError(f"{_redact(url)!r} is not a store: {_POSSIBLE}")
    synchronous: Synchronous = "FULL"
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        found = [mode for mode in get_args(Synchronous) if mode == value.upper()]
        if name != "synchronous" or not found:
            raise ValueError(f"{name}={value!r} is not an option of an SQLite store: {_POSSIBLE}")
        synchronous = found[0]
    return path, synchronous


def _redact(url: str) -> str:
    """Return a URL without its password, if it has one, for a message."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else url
