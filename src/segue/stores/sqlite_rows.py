"""Rows of turns in an SQLite store that nobody names any more: when they stay for others, and when they are freed.

A row with a head is a response. One without is a tombstone, or items that were added to a conversation: it is there for
its children, and for the conversation that points at it. Not here: whatever else is asked of the rows (`sqlite`).
"""

from __future__ import annotations

import sqlite3

from segue.stores.sqlite_labels import remove_labels

_FREE_ITEMS = "DELETE FROM item_ids WHERE record = ?"
_ENTOMB = "UPDATE records SET head = NULL, echo = NULL WHERE seq = ?"
_IS_NEEDED = "SELECT 1 FROM records WHERE parent = :seq UNION ALL SELECT 1 FROM conversations WHERE turn = :seq LIMIT 1"
_FREE = "DELETE FROM records WHERE seq = ?"
_PARENT_IF_DEAD = "SELECT parent FROM records WHERE seq = ? AND head IS NULL"
_FREE_ECHO = "DELETE FROM echoes WHERE seq = ? AND NOT EXISTS (SELECT 1 FROM records WHERE echo = echoes.seq)"


def delete_row(connection: sqlite3.Connection, seq: int, parent: int | None, echo: int) -> None:
    """Turn a response into a tombstone if it is needed; else free it, and the ancestors that only it still needed."""
    connection.execute(_FREE_ITEMS, (seq,))
    remove_labels(connection, seq)
    if connection.execute(_IS_NEEDED, {"seq": seq}).fetchone():
        connection.execute(_ENTOMB, (seq,))
    else:
        connection.execute(_FREE, (seq,))
        free_rows(connection, parent)
    connection.execute(_FREE_ECHO, (echo,))


def free_rows(connection: sqlite3.Connection, seq: int | None) -> bool:
    """Free a row and its ancestors, up to the first one that is a response or is needed; tell whether any was freed."""
    freed = False
    while seq is not None:
        row = connection.execute(_PARENT_IF_DEAD, (seq,)).fetchone()
        if row is None or connection.execute(_IS_NEEDED, {"seq": seq}).fetchone():
            break
        connection.execute(_FREE, (seq,))
        freed = True
        (seq,) = row
    return freed
