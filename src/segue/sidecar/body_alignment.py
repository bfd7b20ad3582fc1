"""Compares two bodies side by side: does a later body repeat an earlier one, save for a few small changes?

Most requests of an agent are its last one with something inserted: what the model said and what a tool returned. Then
a few comparisons of long runs of bytes tell it, in a small part of the time that fingerprints take. The answer is
"yes" or "perhaps not": the work ends as soon as much is missing. Pure. Not here: fingerprints, and which of several
bases is best (`segue.sidecar.base_matcher`).
"""

from __future__ import annotations

import msgspec

#: How many bytes of the earlier body may be missing in the later one, such as markers that have moved.
MAX_MISSING_BYTES = 4096

#: After a difference, these bytes of the earlier body are looked for, so many bytes further on.
_PROBE_BYTES = 32
_SKIPS = (0, 32, 128, 512)
_MAX_DIFFERENCES = 16
_FIRST_STEP_BYTES = 256


class Alignment(msgspec.Struct, frozen=True):
    """A later body that repeats nearly all of an earlier one."""

    shared_bytes: int
    """How many bytes of the earlier body were found, in their order."""
    insertions: tuple[tuple[int, int], ...]
    """What else is in the later body: where it begins and ends."""


def align(earlier: bytes, later: bytes) -> Alignment | None:
    """Return how the later body repeats the earlier one; None if that is not seen quickly."""
    if len(later) + MAX_MISSING_BYTES < len(earlier):
        return None
    insertions: list[tuple[int, int]] = []
    read = place = missing = 0
    for _ in range(_MAX_DIFFERENCES):
        same = _same_bytes(earlier, read, later, place)
        read, place = read + same, place + same
        following = _next_place(earlier, read, later, place)
        if following is None:
            break
        insertions.append((place, following[1]))
        missing += following[0] - read
        read, place = following
    missing += len(earlier) - read
    if missing > MAX_MISSING_BYTES:
        return None
    return Alignment(len(earlier) - missing, (*insertions, (place, len(later))))


def _same_bytes(earlier: bytes, read: int, later: bytes, place: int) -> int:
    """Return how many bytes from these two places on are the same."""
    most = min(len(earlier) - read, len(later) - place)
    if later.startswith(earlier[read : read + most], place):
        return most
    same, step = 0, _FIRST_STEP_BYTES
    while same + step < most and later.startswith(earlier[read + same : read + same + step], place + same):
        same, step = same + step, 2 * step
    different = min(most, same + step)  # these many bytes are not the same
    while different - same > 1:
        middle = (same + different) // 2
        if later.startswith(earlier[read + same : read + middle], place + same):
            same = middle
        else:
            different = middle
    return same


def _next_place(earlier: bytes, read: int, later: bytes, place: int) -> tuple[int, int] | None:
    """Return the nearest places after a difference from which on the two are the same again."""
    best: tuple[int, int] | None = None
    nearest = len(later) - place + 1
    for skipped in _SKIPS:
        probe = earlier[read + skipped : read + skipped + _PROBE_BYTES]
        if len(probe) < _PROBE_BYTES or skipped >= nearest:
            break
        found = later.find(probe, place, place + nearest - skipped + _PROBE_BYTES)
        if found >= 0 and found - place + skipped < nearest:
            best, nearest = (read + skipped, found), found - place + skipped
    return best
