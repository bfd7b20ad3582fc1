"""How much a request may hold, told before anything of it is decoded. Pure.

What JSON costs to read is in its number of values more than in its bytes: a megabyte can be one text, or half a million
values. Not here: how many bytes a request may have, which the shell checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from segue.protocol.problems import Problem, invalid_json


def go_on() -> None:
    """Read on without a pause."""


class RequestLimits(msgspec.Struct, frozen=True):
    """`items` of an input, and JSON values of a whole request: members, elements, and what holds them.

    `pause` is called between the parts of a large request: whoever reads it can let others work there.
    """

    items: int = 20_000
    values: int = 100_000
    pause: Callable[[], None] = go_on


DEFAULT_LIMITS = RequestLimits()

#: A number of more digits is refused in a document of more than `_MUCH_BYTES`: reading it takes the square of them.
_LONG_NUMBER = 1000
_MUCH_BYTES = 128 * 1024
_DIGITS = bytes(ord("0") if chr(byte) in "123456789" else byte for byte in range(256))
_ZEROS = b"0" * _LONG_NUMBER
#: More backslashes are refused. A text is decoded and encoded in one call each, which nothing interrupts: an escape
#: takes ten times as long as a character, and 16 MB of nothing else 70 ms. Of `\\u00e4` alone, 16 MB have fewer.
_MANY_ESCAPES = 3_000_000
#: So much is looked at in one call. A call is not interrupted: whatever else the process has to do waits for its end.
_SLICE_BYTES = 1 << 17
_WINDOW_BYTES = 1 << 15


def refuse_size(document: bytes | str, limits: RequestLimits = DEFAULT_LIMITS) -> Problem | None:
    """Refuse a document that has too many values, or numbers that take long to read. One that is no JSON may pass.

    It counts what begins a value or parts two of them. Nearly always it need not look which of that is within texts.
    """
    size = len(document)
    if size > _MANY_ESCAPES and _count(document, "\\", limits) > _MANY_ESCAPES:
        return Problem("message_too_large", f"The request's texts hold more than {_MANY_ESCAPES} backslashes.")
    may_be_long = size > _MUCH_BYTES  # a few long numbers are read soon
    may_be_many = size > 2 * limits.values  # a value and what parts it from the next take two bytes
    if not (may_be_long or may_be_many):
        return None
    data = document if isinstance(document, bytes) else document.encode("utf-8", "surrogatepass")
    may_be_many = may_be_many and _marks(data, limits) > limits.values
    may_be_long = may_be_long and _has_long_number(data, limits)
    if not (may_be_long or may_be_many):
        return None
    count = 0
    for outside in _outside_texts(data):
        limits.pause()
        count += _marks(outside, limits)
        if count > limits.values:
            return too_many_values(limits)
        if len(outside) > _LONG_NUMBER and _has_long_number(outside, limits):
            return invalid_json(f"it holds a number of more than {_LONG_NUMBER} digits")
    return None


def too_many_values(limits: RequestLimits) -> Problem:
    """Return why a request is refused that has too many values."""
    return Problem("message_too_large", f"The request holds more than {limits.values} JSON values.")


def too_many_items(limits: RequestLimits, count: int) -> Problem:
    """Return why a request is refused that has too many items."""
    message = (
        f"'input' has {count} items; a request may have {limits.items}. "
        "Send them in several turns, each of which continues the one before with previous_response_id."
    )
    return Problem("invalid_value", message, "input")


def _marks(data: bytes, limits: RequestLimits) -> int:
    return sum(_count(data, mark, limits) for mark in ",[{")


def _count(document: bytes | str, mark: str, limits: RequestLimits) -> int:
    if isinstance(document, str):
        return sum(document.count(mark, at, at + _SLICE_BYTES) for at in _slices(document, limits))
    return sum(document.count(mark.encode(), at, at + _SLICE_BYTES) for at in _slices(document, limits))


def _has_long_number(data: bytes, limits: RequestLimits) -> bool:
    parts = (data[at : at + _SLICE_BYTES + _LONG_NUMBER] for at in _slices(data, limits))
    return any(_ZEROS in part.translate(_DIGITS) for part in parts)


def _slices(document: bytes | str, limits: RequestLimits) -> Iterator[int]:
    """Yield where the slices of a document begin, with a pause between two."""
    for at in range(0, len(document), _SLICE_BYTES):
        if at:
            limits.pause()
        yield at


def _outside_texts(data: bytes) -> Iterator[bytes]:
    """Yield what is between the texts of a document, a window at a time. A quote stands for each text."""
    at, within = 0, False
    while at < len(data):
        window = data[at : at + _WINDOW_BYTES]
        if _backslashes_at_end(window) % 2:  # what it escapes belongs to it
            window = data[at : at + _WINDOW_BYTES + 1]
        at += len(window)
        if b"\\" in window:
            window = window.replace(rb"\\", b"").replace(rb"\"", b"")
        pieces = window.split(b'"')  # outside and within, in turn
        yield b'"'.join(pieces[within::2])
        within ^= len(pieces) % 2 == 0


def _backslashes_at_end(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\\"))
