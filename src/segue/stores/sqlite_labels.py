"""Responses of an SQLite store by their labels, in the order of time: one row for each label of a response.

A label stands there as a digest, and each response has one label more, which all have. Not here: what is asked of the
rows of responses (`sqlite`), and what labels are (`segue.protocol.response_query`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from segue.history.records import labels_of
from segue.protocol.ids import ResponseId
from segue.protocol.response_query import SCAN_LIMIT, Label, Position, ResponseQuery
from segue.stores.interface import QueryTooBroad

#: How long the digest of a label is.
LABEL_BYTES = 16
#: The label of all responses: no digest is like it.
_EVERY = bytes(LABEL_BYTES)

_ADD = "INSERT INTO labels (tenant, label, created_at, record) VALUES (?, ?, ?, ?)"
_LABELS = """
    SELECT echoes.labels, records.tenant, records.created_at, records.seq
      FROM records JOIN echoes ON echoes.seq = records.echo
     WHERE records.seq = ?
"""
_REMOVE = "DELETE FROM labels WHERE label = ? AND tenant = ? AND created_at = ? AND record = ?"
_POSITION = "SELECT created_at, seq FROM records WHERE tenant = ? AND id = ? AND head IS NOT NULL AND expires_at > ?"
# A CROSS JOIN is carried out from left to right: the rows come from the index in its order, one by one.
_FIND = """
    SELECT records.id, records.expires_at > :now {others}
      FROM labels CROSS JOIN records ON records.seq = labels.record
     WHERE labels.tenant = :tenant AND labels.label = :label0
       AND (labels.created_at, labels.record) > (:low_at, :low)
       AND (labels.created_at, labels.record) < (:high_at, :high)
  ORDER BY labels.created_at {order}, labels.record {order}
"""
_HAS_LABEL = """
    AND EXISTS (SELECT 1 FROM labels AS others
                 WHERE others.tenant = labels.tenant AND others.label = :label{number}
                   AND others.created_at = labels.created_at AND others.record = labels.record)
"""


def pack_labels(labels: Sequence[Label]) -> bytes:
    """Return the digests of labels, and of the label that all responses have, one after the other."""
    return b"".join((_EVERY, *(label.digest for label in labels)))


def label_digests(echo: bytes) -> bytes:
    """Return the packed labels of responses with an echo: a function of SQL, for migrations."""
    return pack_labels(labels_of(echo))


def add_labels(connection: sqlite3.Connection, labels: bytes, row: tuple[str, float, int | None]) -> None:
    """Let a new response (its tenant, time and number) be found by its packed labels."""
    tenant, created_at, number = row
    connection.executemany(_ADD, [(tenant, label, created_at, number) for label in _unpack(labels)])


def remove_labels(connection: sqlite3.Connection, seq: int) -> None:
    """Let a response be found no more."""
    labels, *row = connection.execute(_LABELS, (seq,)).fetchone()
    connection.executemany(_REMOVE, [(label, *row) for label in _unpack(labels)])


def find_labelled(
    connection: sqlite3.Connection, tenant: str, query: ResponseQuery, now: float
) -> list[ResponseId] | None:
    """Return the living responses that match; None if `query.after` is not one. Raises `QueryTooBroad`."""
    after: Position | None = None
    if query.after is not None:
        after = connection.execute(_POSITION, (tenant, query.after, now)).fetchone()
        if after is None:
            return None
    labels = [label.digest for label in query.labels] or [_EVERY]
    for place in range(len(labels)):
        driven = [labels[place], *labels[:place], *labels[place + 1 :]]
        found = _scan(connection, driven, query, {**_range(query, after), "tenant": tenant, "now": now})
        if found is not None:
            return found
    raise QueryTooBroad(f"no label of {query.labels!r} is rare enough")


def _range(query: ResponseQuery, after: Position | None) -> dict[str, float]:
    low, high = query.bounds(after)
    return {"low_at": low[0], "low": low[1], "high_at": high[0], "high": high[1]}


def _scan(
    connection: sqlite3.Connection, labels: Sequence[bytes], query: ResponseQuery, values: dict[str, str | float]
) -> list[ResponseId] | None:
    """Look through the responses with the first of the labels; return None if they are too many."""
    others = "".join(_HAS_LABEL.format(number=number) for number in range(1, len(labels)))
    given = {f"label{number}": label for number, label in enumerate(labels)}
    found: list[ResponseId] = []
    rows = connection.execute(_FIND.format(others=others, order=query.order), {**values, **given})
    try:
        for seen, (ident, matches) in enumerate(rows):
            if query.labels and seen == SCAN_LIMIT // len(labels):
                return None
            if matches:
                found.append(ident)
            if len(found) == query.limit:
                break
    finally:
        rows.close()
    return found


def _unpack(labels: bytes) -> list[bytes]:
    return [labels[at : at + LABEL_BYTES] for at in range(0, len(labels), LABEL_BYTES)]
