"""A scheduler for continuous batching with chunked prefill: which tokens the engine computes next. Pure.

A *step* is one computation of at most `batch` tokens. A turn that decodes (writes its answer) needs one token of every
step, or its stream would stall. A turn that prefills (reads its prompt) takes what it is given. So each step has one
token for every turn that decodes, and the turns that prefill divide the rest max-min fairly: a short prompt is read in
its first step however long the others are, and no prompt waits for the end of another. While any turn decodes, the
others prefill at most `chunk` tokens a step, which bounds the time between two tokens of an answer. If there are more
turns than tokens, they alternate. Not here: when a turn may begin (`upstreams.fair_queue`), and where its tokens are
kept (`kv.cache`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

import msgspec

Key = TypeVar("Key", bound=Hashable)


class Share(msgspec.Struct, Generic[Key], frozen=True):
    """What a turn gets of a step: its next `tokens` tokens. `sampled`: they end its prompt, so a token is sampled."""

    key: Key
    tokens: int
    sampled: bool


class Scheduler(Generic[Key]):
    """The turns that run, and how many tokens each still has to prefill."""

    def __init__(self, batch: int, chunk: int) -> None:
        assert 1 <= chunk <= batch, "a chunk is a part of a batch"
        self._batch = batch
        self._chunk = chunk
        self._unread: dict[Key, int] = {}  # in the order of their last share, longest ago first

    def __len__(self) -> int:
        return len(self._unread)

    def add(self, key: Key, unread: int) -> None:
        """Let a turn take part that has `unread` tokens to prefill; if there are none (0), it decodes."""
        assert key not in self._unread, "a turn takes part once"
        self._unread[key] = unread

    def remove(self, key: Key) -> None:
        """Take a turn out."""
        del self._unread[key]

    def step(self, held: AbstractSet[Key] = frozenset()) -> list[Share[Key]]:
        """Divide the next step, and count its tokens as computed. Those that are `held` sit it out."""
        taking = {key: unread for key, unread in self._unread.items() if key not in held}
        decoding = [key for key, unread in taking.items() if not unread][: self._batch]
        prefilling = {key: unread for key, unread in taking.items() if unread}
        room = self._batch - len(decoding)
        parts = divide(prefilling, min(room, self._chunk) if decoding else room)
        shares = [Share(key, 1, sampled=True) for key in decoding]
        for key, tokens in parts.items():
            shares.append(Share(key, tokens, sampled=tokens == prefilling[key]))
        for share in shares:  # a turn with a share goes to the end of the line
            unread = self._unread.pop(share.key)
            self._unread[share.key] = max(0, unread - share.tokens)
        return shares


def divide(wanted: Mapping[Key, int], room: int) -> dict[Key, int]:
    """Divide `room` max-min fairly: nobody gets more than another who wants more. The remainder goes in order."""
    parts: dict[Key, int] = {}
    by_size = sorted(wanted.items(), key=lambda entry: entry[1])
    for index, (key, size) in enumerate(by_size):
        parts[key] = min(size, room // (len(by_size) - index))
        room -= parts[key]
    for key, size in wanted.items():  # the remainder is less than one token for each
        if room and parts[key] < size:
            parts[key] += 1
            room -= 1
    return {key: parts[key] for key in wanted if parts[key]}
