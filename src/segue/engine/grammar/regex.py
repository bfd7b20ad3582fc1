"""Regular expressions as JSON schemas have them (ECMA-262), read into what an automaton is made of: pure.

A sensible part of the language: characters, classes, groups, alternatives, repetitions, anchors, and the escapes that
mean a character or a class. Not here: look-arounds, references back, word boundaries, Unicode properties and flags; an
expression with one of them is `Unsupported`, as is one that is wrong. Repetitions that take as little as they can are
read as others are, since both allow the same texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

#: Characters as ranges of code points, both ends included, in order and not touching.
Ranges: TypeAlias = tuple[tuple[int, int], ...]

#: What text is made of: every code point but the surrogates.
ALL: Ranges = ((0, 0xD7FF), (0xE000, 0x10FFFF))
#: Of a repetition that says a number.
MOST_TIMES = 1000
_MOST_GROUPS = 50  # within each other
_MOST_LENGTH = 4000

_DIGITS = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE = (
    (9, 13),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_LINE_ENDS = ((10, 10), (13, 13), (0x2028, 0x2029))
_QUANTIFIER = re.compile(r"(?:(?P<sign>[*+?])|\{(?P<least>[0-9]+)(?P<comma>,(?P<most>[0-9]*))?\})\??")
_CODE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|c([a-zA-Z])|0(?![0-9])")
_GROUP = re.compile(r"\((?:\?:|\?<[A-Za-z_$][\w$]*>|(?!\?))", re.ASCII)


class Unsupported(ValueError):
    """This expression cannot be read; the message says why."""


class Chars(msgspec.Struct, frozen=True):
    """One character of these; of none of them if there are none."""

    ranges: Ranges


class Series(msgspec.Struct, frozen=True):
    """One part after the other."""

    parts: tuple[Node, ...]


class Choice(msgspec.Struct, frozen=True):
    """One of the parts."""

    parts: tuple[Node, ...]


class Repeat(msgspec.Struct, frozen=True):
    """A part so many times; without `most`, any number of them."""

    part: Node
    least: int
    most: int | None


class Anchor(msgspec.Struct, frozen=True):
    """Nothing, but only at the start of the text or at its end."""

    end: bool


Node: TypeAlias = Chars | Series | Choice | Repeat | Anchor


def read(pattern: str, *, whole: bool = False) -> Node:
    """Read an expression that is to be found anywhere in a text, or is all of it (`whole`); may raise `Unsupported`."""
    if len(pattern) > _MOST_LENGTH:
        raise Unsupported(f"it has more than {_MOST_LENGTH} characters")
    found = _Reader(pattern).read()
    around = Repeat(Chars(ALL), 0, None)
    return found if whole else Series((around, found, around))


def literal(text: str) -> Node:
    """Return what allows this text and nothing else."""
    return Series(tuple(Chars(((ord(char), ord(char)),)) for char in text))


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Put ranges in order, with those that touch as one."""
    made: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if made and low <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(made[-1][1], high))
        else:
            made.append((low, high))
    return tuple(made)


def common(one: Ranges, other: Ranges) -> Ranges:
    """Return the characters that are in both."""
    pairs = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return joined((low, high) for low, high in pairs if low <= high)


def without(ranges: Ranges) -> Ranges:
    """Return all characters but these."""
    made, start = [], 0
    for low, high in ranges:
        made.append((start, low - 1))
        start = high + 1
    return common(ALL, tuple((low, high) for low, high in [*made, (start, 0x10FFFF)] if low <= high))


class _Reader:
    """Reads one expression from its start to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def read(self) -> Node:
        node = self._choice()
        if self._at < len(self._text):
            raise Unsupported("a group is closed that was not opened")
        return node

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _choice(self) -> Node:
        parts = [self._series()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._series())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _series(self) -> Node:
        parts: list[Node] = []
        while self._next() not in {"", "|", ")"}:
            part = self._part()
            found = _QUANTIFIER.match(self._text, self._at)
            if found is not None:
                self._at = found.end()
                part = _repeated(part, found)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def _part(self) -> Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char in "*+?" or _QUANTIFIER.match(self._text, self._at):
            raise Unsupported("there is nothing to repeat")
        self._at += 1
        match char:
            case "[":
                return Chars(self._class())
            case ".":
                return Chars(without(_LINE_ENDS))
            case "^" | "$":
                return Anchor(end=char == "$")
            case "\\":
                return Chars(self._escape())
            case _:
                return Chars(((ord(char), ord(char)),))

    def _group(self) -> Node:
        opened = _GROUP.match(self._text, self._at)
        if opened is None:
            raise Unsupported("it looks ahead or behind")
        self._depth += 1
        if self._depth > _MOST_GROUPS:
            raise Unsupported(f"there are more than {_MOST_GROUPS} groups within each other")
        self._at = opened.end()
        inner = self._choice()
        if self._next() != ")":
            raise Unsupported("a group is not closed")
        self._at += 1
        self._depth -= 1
        return inner

    def _class(self) -> Ranges:
        negated = self._next() == "^"
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while self._next() != "]":
            low = self._member()
            if self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in {"", "]"}:
                self._at += 1
                ranges += _span(low, self._member())
            else:
                ranges += low
        self._at += 1
        if not ranges:
            raise Unsupported("a class of nothing, which others read differently")
        found = common(ALL, joined(ranges))
        return without(found) if negated else found

    def _member(self) -> Ranges:
        char = self._next()
        if not char:
            raise Unsupported("a class is not closed")
        self._at += 1
        if char != "\\":
            return ((ord(char), ord(char)),)
        if self._next() == "b":  # a backspace here, a boundary elsewhere
            self._at += 1
            return ((8, 8),)
        return self._escape()

    def _escape(self) -> Ranges:
        char = self._next()
        if char.lower() in _CLASSES:
            self._at += 1
            ranges = _CLASSES[char.lower()]
            return ranges if char.islower() else without(ranges)
        code = self._code(char)
        if not common(ALL, ((code, code),)):
            raise Unsupported("half of a pair is no character")
        return ((code, code),)

    def _code(self, char: str) -> int:
        if found := _CODE.match(self._text, self._at):
            self._at = found.end()
            two, four, more, control = found.groups()
            return ord(control) % 32 if control else int(two or four or more or "0", 16)
        self._at += 1
        if char in _CONTROLS:
            return _CONTROLS[char]
        if not char or (char.isascii() and char.isalnum()):
            raise Unsupported(f"the escape \\{char} is not known")
        return ord(char)


def _repeated(part: Node, found: re.Match[str]) -> Node:
    if isinstance(part, Anchor):
        raise Unsupported("an anchor cannot be repeated")
    if found["sign"]:
        return Repeat(part, int(found["sign"] == "+"), 1 if found["sign"] == "?" else None)
    if max(len(found["least"]), len(found["most"] or "")) > len(str(MOST_TIMES)):
        raise Unsupported(f"something is repeated more than {MOST_TIMES} times")
    least = int(found["least"])
    most = least if found["comma"] is None else int(found["most"]) if found["most"] else None
    if max(least, most or 0) > MOST_TIMES or (most is not None and most < least):
        raise Unsupported(f"something is repeated more than {MOST_TIMES} times, or less often than it must be")
    return Repeat(part, least, most)


def _span(low: Ranges, high: Ranges) -> Ranges:
    """Return what two members of a class with a hyphen between them mean."""
    (first, last), (end, end_last) = low[0], high[0]
    if len(low) + len(high) > 2 or first != last or end != end_last:  # noqa: PLR2004 - a class has a range or several
        return (*low, (0x2D, 0x2D), *high)  # no range starts or ends with a class, so that the hyphen is one
    if end < first:
        raise Unsupported("a range ends before it starts")
    return ((first, end),)
