"""New rows of turns: the one statement that writes any number of them, and the columns that it takes. Pure.

The statement finds each row's parent and its place in a segment, keeps its settings once, and notes which items it has.
It locks the parent and the settings as a foreign key would, so that whoever deletes them waits, and looks again. A row
whose parent or settings are not there, or whose id or place is taken, is not written; the statement returns the numbers
of those that are. Not here: running it (`appends`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import msgspec

from segue.history.conversations import ConversationStep
from segue.history.records import Record, labels_of
from segue.protocol.codec import encode
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.items import join
from segue.stores.postgres.arrays import PackedArray, byteas, floats, integers, texts, uuids
from segue.stores.sqlite_labels import LABEL_BYTES, pack_labels

_SEGMENT_TIME_BYTES = 6
_SEGMENT_BYTES = 16

#: The columns of `given`, in the order of `Rows.parameters`.
_COLUMNS = {
    "tenant": "text",
    "id": "text",
    "parent": "text",
    "fresh": "uuid",  # the segment that it begins, if it begins one
    "created_at": "double precision",
    "expires_at": "double precision",
    "digest": "bytea",
    "settings": "bytea",
    "labels": "bytea",
    "calls": "bytea",
    "head": "bytea",
    "input": "bytea",
    "output": "bytea",
    "native": "bytea",
}

# A subquery that locks rows, or has an OFFSET, is never merged into what is around it, nor made for all rows at once:
# each row is found by its key.
_WRITE = """
    WITH given AS (
        SELECT * FROM unnest({parameters}) WITH ORDINALITY AS given ({columns}, n)
    ), parents AS (
        SELECT given.n, parent.segment, parent.depth, parent.base, parent.base_depth,
               EXISTS (SELECT 1 FROM segue_records AS child
                        WHERE child.segment = parent.segment AND child.depth = parent.depth + 1
                       OFFSET 0) AS continued
          FROM given CROSS JOIN LATERAL (
               SELECT segment, depth, base, base_depth FROM segue_records AS records
                WHERE records.tenant = given.tenant AND records.id = given.parent
                  FOR KEY SHARE) AS parent
    ), held AS (
        SELECT echo.tenant, echo.digest, echo.number, echo.labels
          FROM (SELECT DISTINCT tenant, digest FROM given WHERE digest IS NOT NULL) AS wanted CROSS JOIN LATERAL (
               SELECT tenant, digest, number, labels FROM segue_echoes AS echoes
                WHERE echoes.tenant = wanted.tenant AND echoes.digest = wanted.digest
                  FOR KEY SHARE) AS echo
    ), kept AS (
        INSERT INTO segue_echoes (tenant, digest, echo, labels)
        SELECT DISTINCT ON (given.tenant, given.digest) given.tenant, given.digest, given.settings, given.labels
          FROM given
     LEFT JOIN held ON held.tenant = given.tenant AND held.digest = given.digest
     LEFT JOIN parents ON parents.n = given.n
         WHERE given.settings IS NOT NULL AND held.number IS NULL
           AND (given.parent IS NULL OR parents.n IS NOT NULL)
            ON CONFLICT DO NOTHING
        RETURNING tenant, digest, number, labels
    ), echoes AS (
        SELECT tenant, digest, number, labels FROM held UNION ALL SELECT tenant, digest, number, labels FROM kept
    ), placed AS (
        SELECT given.*, parents.segment, parents.depth, parents.base, parents.base_depth, parents.continued,
               echoes.number
          FROM given
     LEFT JOIN parents ON parents.n = given.n
     LEFT JOIN echoes ON echoes.tenant = given.tenant AND echoes.digest = given.digest
         WHERE (given.parent IS NULL OR parents.n IS NOT NULL)
           AND (given.digest IS NULL OR echoes.number IS NOT NULL)
    ), {moved}added AS (
        INSERT INTO segue_records (tenant, id, segment, depth, base, base_depth, echo, created_at, expires_at,
                                   calls, head, input, output, native)
        SELECT tenant, id,
               CASE WHEN segment IS NULL OR continued THEN fresh ELSE segment END,
               coalesce(depth + 1, 0),
               CASE WHEN continued THEN segment ELSE base END,
               CASE WHEN continued THEN depth ELSE base_depth END,
               number, created_at, expires_at, calls, head, input, output, native
          FROM placed {condition}
        RETURNING tenant, id, created_at, number
    ), listed AS (
        INSERT INTO segue_labels (tenant, label, created_at, number, response)
        SELECT added.tenant, substr(echoes.labels, first, {label_bytes}), added.created_at, added.number, added.id
          FROM added
          JOIN given ON given.tenant = added.tenant AND given.id = added.id
          JOIN echoes ON echoes.tenant = given.tenant AND echoes.digest = given.digest
    CROSS JOIN LATERAL generate_series(1, length(echoes.labels), {label_bytes}) AS labels (first)
    ), owned AS (
        INSERT INTO segue_items (tenant, item, response)
        SELECT added.tenant, items.item, added.id
          FROM unnest(%b::integer[], %b::bytea[], %b::integer[]) AS items (n, item, made)
          JOIN given ON given.n = items.n
          JOIN added ON added.tenant = given.tenant AND added.id = given.id
         WHERE items.made = 1
            OR NOT EXISTS (SELECT 1 FROM segue_items AS known
                            WHERE known.tenant = added.tenant AND known.item = items.item)
            ON CONFLICT DO NOTHING
    )
    SELECT given.n FROM added JOIN given ON given.tenant = added.tenant AND given.id = added.id
"""
_MOVED = """moved AS (
        UPDATE segue_conversations AS conversations
           SET turn = placed.id, changed_at = greatest(changed_at, placed.created_at)
          FROM placed
         WHERE conversations.tenant = placed.tenant AND conversations.id = %b::text
           AND conversations.turn IS NOT DISTINCT FROM %b::text
        RETURNING conversations.id
    ), """
_FILL = {
    "parameters": ", ".join(f"%b::{kind}[]" for kind in _COLUMNS.values()),
    "columns": ", ".join(_COLUMNS),
    "label_bytes": str(LABEL_BYTES),
}


def _packed(statement: str) -> bytes:
    """Return a statement without its indentation: psycopg remembers what it has made of one of up to 4 KB."""
    return " ".join(statement.split()).encode()


#: Writes rows; leaves out those that cannot be written.
WRITE = _packed(_WRITE.format(**_FILL, moved="", condition="ON CONFLICT DO NOTHING"))
#: Writes one row, and points a conversation at it, which must have pointed at a turn until then. Fails where the id or
#: the place is taken, or the conversation would point at nothing.
WRITE_TO_CONVERSATION = _packed(_WRITE.format(**_FILL, moved=_MOVED, condition="WHERE EXISTS (SELECT 1 FROM moved)"))


class NewRow(msgspec.Struct, frozen=True):
    """A turn that is to be written: of a record, or of a step, which has no head and no settings."""

    tenant: str
    id: ResponseId
    parent_id: ResponseId | None
    created_at: float
    expires_at: float
    digest: bytes | None
    settings: bytes | None
    calls: bytes
    head: bytes | None
    input: bytes
    output: bytes
    native: bytes | None
    given_ids: frozenset[str] = frozenset()
    made_ids: frozenset[str] = frozenset()

    @property
    def size_bytes(self) -> int:
        """Roughly how many bytes it takes in a queue or on a socket."""
        optional = sum(len(part) for part in (self.settings, self.head, self.native) if part is not None)
        return len(self.input) + len(self.output) + optional + 256


def row_of(record: Record) -> NewRow:
    """Return the row of a record."""
    return NewRow(
        tenant=record.tenant,
        id=record.id,
        parent_id=record.parent_id,
        created_at=record.created_at,
        expires_at=record.expires_at,
        digest=record.echo_digest,
        settings=record.echo,
        calls=encode(sorted(record.calls)),
        head=record.head,
        input=join(record.input),
        output=join(record.output),
        native=None if record.native is None else record.native.pack(),
        given_ids=record.input_ids(),
        made_ids=record.output_ids(),
    )


def row_of_step(tenant: str, step: ConversationStep, at: float) -> NewRow:
    """Return the row of items that were added to a conversation."""
    return NewRow(
        tenant=tenant,
        id=step.id,
        parent_id=step.parent_id,
        created_at=at,
        expires_at=inf,
        digest=None,
        settings=None,
        calls=encode(sorted(step.calls)),
        head=None,
        input=join(step.input),
        output=b"[]",
        native=None,
    )


class ConversationPointer(msgspec.Struct, frozen=True):
    """The conversation that is to point at a new row, and where it points until then."""

    id: ConversationId
    turn_id: ResponseId | None


def parameters(
    rows: Sequence[NewRow], entropy: bytes, pointer: ConversationPointer | None = None
) -> list[PackedArray | str | None]:
    """Return the parameters of a statement that writes rows; `entropy` is 16 random bytes for each."""
    owned = [
        (n, ident.encode(), made)
        for n, row in enumerate(rows, 1)
        for made, idents in ((1, row.made_ids), (0, row.given_ids - row.made_ids))
        for ident in idents
    ]
    return [
        texts(row.tenant for row in rows),
        texts(row.id for row in rows),
        texts(row.parent_id for row in rows),
        uuids(_segment(row, entropy[n * _SEGMENT_BYTES :]) for n, row in enumerate(rows)),
        floats(row.created_at for row in rows),
        floats(row.expires_at for row in rows),
        byteas(row.digest for row in rows),
        byteas(row.settings for row in rows),
        byteas(None if row.settings is None else pack_labels(labels_of(row.settings)) for row in rows),
        byteas(row.calls for row in rows),
        byteas(row.head for row in rows),
        byteas(row.input for row in rows),
        byteas(row.output for row in rows),
        byteas(row.native for row in rows),
        *(() if pointer is None else (pointer.id, pointer.turn_id)),
        integers(n for n, _, _ in owned),
        byteas(ident for _, ident, _ in owned),
        integers(made for _, _, made in owned),
    ]


def _segment(row: NewRow, entropy: bytes) -> bytes:
    """Return a number for a new segment: new ones are near each other in the index, as with UUIDs of version 7."""
    millis = int(row.created_at * 1000) % (1 << 8 * _SEGMENT_TIME_BYTES)
    return millis.to_bytes(_SEGMENT_TIME_BYTES) + entropy[: _SEGMENT_BYTES - _SEGMENT_TIME_BYTES]
