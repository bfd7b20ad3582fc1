"""Dictionaries of RFC 9651 (structured fields), as a client reads them from a header of its peer.

All bare items are read; parameters are checked and dropped. A header that breaks the grammar anywhere is worth nothing
(RFC 9651, 4.2), and one that is too long is not looked at. Not here: lists and items at the top, and writing.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence

#: No header that anybody sends on purpose is longer.
MAX_CHARS = 16 * 1024

#: A bare item; dates count as integers, tokens, byte sequences and display strings as text.
BareItem = str | int | float | bool | bytes
Member = BareItem | tuple[BareItem, ...]

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_ESCAPED = re.compile(r"\\(.)")
_PERCENT = re.compile(rb"%([0-9a-f]{2})")
_SPACES = re.compile(r" *")
_OPTIONAL_WHITESPACE = re.compile(r"[ \t]*")


class _BrokenFieldError(ValueError):
    """The header is no dictionary."""


def read_dictionary(header: str) -> Mapping[str, Member] | None:
    """Read a dictionary; None if the header is none, or longer than `MAX_CHARS`."""
    if len(header) > MAX_CHARS or not header.isascii():
        return None
    try:
        return _Reader(header.strip(" ")).dictionary()
    except _BrokenFieldError:
        return None


class _Reader:
    """Reads from left to right; each method takes what its name says, or raises."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def dictionary(self) -> dict[str, Member]:
        members: dict[str, Member] = {}
        while self._at < len(self._text):
            key = self._match(_KEY).group()
            members.pop(key, None)  # the last one of a name wins, and stands where it stood (4.2.2)
            if self._skip("="):
                members[key] = self._inner_list() if self._skip("(") else self._bare_item()
            else:
                members[key] = True
            self._parameters()
            self._match(_OPTIONAL_WHITESPACE)
            if self._at == len(self._text):
                break
            self._expect(",")
            self._match(_OPTIONAL_WHITESPACE)
            if self._at == len(self._text):
                raise _BrokenFieldError  # a trailing comma
        return members

    def _inner_list(self) -> tuple[BareItem, ...]:
        items: list[BareItem] = []
        while True:
            spaces = self._match(_SPACES).group()
            if self._skip(")"):
                return tuple(items)
            if items and not spaces:
                raise _BrokenFieldError
            items.append(self._bare_item())
            self._parameters()

    def _parameters(self) -> None:
        while self._skip(";"):
            self._match(_SPACES)
            self._match(_KEY)
            if self._skip("="):
                self._bare_item()

    def _bare_item(self) -> BareItem:
        for pattern, read in _BARE_ITEMS:
            found = pattern.match(self._text, self._at)
            if found is not None:
                self._at = found.end()
                return read(found)
        raise _BrokenFieldError

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _BrokenFieldError
        self._at = found.end()
        return found

    def _skip(self, character: str) -> bool:
        there = self._text.startswith(character, self._at)
        self._at += there
        return there

    def _expect(self, character: str) -> None:
        if not self._skip(character):
            raise _BrokenFieldError


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise _BrokenFieldError from error


def _displayed(text: str) -> str:
    raw = _PERCENT.sub(lambda found: bytes.fromhex(found.group(1).decode()), text.encode())
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _BrokenFieldError from error


def _number(found: re.Match[str]) -> int | float:
    digits = found.group()
    return float(digits) if "." in digits else int(digits)


#: The kinds of bare items (RFC 9651, 3.3). They begin differently, so that at most one pattern matches.
_BARE_ITEMS: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], BareItem]]] = (
    (re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}|[0-9]{1,15})(?![0-9.])"), _number),
    (re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"), lambda found: found.group()),
    (
        re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'),
        lambda found: _ESCAPED.sub(r"\1", found.group(1)),
    ),
    (re.compile(r"\?([01])"), lambda found: found.group(1) == "1"),
    (re.compile(r":([A-Za-z0-9+/=]*):"), lambda found: _decoded(found.group(1))),
    (re.compile(r"@(-?[0-9]{1,15})(?![0-9.])"), lambda found: int(found.group(1))),
    (re.compile(r'%"((?:[\x20\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*)"'), lambda found: _displayed(found.group(1))),
)
