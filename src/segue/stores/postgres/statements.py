"""Statements of ours on one connection: prepared once, with values and rows in the server's binary format.

psycopg's cursors do the same for any statement; to make one, and to look at its statement again, takes as long as a
small answer. Not here: what is exchanged with the server meanwhile (`exchanges`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from psycopg import generators
from psycopg.abc import PQGen, Transformer
from psycopg.adapt import PyFormat
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

_PLACEHOLDER = b"%b"

Results = list[PGresult]


class PreparedStatements:
    """The statements of one connection: they stay prepared, so there must not be many."""

    def __init__(
        self, pgconn: PGconn, transformer: Transformer, wait: Callable[[PQGen[Results]], Awaitable[Results]]
    ) -> None:
        self._pgconn = pgconn
        self._transformer = transformer
        self._wait = wait
        self._names: dict[tuple[bytes, tuple[int, ...]], bytes] = {}

    async def fetch(self, statement: bytes, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows. Raises `psycopg.Error`."""
        transformer = self._transformer
        parameters = transformer.dump_sequence(values, [PyFormat.BINARY] * len(values))
        types, formats = transformer.types or (), transformer.formats
        name = self._names.get((statement, types)) or await self._prepare(statement, types)
        self._pgconn.send_query_prepared(name, parameters, formats, Format.BINARY)
        result = await self._answer()
        transformer.set_pgresult(result, format=Format.BINARY)
        try:
            return transformer.load_rows(0, result.ntuples, tuple)
        finally:
            transformer.set_pgresult(None)  # it is large, and the connection may be idle for long

    async def _prepare(self, statement: bytes, types: tuple[int, ...]) -> bytes:
        name = b"segue_%d" % len(self._names)
        self._pgconn.send_prepare(name, numbered(statement), types)
        await self._answer()
        self._names[statement, types] = name
        return name

    async def _answer(self) -> PGresult:
        result = (await self._wait(generators.execute(self._pgconn)))[-1]
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
        return result


def numbered(statement: bytes) -> bytes:
    """Return a statement whose placeholders are those of the server: `$1`, `$2` and so on."""
    first, *others = statement.split(_PLACEHOLDER)
    return first + b"".join(b"$%d%b" % (number, other) for number, other in enumerate(others, 1))
