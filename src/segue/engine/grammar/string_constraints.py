"""What a JSON schema says of one string, number or name, as an automaton: pure.

Where not all of it fits into the budget, some is left out: first the format, then the length. Not here: how a grammar
writes an automaton (`grammar`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from segue.engine.grammar.automaton import (
    Automaton,
    Budget,
    Expression,
    Length,
    Machine,
    Multiple,
    Not,
    TooLarge,
    determine,
)
from segue.engine.grammar.json_schema import GrammarError, bounds, counts, number
from segue.engine.grammar.number_ranges import Empty, integers, numbers
from segue.engine.grammar.regex import Choice, Node, Unsupported, literal, read

#: What `string` looks at, and what `numeral` does.
OF_STRINGS = ("pattern", "format", "minLength", "maxLength")
OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")

_STEPS = 50_000  # of one automaton

_DATE = (
    "[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    "|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_BYTE = r"(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])"
_LABEL = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_MAILBOX = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_URI_CHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_HOST = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
#: What is written for a format: all of it is right, though some that is right too is not written, such as leap seconds,
#: years before 1000, quoted mailboxes, and addresses of the IPv6 kind as the host of a URI.
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"(?:{_DATE})T{_TIME}",
    "uuid": "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
    "email": rf"{_MAILBOX}(?:\.{_MAILBOX})*@{_LABEL}(?:\.{_LABEL})+",
    "uri": (
        rf"[A-Za-z][A-Za-z0-9+.-]*:(?://(?:{_URI_CHAR}*@)?{_HOST}(?::\d*)?(?:/{_URI_CHAR}*)*"
        rf"|/?{_URI_CHAR}+(?:/{_URI_CHAR}*)*|/?)(?:\?(?:{_URI_CHAR}|[/?])*)?(?:#(?:{_URI_CHAR}|[/?])*)?"
    ),
}


def string(schema: Mapping[str, Any], budget: Budget) -> Automaton | None:
    """Return what strings are allowed, None if nothing but the length of them can be enforced."""
    patterns = schema.get("pattern", ())
    read_ones = _read_all(patterns if isinstance(patterns, tuple) else (patterns,), budget)
    form = schema.get("format")
    wanted = [read(FORMATS[form], whole=True)] if isinstance(form, str) and form in FORMATS else []
    least, most = counts(schema, "minLength", "maxLength")
    length = [Length(least, most)] if least or most is not None else []
    for nodes, lengths in (
        ([*read_ones, *wanted], length),
        (read_ones, length),
        ([*read_ones, *wanted], []),
        (read_ones, []),
    ):
        made = _try(nodes, lengths, budget) if nodes else None
        if made is not None and not made.edges and nodes is read_ones:
            raise GrammarError("no string is of this pattern and length")
        if made is not None and made.edges:
            return made
    return None


def numeral(schema: Mapping[str, Any], budget: Budget, *, whole: bool) -> Automaton | None:
    """Return which numbers are allowed, all or only whole ones, None if nothing else can be enforced."""
    low, high = bounds(schema)
    step = number(schema, "multipleOf")
    if step is not None and step <= 0:
        raise GrammarError("multipleOf is more than 0")
    whole = whole or (step is not None and step.denominator == 1)
    places = _places(step)
    if low is None and high is None and (step is None or (not whole and places is None)):
        return None
    try:
        written = integers(low, high) if whole else numbers(low, high, places)
    except Empty:
        raise GrammarError("no number is in this range") from None
    if written is None:
        return None
    nodes = [read(written, whole=True)]
    if whole and step is not None and step.numerator > 1:
        made = _try(nodes, [Multiple(step.numerator)], budget)
        if made is not None and not made.edges:
            raise GrammarError("no number in this range is a multiple")
        if made is not None:
            return made
    return _try(nodes, [], budget)


def member(pattern: str | None, names: Iterable[str], others: Iterable[str], budget: Budget) -> Automaton | None:
    """Return the names of a pattern that are not among `names` and not of the `others`; None if it is too large.

    None also if one of the patterns cannot be read.
    """
    asked = [*others] if pattern is None else [pattern, *others]
    nodes = _read_all(asked, budget)
    if len(nodes) < len(asked):
        return None
    found, refused = ([], nodes) if pattern is None else (nodes[:1], nodes[1:])
    return _try(found, [], budget, [Choice(tuple(map(literal, names))), *refused])


def _read_all(patterns: Iterable[object], budget: Budget) -> list[Node]:
    """Read the patterns that can be read; each costs its length."""
    nodes = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise GrammarError("pattern is a string")
        try:
            budget.spend(len(pattern))
            nodes.append(read(pattern))
        except (Unsupported, TooLarge):
            continue
    return nodes


def _try(
    nodes: Sequence[Node], machines: Sequence[Machine], budget: Budget, refused: Sequence[Node] = ()
) -> Automaton | None:
    """Return the automaton of all these, None if it is too large."""
    given = max(0, min(_STEPS, budget.left))
    share = Budget(given)
    try:
        expressions: list[Machine] = [Expression(node, share) for node in nodes]
        expressions += [Not(Expression(node, share)) for node in refused]
        return determine([*expressions, *machines], share)
    except TooLarge:
        return None
    finally:
        budget.left -= given - max(0, share.left)


def _places(step: Fraction | None) -> int | None:
    """Return how many decimal places multiples of this have, None if that is not what it says."""
    if step is None or step.numerator != 1:
        return None
    digits = str(step.denominator)
    return len(digits) - 1 if digits.strip("0") == "1" else None
