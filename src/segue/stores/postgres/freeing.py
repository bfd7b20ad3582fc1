"""Rows of a PostgreSQL store that nobody names any more: burying responses, and freeing what no descendant needs.

Each function runs within one transaction, at READ COMMITTED: what it locks, it looks at again in its next statement.

- Who deletes holds the first row of a segment, so that one transaction at a time frees rows of it. (It is the last one
  to be freed, so it is always the same.) Who comes later sees what the others have deleted.
- A new row locks its parent (`new_rows`). So who frees rows locks them, then looks whether they have children by now.
- Who frees settings does likewise.

Not here: whatever else is asked of the rows (`store`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from segue.stores.postgres.arrays import integers, texts, uuids
from segue.stores.postgres.connections import StoreConnection
from segue.stores.sqlite_labels import LABEL_BYTES

_HOLD = b"""
    SELECT first.segment
      FROM (SELECT segment FROM unnest(%b::uuid[]) AS wanted (segment) ORDER BY segment) AS wanted CROSS JOIN LATERAL (
           SELECT segment FROM segue_records AS records WHERE records.segment = wanted.segment
            ORDER BY depth LIMIT 1 FOR NO KEY UPDATE) AS first
"""
_FREE_ITEMS = b"""
    DELETE FROM segue_items USING unnest(%b::text[], %b::text[]) AS dead (tenant, id)
     WHERE segue_items.tenant = dead.tenant AND segue_items.response = dead.id
"""
# Its own labels are those of its settings: an index by response would cost as much as they do. Each OFFSET keeps the
# server from joining in another order: before it has statistics, it may begin with all labels, which takes seconds.
_FREE_LABELS = f"""
    DELETE FROM segue_labels AS labels
     USING (SELECT dead.tenant, substr(echoes.labels, first, {LABEL_BYTES}) AS label, records.created_at, records.number
              FROM unnest(%b::text[], %b::text[]) AS dead (tenant, id) CROSS JOIN LATERAL (
                   SELECT created_at, number, echo FROM segue_records AS records
                    WHERE records.tenant = dead.tenant AND records.id = dead.id OFFSET 0) AS records
        CROSS JOIN LATERAL (
                   SELECT labels FROM segue_echoes AS echoes WHERE echoes.number = records.echo OFFSET 0) AS echoes
        CROSS JOIN LATERAL generate_series(1, length(echoes.labels), {LABEL_BYTES}) AS places (first) OFFSET 0) AS gone
     WHERE labels.tenant = gone.tenant AND labels.label = gone.label
       AND labels.created_at = gone.created_at AND labels.number = gone.number
""".encode()  # noqa: S608 - made of constants
_HOLD_ECHOES = b"""
    SELECT number FROM segue_echoes WHERE number = ANY(%b::bigint[]) ORDER BY number FOR NO KEY UPDATE
"""
_ENTOMB = b"""
    UPDATE segue_records AS records SET head = NULL, echo = NULL
      FROM unnest(%b::text[], %b::text[]) AS dead (tenant, id)
     WHERE records.tenant = dead.tenant AND records.id = dead.id
"""
_FIND_ECHO = b"SELECT number FROM segue_echoes WHERE tenant = %b::text AND digest = %b::bytea"
_UNUSED_ECHOES = b"""
    SELECT number FROM segue_echoes
     WHERE number = ANY(%b::bigint[])
       AND NOT EXISTS (SELECT 1 FROM segue_records AS records WHERE records.echo = segue_echoes.number OFFSET 0)
"""
_LOCK_ECHOES = _UNUSED_ECHOES + b" ORDER BY number FOR UPDATE"
_FREE_ECHOES = b"""
    DELETE FROM segue_echoes
     WHERE number = ANY(%b::bigint[])
       AND NOT EXISTS (SELECT 1 FROM segue_records AS records WHERE records.echo = segue_echoes.number OFFSET 0)
"""
# The newest row of a segment that is a response, or is needed by another segment or by a conversation.
_KEPT = """
    SELECT coalesce(max(depth), -1) FROM (
           SELECT depth FROM segue_records AS kept
            WHERE kept.segment = wanted.segment
              AND (kept.head IS NOT NULL
                   OR EXISTS (SELECT 1 FROM segue_records AS fork
                               WHERE fork.base = kept.segment AND fork.base_depth = kept.depth OFFSET 0)
                   OR EXISTS (SELECT 1 FROM segue_conversations AS conversations
                               WHERE conversations.tenant = kept.tenant AND conversations.turn = kept.id OFFSET 0))
            ORDER BY depth DESC LIMIT 1) AS newest
"""
_LOCK_ENDS = f"""
    SELECT ends.segment, ends.depth
      FROM unnest(%b::uuid[]) AS wanted (segment) CROSS JOIN LATERAL (
           SELECT segment, depth FROM segue_records AS records
            WHERE records.segment = wanted.segment AND records.depth > ({_KEPT})
            ORDER BY depth FOR UPDATE) AS ends
""".encode()  # noqa: S608 - made of constants
_FREE_ENDS = f"""
    WITH ends AS (
        SELECT wanted.segment, greatest(wanted.lowest, 1 + ({_KEPT})) AS lowest
          FROM unnest(%b::uuid[], %b::integer[]) AS wanted (segment, lowest)
    )
    DELETE FROM segue_records AS records USING ends
     WHERE records.segment = ends.segment AND records.depth >= ends.lowest
    RETURNING records.base, records.base_depth, records.depth
""".encode()  # noqa: S608 - made of constants


class Living(NamedTuple):
    """A response that is to be buried. Its row is locked."""

    tenant: str
    id: str
    segment: bytes
    echo: int | None


async def hold(connection: StoreConnection, segments: Iterable[bytes]) -> None:
    """Wait until nobody else frees rows of these segments."""
    await connection.fetch(_HOLD, (uuids(sorted(set(segments))),))


async def bury(connection: StoreConnection, dead: Sequence[Living]) -> None:
    """Turn responses into tombstones, and free what no descendant and no conversation needs.

    The caller holds their segments, or has locked the rows.
    """
    keys = (texts(row.tenant for row in dead), texts(row.id for row in dead))
    echoes = sorted({row.echo for row in dead if row.echo is not None})
    await connection.fetch(_FREE_ITEMS, keys)
    await connection.fetch(_FREE_LABELS, keys)
    await connection.fetch(_ENTOMB, keys)
    await free(connection, {row.segment for row in dead})
    await _free_echoes(connection, echoes)


async def free(connection: StoreConnection, segments: set[bytes]) -> bool:
    """Free the ends of segments that nobody needs, and of those that they have begun from; tell whether any was."""
    freed = False
    while segments:
        await hold(connection, segments)
        ends = await connection.fetch(_LOCK_ENDS, (uuids(segments),))
        lowest: dict[bytes, int] = {}
        for segment, depth in ends:
            lowest[segment.bytes] = min(depth, lowest.get(segment.bytes, depth))
        if not lowest:
            break
        values = (uuids(lowest), integers(lowest.values()))
        rows = await connection.fetch(_FREE_ENDS, values)
        freed = freed or bool(rows)
        segments = {base.bytes for base, base_depth, depth in rows if base is not None and depth == base_depth + 1}
    return freed


async def free_settings(connection: StoreConnection, tenant: str, digest: bytes | None) -> None:
    """Free the settings of a row that was refused, unless a response has them."""
    found = await connection.fetch(_FIND_ECHO, (tenant, digest))
    if found:
        async with connection.transaction():
            await _free_echoes(connection, [number for (number,) in found])


async def _free_echoes(connection: StoreConnection, numbers: list[int]) -> None:
    """Free settings that no response has any more. Appends that use them wait meanwhile, so few are locked.

    Who deletes holds them after all segments, or two could wait for each other.
    """
    await connection.fetch(_HOLD_ECHOES, (numbers,))
    unused = [number for (number,) in await connection.fetch(_UNUSED_ECHOES, (numbers,))]
    if unused:
        await connection.fetch(_LOCK_ECHOES, (unused,))
        await connection.fetch(_FREE_ECHOES, (unused,))
