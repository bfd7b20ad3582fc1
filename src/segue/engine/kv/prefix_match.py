"""The prefix cache: which computed sequence a prompt can start from. Pure.

A prompt starts from the sequence that shares its longest prefix. If no finished turn needs what lies behind that
prefix, the turn takes the sequence over and rewinds it; otherwise it copies the prefix, so that the other branch can
still be continued. A turn never takes over a sequence that another turn works on. Tenants never share state: the time
to an answer must not tell one tenant what another has asked. Not here: where sequences lie (`cache`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

#: A sequence is brought back into the context only if that saves at least this many tokens more.
MIN_RESTORE_GAIN = 8
_STRIDE = 256


class PrefixCandidate(msgspec.Struct, frozen=True):
    """A sequence that may be used: its tokens, how many of them finished turns need, and if a turn works on it."""

    key: int
    tokens: Sequence[int]
    protected: int
    running: bool
    in_context: bool


class PrefixMatch(msgspec.Struct, frozen=True):
    """Start from the first `length` tokens of a sequence: take it over, or copy it."""

    key: int
    length: int
    how: Literal["take over", "copy"]


def find_prefix_match(prompt: Sequence[int], candidates: Iterable[PrefixCandidate]) -> PrefixMatch | None:
    """Return the best match, or None to start empty. The last token of a prompt is always computed."""
    best: PrefixMatch | None = None
    most = (0, False)
    for candidate in candidates:
        if candidate.running and not candidate.in_context:
            continue  # its turn was preempted
        length = min(common_prefix_length(prompt, candidate.tokens), len(prompt) - 1)
        saved = length if candidate.in_context else length - MIN_RESTORE_GAIN + 1
        if saved < 1:
            continue
        how: Literal["take over", "copy"] = (
            "take over" if not candidate.running and length >= candidate.protected else "copy"
        )
        if (saved, how == "take over") > most:
            best, most = PrefixMatch(candidate.key, length, how), (saved, how == "take over")
    return best


def is_continuation(prompt: Sequence[int], tokens: Sequence[int]) -> bool:
    """Say if a prompt begins with all of some tokens and has more."""
    return len(tokens) < len(prompt) and common_prefix_length(prompt, tokens) == len(tokens)


def common_prefix_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    most = min(len(first), len(second))
    at = 0
    while at < most and first[at : at + _STRIDE] == second[at : at + _STRIDE]:
        at += _STRIDE
    while at < most and first[at] == second[at]:
        at += 1
    return min(at, most)
