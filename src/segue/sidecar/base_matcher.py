"""Finds the earlier exchange that a new body is most like, by fingerprints of sampled places (content-defined chunks).

Most bodies continue one of the newest, and a comparison side by side shows it; fingerprints are taken only where it
does not. A place is where a JSON string begins, and every so many bytes inside a long string. Each place stands for the
bytes up to the next one, and the base with the most shared bytes wins. The content decides where the places are, so the
same places are found again whatever was inserted or changed elsewhere: an early field, a marker that moved, content
that became a list of parts. The choice never affects correctness, only how much is sent. Pure, and the same in every
process. Not here: the bases themselves (`segue.sidecar.base_cache`).
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import msgspec

from segue.sidecar.body_alignment import align

K = TypeVar("K")

#: How many bytes are compared at each place.
_SAMPLE_BYTES = 40
#: A base that shares less than this saves less than the search costs.
_WORTH_BYTES = 512
_WORTH_SHARE = 0.02
#: How many of the newest bodies are compared side by side before fingerprints are taken.
_ALIGNMENTS = 4
#: A body continues a base whose reply it repeats. If no reply is found in it, it must repeat all but so many bytes of
#: the base, which must be so large a part of it.
_CHANGED_BYTES = 256
_CONTINUED_SHARE = 0.75
#: This part of a reply is looked for: what is before it may be of the API, and the same in every reply.
_REPLY_SAMPLE = slice(32, 96)
#: So many bases may wait for their fingerprints to be taken: they are often superseded before anyone asks.
_MAX_UNINDEXED = 4
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
    continued: bool = False
    """The body repeats nearly all of the base and its reply, so that it can stand in for it."""


class SampledBody:
    """A body, and its fingerprints as far as somebody has asked for them."""

    __slots__ = ("_weights", "body")

    def __init__(self, body: bytes) -> None:
        self.body: Final = body
        self._weights: dict[int, Mapping[int, int]] = {}

    def weights(self, scale: int) -> Mapping[int, int]:
        """Return the fingerprints at a scale, each with the number of bytes from its place to the next."""
        weights = self._weights.get(scale)
        if weights is None:
            weights = self._weights[scale] = _weights(self.body, scale)
        return weights


class _HeldBase(msgspec.Struct, Generic[K], frozen=True):
    key: K
    sampled: SampledBody
    reply: bytes
    scale: int
    continues: K | None
    """The base that needs no fingerprints while this one is here."""


class BaseMatcher(Generic[K]):
    """The exchanges to choose from. The caller bounds their number. Bodies are not copied."""

    def __init__(self) -> None:
        self._slots: dict[K, int] = {}  # oldest first
        self._entries: dict[int, _HeldBase[K]] = {}
        self._index: dict[int, int] = {}  # fingerprint -> a bit for each slot that has it
        self._indexed: dict[int, frozenset[int]] = {}  # slot -> its fingerprints
        self._unindexed: dict[int, int] = {}  # slot -> size of the body, oldest first

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def unindexed_bytes(self) -> int:
        """The size of the bodies whose fingerprints the next search may have to take. Any thread may ask."""
        return sum(tuple(self._unindexed.values()))

    def add(self, key: K, body: SampledBody, reply: bytes, match: BaseMatch[K] | None = None) -> None:
        """Add an exchange as the newest one; it replaces one with the same key. `match`: what `match` found for it."""
        continues = match.key if match is not None and match.continued and match.key != key else None
        self.remove(key)
        slot = next(slot for slot in range(len(self._entries) + 1) if slot not in self._entries)
        self._slots[key] = slot
        self._entries[slot] = _HeldBase(key, body, reply, _scale_of(body.body), continues)
        if continues is not None and continues in self._slots:
            self._unindexed.pop(self._slots[continues], None)
        self._unindexed[slot] = len(body.body)
        while len(self._unindexed) > _MAX_UNINDEXED:
            self._index_slot(next(iter(self._unindexed)))

    def remove(self, key: K) -> None:
        """Remove an exchange; an unknown key is ignored."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        continues = self._entries.pop(slot).continues
        self._unindexed.pop(slot, None)
        if continues is not None and continues in self._slots and self._slots[continues] not in self._indexed:
            self._unindexed[self._slots[continues]] = len(self._entries[self._slots[continues]].sampled.body)
        bit = 1 << slot
        index = self._index
        for fingerprint in self._indexed.pop(slot, ()):
            left = index[fingerprint] & ~bit
            if left:
                index[fingerprint] = left
            else:
                del index[fingerprint]

    def index(self) -> None:
        """Take the fingerprints that are missing, so that no search has to."""
        for slot in tuple(self._unindexed):
            self._index_slot(slot)

    def match(self, body: SampledBody) -> BaseMatch[K] | None:
        """Return the base that shares the most bytes with a body, the newest of equals; None if none is worth it."""
        if len(body.body) < _WORTH_BYTES:
            return None
        found = self.match_continued(body) or self._by_fingerprints(body)
        return found if found is not None and _is_worth(found, body.body) else None

    def match_continued(self, body: SampledBody) -> BaseMatch[K] | None:
        """Return what `match` returns, if the body continues one of the newest, which is seen soon; None else."""
        found = self._by_alignment(body.body)
        return found if found is not None and _is_worth(found, body.body) else None

    def _index_slot(self, slot: int) -> None:
        del self._unindexed[slot]
        entry = self._entries[slot]
        fingerprints = frozenset(entry.sampled.weights(entry.scale)) | frozenset(_weights(entry.reply, entry.scale))
        self._indexed[slot] = fingerprints
        self._entries[slot] = msgspec.structs.replace(entry, sampled=SampledBody(entry.sampled.body))  # for memory
        bit = 1 << slot
        index = self._index
        for fingerprint in fingerprints:
            index[fingerprint] = index.get(fingerprint, 0) | bit

    def _by_alignment(self, body: bytes) -> BaseMatch[K] | None:
        """Take the shortcut for most turns of most agents: this body continues one of the newest."""
        likely: BaseMatch[K] | None = None
        for slot in itertools.islice(reversed(self._slots.values()), _ALIGNMENTS):
            entry = self._entries[slot]
            earlier = entry.sampled.body
            aligned = align(earlier, body)
            if aligned is None:
                continue
            sample = entry.reply[_REPLY_SAMPLE]
            if len(sample) >= _SAMPLE_BYTES and any(body.find(sample, *place) >= 0 for place in aligned.insertions):
                return BaseMatch(entry.key, aligned.shared_bytes, continued=True)
            if likely is None and aligned.shared_bytes >= max(
                len(earlier) - _CHANGED_BYTES, _CONTINUED_SHARE * len(body)
            ):
                likely = BaseMatch(entry.key, aligned.shared_bytes)
        return likely

    def _by_fingerprints(self, body: SampledBody) -> BaseMatch[K] | None:
        self.index()
        shared = self._shared_bytes(body)
        most = max(shared.values(), default=0)
        equals = [self._entries[slot] for slot in self._slots.values() if shared.get(slot) == most]
        if not most:
            return None
        best = next((entry for entry in reversed(equals) if _is_repeated(entry.reply, body.body)), equals[-1])
        return BaseMatch(best.key, most)

    def _shared_bytes(self, body: SampledBody) -> dict[int, int]:
        """Return the approximate number of bytes that each slot's base shares with the body."""
        own = _scale_of(body.body)
        indexed = {slot: self._entries[slot] for slot in self._indexed}
        shared: dict[int, int] = {}
        for scale in {max(own, entry.scale) for entry in indexed.values()}:
            bytes_of: dict[int, int] = defaultdict(int)  # bits of slots -> bytes that exactly these share
            slots_of: Callable[[int, int], int] = self._index.get
            for fingerprint, weight in body.weights(scale).items():
                bytes_of[slots_of(fingerprint, 0)] += weight
            for slot, entry in indexed.items():
                if max(own, entry.scale) == scale:
                    shared[slot] = sum(weight for slots, weight in bytes_of.items() if slots >> slot & 1)
        return shared


def _is_worth(match: BaseMatch[K], body: bytes) -> bool:
    return match.shared_bytes >= max(_WORTH_BYTES, _WORTH_SHARE * len(body))


def _scale_of(body: bytes) -> int:
    return next(number for number, scale in enumerate(_SCALES) if len(body) < scale.below_bytes)


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
