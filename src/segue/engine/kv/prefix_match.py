"""Which computed state a prompt can start from: pure.

A prompt starts from the sequence that has most of its beginning. If nothing that a finished turn needs stands behind
what they have in common, the sequence is taken over and rewound; else the common part is copied, so that the other
branch can still be continued. A sequence that a turn works on is only ever copied. State is never shared between
tenants: how fast an answer comes must not tell anybody what somebody else has asked. Not here: where sequences are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

#: So many tokens more than without it must a sequence save to be worth bringing back into the context.
WORTH_RESTORING = 8
_STRIDE = 256


class Candidate(msgspec.Struct, frozen=True):
    """A sequence as it may be used: its tokens, how many of them finished turns need, whether a turn works on it."""

    key: int
    tokens: Sequence[int]
    needed: int
    running: bool
    in_context: bool


class Start(msgspec.Struct, frozen=True):
    """Start from the first `length` tokens of a sequence: take it over, or copy it."""

    key: int
    length: int
    how: Literal["take over", "copy"]


def choose_start(prompt: Sequence[int], candidates: Iterable[Candidate]) -> Start | None:
    """Return where to start from, or None for an empty sequence. The last token of a prompt is always computed."""
    best: Start | None = None
    most = (0, False)
    for candidate in candidates:
        if candidate.running and not candidate.in_context:
            continue  # its turn had to give way
        length = min(common_length(prompt, candidate.tokens), len(prompt) - 1)
        saved = length if candidate.in_context else length - WORTH_RESTORING + 1
        if saved < 1:
            continue
        how: Literal["take over", "copy"] = (
            "take over" if not candidate.running and length >= candidate.needed else "copy"
        )
        if (saved, how == "take over") > most:
            best, most = Start(candidate.key, length, how), (saved, how == "take over")
    return best


def continues(prompt: Sequence[int], tokens: Sequence[int]) -> bool:
    """Tell whether a prompt is all of some tokens and more."""
    return len(tokens) < len(prompt) and common_length(prompt, tokens) == len(tokens)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    most = min(len(first), len(second))
    at = 0
    while at < most and first[at : at + _STRIDE] == second[at : at + _STRIDE]:
        at += _STRIDE
    while at < most and first[at] == second[at]:
        at += 1
    return min(at, most)
