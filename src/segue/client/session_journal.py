"""A session as lines of JSON: the first one has it whole, each further one what has changed since.

So a save costs what is new, however long the history is. Each line ends with a CRC-32 that goes on from the line
before: a line that is missing, doubled or of another file does not fit. The last line is left out if it does not fit:
it is an append that was cut off, and that nobody was told is done. Anywhere else the file is damaged. Version 1 of the
schema is one JSON object, and is still read. No key and no header is in it. Not here: the file (`session_file`), and
what is saved (`session_state`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw

from segue.client.continuation import Continuation
from segue.client.errors import SessionFileError
from segue.client.local_history import history_of
from segue.client.session_state import SavedTurn, SessionRecord
from segue.client.settings import SessionSettings
from segue.client.turn_effects import DeliveredCreate
from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.items import Item

SCHEMA: Final = "segue.client.session"
VERSION: Final = 2
#: A larger file is neither written nor read.
MOST_BYTES: Final = 1024 * 1024 * 1024

#: A file is written anew when it would be longer than this many times its history, each of them this much longer. A
#: turn takes some 600 bytes beside its items, so a session comes to that only if many of its turns fail.
_MOST_TIMES: Final = 4
_SPARE_BYTES: Final = 64 * 1024

_NOTHING = "Nothing was sent."


# --- what is in a line -----------------------------------------------------------------------------------------------


class _Header(msgspec.Struct):
    schema: str
    version: int


class _FirstLine(msgspec.Struct):
    schema: Literal["segue.client.session"]
    version: Literal[2]
    session: Raw
    check: int


class _FurtherLine(msgspec.Struct):
    change: Raw
    check: int


class _FiledTurn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A turn that has not ended; without settings, it has those of the session."""

    items: list[Raw]
    key: str
    settings: SessionSettings | None = None
    delivered: DeliveredCreate | None = None
    alive_at: float = 0.0


class _FiledSession(msgspec.Struct, kw_only=True):
    base_url: str
    settings: SessionSettings
    items: list[Raw]
    continuation: Continuation | None = None
    turn: _FiledTurn | None = None


class _FiledProgress(msgspec.Struct, kw_only=True, omit_defaults=True):
    delivered: DeliveredCreate | None = None
    alive_at: float = 0.0


class _FiledChange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What has changed since the line before. What is not named is none, but for the settings: they stay.

    `ended`: the turn of the line before has ended well, so that its items are the first of the new ones. `progress`:
    that turn goes on, and has come so far.
    """

    ended: bool = False
    items: list[Raw] = []
    settings: SessionSettings | None = None
    continuation: Continuation | None = None
    turn: _FiledTurn | None = None
    progress: _FiledProgress | None = None


_headers = msgspec.json.Decoder(_Header)
_first_lines = msgspec.json.Decoder(_FirstLine)
_further_lines = msgspec.json.Decoder(_FurtherLine)
_sessions = msgspec.json.Decoder(_FiledSession)
_changes = msgspec.json.Decoder(_FiledChange)
_documents = msgspec.json.Decoder(Raw)


# --- writing ---------------------------------------------------------------------------------------------------------


class Journal(msgspec.Struct, frozen=True):
    """What a file holds: the session as it was saved last, the check of the last line, and the size of all."""

    record: SessionRecord
    check: int
    size_bytes: int


class JournalWrite(msgspec.Struct, frozen=True):
    """What is to be written, and what the file holds then."""

    data: bytes
    then: Journal


def write_anew(record: SessionRecord, base_url: str) -> JournalWrite:
    """Write the first line, and nothing after it."""
    session = encode(
        _FiledSession(
            base_url=base_url,
            settings=record.settings,
            items=_raws(record.history.items),
            continuation=record.continuation,
            turn=_filed_turn(record),
        )
    )
    check = zlib.crc32(session)
    data = b'{"schema":"%b","version":%d,"session":%b,"check":%d}\n' % (SCHEMA.encode(), VERSION, session, check)
    return JournalWrite(data, Journal(record, check, len(data)))


def write_change(journal: Journal, record: SessionRecord) -> JournalWrite | None:
    """Write one more line; None if the file must be written anew.

    It must be if the history does not go on from the one that is there, or if too much of the file says what is no
    more.
    """
    change = _change_between(journal.record, record)
    if change is None:
        return None
    written = encode(change)
    check = zlib.crc32(written, journal.check)
    data = b'{"change":%b,"check":%d}\n' % (written, check)
    size = journal.size_bytes + len(data)
    if size > min(MOST_BYTES, _MOST_TIMES * (record.history.size_bytes + _SPARE_BYTES)):
        return None
    return JournalWrite(data, Journal(record, check, size))


def _change_between(before: SessionRecord, record: SessionRecord) -> _FiledChange | None:
    added = record.history.since(before.history)
    if added is None:
        return None
    known, turn = before.turn, record.turn
    same_settings = record.settings == before.settings
    goes_on = known is not None and turn is not None and same_settings and known.is_same_as(turn)
    ended = known is not None and not goes_on and bool(known.items) and added[: len(known.items)] == known.items
    if known is not None and ended:
        added = added[len(known.items) :]
    progress = None
    if turn is not None and goes_on:
        progress = _FiledProgress(delivered=turn.delivered, alive_at=turn.alive_at)
    return _FiledChange(
        ended=ended,
        items=_raws(added),
        settings=None if same_settings else record.settings,
        continuation=record.continuation,
        turn=None if goes_on else _filed_turn(record),
        progress=progress,
    )


def _filed_turn(record: SessionRecord) -> _FiledTurn | None:
    turn = record.turn
    if turn is None:
        return None
    settings = None if turn.settings == record.settings else turn.settings
    return _FiledTurn(
        items=_raws(turn.items), key=turn.key, settings=settings, delivered=turn.delivered, alive_at=turn.alive_at
    )


def _raws(items: Sequence[Item]) -> list[Raw]:
    """Return items as they stand in a line: as they are, or those with a line break as strings of their bytes."""
    return [Raw(item if b"\n" not in item else encode(item.decode("latin-1"))) for item in items]


# --- reading ---------------------------------------------------------------------------------------------------------


def read_journal(data: bytes, base_url: str) -> SessionRecord:
    """Return the session that a file holds, as it was when it was saved last.

    Raises:
        SessionFileError: it is none, damaged, of another version, or of another server.
    """
    first, whole, rest = data.partition(b"\n")
    header = _header_of(first) or _header_of(data)  # the items of version 1 may have line breaks
    if header is None or header.schema != SCHEMA:
        raise SessionFileError("The file holds no session.", f"{_NOTHING} Choose a file that `save` has written.")
    if header.version not in (1, VERSION):
        done = f"The file has version {header.version} of the schema, and this library reads version {VERSION}."
        raise SessionFileError(done, f"{_NOTHING} Use the version of the library that wrote it.")
    try:
        filed = _sessions.decode(data) if header.version == 1 else _read_lines(first, rest, begun=bool(whole))
        record = _record_of(filed)
    except UNREADABLE:
        raise damaged_file() from None
    if filed.base_url != base_url:
        raise SessionFileError(
            "The session in the file belongs to another server than this client's.",
            f"{_NOTHING} Use a client with the base_url {filed.base_url[:200]!r}.",
        )
    return record


def damaged_file() -> SessionFileError:
    """Return the error of a file that `save` has not written like this."""
    return SessionFileError("The file is damaged.", f"{_NOTHING} Begin a new session.")


def _header_of(data: bytes) -> _Header | None:
    try:
        return _headers.decode(data)
    except UNREADABLE:
        return None


def _read_lines(first: bytes, rest: bytes, *, begun: bool) -> _FiledSession:
    """Read a whole journal. `begun`: the first line has its end; it is put in its place only when it is whole."""
    line = _first_lines.decode(first)
    check = zlib.crc32(line.session)
    if not begun or check != line.check:
        raise damaged_file()
    filed = _sessions.decode(line.session)
    lines = rest.split(b"\n")
    del lines[-1]  # empty, or the begin of an append that was cut off
    for number, data in enumerate(lines, 1):
        further = _read_line(data, check)
        if further is None and number == len(lines):  # the blocks of an append may reach the disk in any order
            break
        if further is None:
            raise damaged_file()
        check = further.check
        _apply(_changes.decode(further.change), filed)
    return filed


def _read_line(data: bytes, check: int) -> _FurtherLine | None:
    """Read a line that follows one with this check; None if it does not fit."""
    try:
        line = _further_lines.decode(data)
    except UNREADABLE:
        return None
    return line if zlib.crc32(line.change, check) == line.check else None


def _apply(change: _FiledChange, filed: _FiledSession) -> None:
    turn = filed.turn
    if turn is None and (change.ended or change.progress is not None):
        raise damaged_file()
    if turn is not None and change.ended:
        filed.items += turn.items
    filed.items += change.items
    filed.settings = change.settings or filed.settings
    filed.continuation = change.continuation
    filed.turn = change.turn
    if turn is not None and change.progress is not None:
        turn.delivered, turn.alive_at = change.progress.delivered, change.progress.alive_at
        filed.turn = turn


def _record_of(filed: _FiledSession) -> SessionRecord:
    turn, saved = filed.turn, None
    if turn is not None:
        settings = turn.settings or filed.settings
        saved = SavedTurn(
            items=_items(turn.items), key=turn.key, settings=settings, delivered=turn.delivered, alive_at=turn.alive_at
        )
    history = history_of(_items(filed.items))
    return SessionRecord(settings=filed.settings, history=history, continuation=filed.continuation, turn=saved)


def _items(raws: Sequence[Raw]) -> tuple[Item, ...]:
    return tuple(_item(bytes(raw)) for raw in raws)


def _item(raw: bytes) -> Item:
    """Return an item; one that has line breaks is a string."""
    if raw.startswith(b'"'):
        raw = msgspec.json.decode(raw, type=str).encode("latin-1")
        _documents.decode(raw)  # it will be a part of a request
    if not raw.startswith(b"{"):
        raise damaged_file()
    return raw
