"""Lists of responses of a PostgreSQL store: by their labels, in the order of time.

Not here: writing labels (`new_rows`), deleting them (`freeing`), and what they are (`segue.protocol.response_query`).
"""

from __future__ import annotations

from collections.abc import Sequence

from segue.protocol.ids import ResponseId
from segue.protocol.response_query import SCAN_LIMIT, Position, ResponseQuery
from segue.stores.interface import QueryTooBroad
from segue.stores.postgres.connections import StoreConnection
from segue.stores.sqlite_labels import pack_labels

_POSITION = b"""
    SELECT created_at, number FROM segue_records
     WHERE tenant = %b::text AND id = %b::text AND head IS NOT NULL AND expires_at > %b::double precision
"""
_RANGE = """
    SELECT tenant, created_at, number, response FROM segue_labels
     WHERE tenant = %b::text AND label = %b::bytea
       AND (created_at, number) > (%b::double precision, %b::bigint)
       AND (created_at, number) < (%b::double precision, %b::bigint)
  ORDER BY created_at {order}, number {order} {limit}
"""
# The range comes from the index in its order, and what is joined to it one by one.
_FIND = """
    SELECT records.id FROM ({range}) AS driven CROSS JOIN LATERAL (
           SELECT id FROM segue_records AS records
            WHERE records.tenant = driven.tenant AND records.id = driven.response
              AND records.expires_at > %b::double precision OFFSET 0) AS records
     WHERE true {others}
  ORDER BY driven.created_at {order}, driven.number {order} LIMIT %b
"""
_HAS_LABEL = """
       AND EXISTS (SELECT 1 FROM segue_labels AS other
                    WHERE other.tenant = driven.tenant AND other.label = %b::bytea
                      AND other.created_at = driven.created_at AND other.number = driven.number)
"""
_COUNT = "SELECT count(*) FROM ({range}) AS driven"


async def list_labelled(
    connection: StoreConnection, tenant: str, query: ResponseQuery, now: float
) -> list[ResponseId] | None:
    """Return the living responses that match; None if `query.after` is not one. Raises `QueryTooBroad`."""
    after: Position | None = None
    if query.after is not None:
        rows = await connection.fetch(_POSITION, (tenant, query.after, now))
        if not rows:
            return None
        after = rows[0]
    labels = [label.digest for label in query.labels] or [pack_labels(())]
    low, high = query.bounds(after)
    for place in range(len(labels)):
        driven = (tenant, labels[place], *low, *high)
        found = await _scan(connection, driven, [*labels[:place], *labels[place + 1 :]], query=query, now=now)
        if found is not None:
            return found
    raise QueryTooBroad(f"no label of {query.labels!r} is rare enough")


async def _scan(
    connection: StoreConnection,
    driven: Sequence[str | bytes | float],
    others: Sequence[bytes],
    *,
    query: ResponseQuery,
    now: float,
) -> list[ResponseId] | None:
    """Look through the responses with one of the labels; return None if they are too many."""
    most = SCAN_LIMIT // max(1, len(query.labels))
    limit = f"LIMIT {most + 1}" if query.labels else ""
    range_ = _RANGE.format(order=query.order, limit=limit)
    statement = _FIND.format(range=range_, others=_HAS_LABEL * len(others), order=query.order)
    rows = await connection.fetch(statement.encode(), (*driven, now, *others, query.limit))
    found = [ResponseId(ident) for (ident,) in rows]
    if not query.labels or len(found) >= query.limit:
        return found
    too_many = await connection.fetch(_COUNT.format(range=range_).encode(), driven) > [(most,)]
    return None if too_many else found
