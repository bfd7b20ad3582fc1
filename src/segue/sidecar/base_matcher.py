"""Finds the earlier exchange that a new body is most like, by fingerprints of sampled places (content-defined chunks).

A place is where a JSON string begins, and every so many bytes inside a long string. Each place stands for the bytes up
to the next one, and the base with the most shared bytes wins. The content decides where the places are, so the same
places are found again whatever was inserted or changed elsewhere: an early field, a marker that moved, content that
became a list of parts. The choice never affects correctness, only how much is sent. Pure, and the same in every
process. Not here: the bases themselves (`segue.sidecar.base_cache`).
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K")

#: How many bytes are compared at each place.
_SAMPLE_BYTES = 40
#: A base that shares less than this saves less than the search costs.
_WORTH_BYTES = 512
_WORTH_SHARE = 0.02
#: How many of the newest bodies are compared byte by byte before fingerprints are taken.
_PREFIX_TRIES = 4
#: How many bytes at the end of a body may differ in the common-prefix test (they close its lists), and what part of the
#: new body the prefix must cover.
_TAIL_BYTES = 256
_PREFIX_SHARE = 0.75
#: At most so many strings of a body are places: this bounds time and memory.
_MAX_STRINGS = 32 * 1024
#: How much of a body decides whether its JSON has a space after each colon.
_LOOK_BYTES = 16 * 1024
#: How many bytes of a reply must be in a body for the reply to count as repeated there.
_REPLY_BYTES = 64


class _SamplingScale(msgspec.Struct, frozen=True):
    """How densely bodies below a size are sampled: at which strings, and at which distance inside a long string."""

    below_bytes: float
    strings: re.Pattern[bytes]
    spaced_strings: re.Pattern[bytes]  # for JSON with a space after each colon
    stride: int


def _scale(below_bytes: float, where: bytes, stride: int) -> _SamplingScale:
    strings, spaced = (re.compile(between + where, re.DOTALL) for between in (b'":"', b'": "'))
    return _SamplingScale(below_bytes, strings, spaced, stride)


# The larger a body, the fewer of its strings count; some of their letters decide which. Nearly all places of one scale
# are places of every finer scale, so that a base of another size is found, too.
_SCALES = (
    _scale(256 * 1024, b"", 512),
    _scale(4 * 1024 * 1024, b"(?=....[aeilnr0-4 ])", 2048),
    _scale(float("inf"), b"(?=....[aeilnr0-4 ]..[aeilnr0-4 ])", 16384),
)


class BaseMatch(msgspec.Struct, Generic[K], frozen=True):
    """The best base, and the approximate number of bytes that it shares with the body."""

    key: K
    shared_bytes: int


class _IndexedBase(msgspec.Struct, Generic[K], frozen=True):
    key: K
    body: bytes
    reply: bytes
    scale: int
    fingerprints: frozenset[int]


class BaseMatcher(Generic[K]):
    """The exchanges to choose from. The caller bounds their number. Bodies are not copied."""

    def __init__(self) -> None:
        self._slots: dict[K, int] = {}  # oldest first
        self._entries: dict[int, _IndexedBase[K]] = {}
        self._index: dict[int, int] = {}  # fingerprint -> a bit for each slot that has it

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, key: K, body: bytes, reply: bytes) -> None:
        """Add an exchange as the newest one; it replaces one with the same key."""
        self.remove(key)
        slot = next(slot for slot in range(len(self._entries) + 1) if slot not in self._entries)
        scale = _scale_of(body)
        fingerprints = frozenset(_weights(body, scale)) | frozenset(_weights(reply, scale))
        self._slots[key] = slot
        self._entries[slot] = _IndexedBase(key, body, reply, scale, fingerprints)
        bit = 1 << slot
        index = self._index
        for fingerprint in fingerprints:
            index[fingerprint] = index.get(fingerprint, 0) | bit

    def remove(self, key: K) -> None:
        """Remove an exchange; an unknown key is ignored."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        bit = 1 << slot
        index = self._index
        for fingerprint in self._entries.pop(slot).fingerprints:
            left = index[fingerprint] & ~bit
            if left:
                index[fingerprint] = left
            else:
                del index[fingerprint]

    def best(self, body: bytes) -> K | None:
        """Return the key of the base to use for a body; None if none is worth it."""
        found = self.match(body)
        return None if found is None else found.key

    def match(self, body: bytes) -> BaseMatch[K] | None:
        """Return the base that shares the most bytes with a body, the newest of equals; None if none is worth it."""
        if len(body) < _WORTH_BYTES:
            return None
        found = self._by_prefix(body) or self._by_fingerprints(body)
        if found is None or found.shared_bytes < max(_WORTH_BYTES, _WORTH_SHARE * len(body)):
            return None
        return found

    def _by_prefix(self, body: bytes) -> BaseMatch[K] | None:
        """Take the shortcut for most turns of most agents: one of the newest bodies is the beginning of this one."""
        newest = itertools.islice(reversed(self._slots.values()), _PREFIX_TRIES)
        for entry in map(self._entries.__getitem__, newest):
            shared = len(entry.body) - _TAIL_BYTES
            if _PREFIX_SHARE * len(body) <= shared < len(body) and _starts_alike(body, entry.body, shared):
                return BaseMatch(entry.key, shared)
        return None

    def _by_fingerprints(self, body: bytes) -> BaseMatch[K] | None:
        shared = self._shared_bytes(body)
        most = max(shared.values(), default=0)
        equals = [self._entries[slot] for slot in self._slots.values() if shared.get(slot) == most]
        if not most:
            return None
        best = next((entry for entry in reversed(equals) if _is_repeated(entry.reply, body)), equals[-1])
        return BaseMatch(best.key, most)

    def _shared_bytes(self, body: bytes) -> dict[int, int]:
        """Return the approximate number of bytes that each slot's base shares with the body."""
        own = _scale_of(body)
        shared: dict[int, int] = {}
        for scale in {max(own, entry.scale) for entry in self._entries.values()}:
            bytes_of: dict[int, int] = defaultdict(int)  # bits of slots -> bytes that exactly these share
            slots_of: Callable[[int, int], int] = self._index.get
            for fingerprint, weight in _weights(body, scale).items():
                bytes_of[slots_of(fingerprint, 0)] += weight
            for slot, entry in self._entries.items():
                if max(own, entry.scale) == scale:
                    shared[slot] = sum(weight for slots, weight in bytes_of.items() if slots >> slot & 1)
        return shared


def _scale_of(body: bytes) -> int:
    return next(number for number, scale in enumerate(_SCALES) if len(body) < scale.below_bytes)


def _starts_alike(body: bytes, base: bytes, count: int) -> bool:
    last = slice(count - _TAIL_BYTES, count)
    return base[last] == body[last] and body.startswith(base[:count])  # the cheap half first


def _is_repeated(reply: bytes, body: bytes) -> bool:
    return bool(reply) and body.find(reply[:_REPLY_BYTES], max(0, len(body) - 2 * len(reply) - _SCALES[-1].stride)) >= 0


def _weights(body: bytes, scale: int) -> dict[int, int]:
    """Return the fingerprints of a body, each with the number of bytes from its place to the next."""
    strings, stride = _places_of(body, scale)
    found_strings = itertools.islice(strings.finditer(body), _MAX_STRINGS)
    starts = [0, *(found.end() for found in found_strings), len(body)]
    places = [place for start, end in itertools.pairwise(starts) for place in range(start, end, stride)]
    samples = [body[place : place + _SAMPLE_BYTES] for place in places]
    places.append(len(body))
    weights: dict[int, int] = defaultdict(int)
    for fingerprint, (place, following) in zip(map(zlib.crc32, samples), itertools.pairwise(places), strict=True):
        weights[fingerprint] += following - place
    return weights


def _places_of(body: bytes, scale: int) -> tuple[re.Pattern[bytes], int]:
    sampling = _SCALES[scale]
    spaced = body.count(b'":"', 0, _LOOK_BYTES) < body.count(b'": "', 0, _LOOK_BYTES)
    return (sampling.spaced_strings if spaced else sampling.strings), sampling.stride
