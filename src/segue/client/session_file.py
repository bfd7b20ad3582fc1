"""A session in a file: JSON of one schema, written whole or not at all, readable by its owner only.

It holds the history, and the turn that had not ended, if there was one. It holds no key and no header. Not here: what
is saved (`session_state`).
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final, Literal

import msgspec

from segue.client.continuation import Continuation
from segue.client.errors import SessionFileError
from segue.client.session_state import SavedTurn, SessionRecord
from segue.client.settings import SessionSettings
from segue.client.turn_effects import DeliveredCreate
from segue.protocol.codec import UNREADABLE, encode

SCHEMA: Final = "segue.client.session"
VERSION: Final = 1
#: A larger file is not read.
MOST_BYTES = 1024 * 1024 * 1024

_NOTHING = "Nothing was sent."
_NO_FILE = "it is no plain file"


class _Header(msgspec.Struct):
    schema: str
    version: int


class _FiledTurn(msgspec.Struct, kw_only=True):
    items: list[msgspec.Raw]
    key: str
    settings: SessionSettings
    delivered: DeliveredCreate | None = None
    alive_at: float = 0.0


class _FiledSession(msgspec.Struct, kw_only=True):
    schema: Literal["segue.client.session"] = SCHEMA
    version: Literal[1] = VERSION
    base_url: str
    settings: SessionSettings
    items: list[msgspec.Raw]
    continuation: Continuation | None = None
    turn: _FiledTurn | None = None


_headers = msgspec.json.Decoder(_Header)
_files = msgspec.json.Decoder(_FiledSession)


def encode_session(record: SessionRecord, base_url: str) -> bytes:
    """Write a session as JSON; its items keep their bytes."""
    turn = record.turn
    filed = None
    if turn is not None:
        filed = _FiledTurn(
            items=list(map(msgspec.Raw, turn.items)), key=turn.key, settings=turn.settings, delivered=turn.delivered,
            alive_at=turn.alive_at,
        )  # fmt: skip
    items = list(map(msgspec.Raw, record.items))
    return encode(
        _FiledSession(
            base_url=base_url, settings=record.settings, items=items, continuation=record.continuation, turn=filed
        )
    )


def decode_session(data: bytes, base_url: str) -> SessionRecord:
    """Read a session.

    Raises:
        SessionFileError: it is none, of another version, or of another server.
    """
    try:
        header = _headers.decode(data)
    except UNREADABLE:
        header = _Header("", 0)
    if header.schema != SCHEMA:
        raise SessionFileError("The file holds no session.", f"{_NOTHING} Choose a file that `save` has written.")
    if header.version != VERSION:
        done = f"The file has version {header.version} of the schema, and this library reads version {VERSION}."
        raise SessionFileError(done, f"{_NOTHING} Use the version of the library that wrote it.")
    try:
        filed = _files.decode(data)
    except UNREADABLE:
        raise damaged_file() from None
    if filed.base_url != base_url:
        raise SessionFileError(
            "The session in the file belongs to another server than this client's.",
            f"{_NOTHING} Use a client with the base_url {filed.base_url[:200]!r}.",
        )
    return _record_of(filed)


def write_session(path: str, data: bytes) -> None:
    """Put a file in the place of another, so that at any moment there is one whole file.

    Raises:
        SessionFileError: it cannot be written; what was there stays.
    """
    temporary = None
    try:
        target = _replaceable(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # only its owner can read it
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except (OSError, ValueError) as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        done = f"The session could not be written: {_reason(error)}."
        raise SessionFileError(done, "The session itself goes on.") from None


def read_session(path: str) -> bytes:
    """Read a file.

    Raises:
        SessionFileError: it cannot be read, or is too large.
    """
    try:
        with open(path, "rb", opener=_open_plain) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise SessionFileError(f"The file could not be read: {_reason(error)}.", _NOTHING) from None
    if len(data) > MOST_BYTES:
        raise SessionFileError("The file is too large to be a session.", _NOTHING)
    return data


def damaged_file() -> SessionFileError:
    """Return the error of a file that `save` has not written like this."""
    return SessionFileError("The file is damaged.", f"{_NOTHING} Begin a new session.")


def _replaceable(path: str) -> Path:
    """Return the file to replace. A link stays, and what it leads to is replaced."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(_NO_FILE)
    return target


def _open_plain(path: str, flags: int) -> int:
    """Open a plain file: a pipe would be waited for, and a device may never end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(_NO_FILE)
    return descriptor


def _record_of(filed: _FiledSession) -> SessionRecord:
    turn = filed.turn
    saved = None
    if turn is not None:
        saved = SavedTurn(
            items=_items(turn.items), key=turn.key, settings=turn.settings, delivered=turn.delivered,
            alive_at=turn.alive_at,
        )  # fmt: skip
    return SessionRecord(
        settings=filed.settings, items=_items(filed.items), continuation=filed.continuation, turn=saved
    )


def _reason(error: OSError | ValueError) -> str:
    """Return what the system says, or why it was not asked: a path with a zero byte is none."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def _items(raws: list[msgspec.Raw]) -> tuple[bytes, ...]:
    items = tuple(map(bytes, raws))
    if not all(item.startswith(b"{") for item in items):
        raise damaged_file()
    return items
