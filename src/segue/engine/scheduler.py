"""Which tokens the engine computes next: a pure scheduler for turns that share one model.

A *step* is one computation of at most `batch` tokens. A turn that answers needs one token of every step, or its stream
would stall. A turn that reads its prompt takes what it is given. So each step has one token for every turn that
answers, and the rest is divided among those that read as evenly as it can be (max-min fair): a short prompt is read in
its first step however long the others are, and none waits for another to be done. While anybody answers, the others
read at most `chunk` tokens a step, which bounds the time between two tokens of an answer. Where there are more turns
than tokens, they take turns. Not here: when a turn may begin (`fair_queue`), and where its tokens are kept (`memory`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import msgspec

Key = TypeVar("Key", bound=Hashable)


class Share(msgspec.Struct, Generic[Key], frozen=True):
    """What a turn gets of a step: its next `tokens` tokens, and an answer if they end its prompt (`answers`)."""

    key: Key
    tokens: int
    answers: bool


class Scheduler(Generic[Key]):
    """The turns that run, and what each still has to read."""

    def __init__(self, batch: int, chunk: int) -> None:
        assert 1 <= chunk <= batch, "a chunk is a part of a batch"
        self._batch = batch
        self._chunk = chunk
        self._unread: dict[Key, int] = {}  # in the order of their last share, longest ago first

    def __len__(self) -> int:
        return len(self._unread)

    def add(self, key: Key, unread: int) -> None:
        """Let a turn take part that has `unread` tokens to read; with none left (0), it answers."""
        assert key not in self._unread, "a turn takes part once"
        self._unread[key] = unread

    def remove(self, key: Key) -> None:
        """Let a turn take part no longer."""
        del self._unread[key]

    def step(self) -> list[Share[Key]]:
        """Divide the next step, and count its tokens as read."""
        answering = [key for key, unread in self._unread.items() if not unread][: self._batch]
        reading = {key: unread for key, unread in self._unread.items() if unread}
        room = self._batch - len(answering)
        parts = divide(reading, min(room, self._chunk) if answering else room)
        shares = [Share(key, 1, answers=True) for key in answering]
        for key, tokens in parts.items():
            shares.append(Share(key, tokens, answers=tokens == reading[key]))
        for share in shares:  # whoever got something goes to the end
            unread = self._unread.pop(share.key)
            self._unread[share.key] = max(0, unread - share.tokens)
        return shares


def divide(wanted: Mapping[Key, int], room: int) -> dict[Key, int]:
    """Divide `room` so that nobody gets more while somebody who got less wants more; a rest goes in order."""
    parts: dict[Key, int] = {}
    by_size = sorted(wanted.items(), key=lambda entry: entry[1])
    for index, (key, size) in enumerate(by_size):
        parts[key] = min(size, room // (len(by_size) - index))
        room -= parts[key]
    for key, size in wanted.items():  # less than one token for each of the others is left
        if room and parts[key] < size:
            parts[key] += 1
            room -= 1
    return {key: parts[key] for key in wanted if parts[key]}
