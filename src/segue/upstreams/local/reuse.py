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

#: A shorter common beginning than this is not worth bringing a sequence back into the context for.
WORTH_RESTORING = 32
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
    for candidate in candidates:
        if candidate.running and not candidate.in_context:
            continue  # its turn had to give way
        length = min(common_length(prompt, candidate.tokens), len(prompt) - 1)
        if length < (1 if candidate.in_context else WORTH_RESTORING):
            continue
        how: Literal["take over", "copy"] = (
            "take over" if not candidate.running and length >= candidate.needed else "copy"
        )
        start = Start(candidate.key, length, how)
        if best is None or (length, how == "take over") > (best.length, best.how == "take over"):
            best = start
    return best


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    most = min(len(first), len(second))
    at = 0
    while at < most and first[at : at + _STRIDE] == second[at : at + _STRIDE]:
        at += _STRIDE
    while at < most and first[at] == second[at]:
        at += 1
    return min(at, most)
