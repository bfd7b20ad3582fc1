"""KV retention: how much of each sequence the responses still need. Pure.

A turn that ends *retains* a prefix of its sequence for its response: what goes on from that response starts there. The
turns of one conversation work on a sequence one after the other, so the retained prefixes of a sequence are prefixes of
each other, kept in order of length. When a response is gone, so is its retention, and what lies behind the longest one
left can be cut off. The cost does not depend on the number of turns in a conversation.

A response that no client can name any more, or a turn that was cancelled, leaves an *expiring* retention, for a client
that sends its history again. A turn that goes on from a sequence replaces the expiring retentions at its end with its
own. So a sequence never has more retentions than tokens.

Not here: sequences (`cache`), and cutting and dropping them (`sequence_pool`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from segue.protocol.ids import ResponseId

#: A response: its tenant and its id.
ResponseKey: TypeAlias = tuple[str, ResponseId]


class Retention(msgspec.Struct, frozen=True):
    """The first `length` tokens of a sequence are retained; no other turn may rewind into the first `protected`.

    `disk_allowed`: all of these tokens belong to turns that may go to disk.
    """

    length: int
    protected: int
    disk_allowed: bool = False


#: What is retained of a sequence that no response needs.
NOTHING_RETAINED = Retention(0, 0)


class RetentionIndex:
    """The retentions of all sequences of one engine, by the keys of the sequences. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._retentions: dict[int, dict[ResponseKey, Retention]] = {}  # of each sequence, shortest first; none empty
        self._sequences: dict[ResponseKey, int] = {}
        self._expires_at: dict[ResponseKey, float] = {}  # the first to expire first

    def __len__(self) -> int:
        return len(self._sequences)

    def longest(self, key: int) -> Retention:
        """Return the longest retention of a sequence; all others are prefixes of it."""
        retentions = self._retentions.get(key)
        return NOTHING_RETAINED if retentions is None else retentions[next(reversed(retentions))]

    def continue_from(self, key: int, length: int) -> None:
        """Note that a turn goes on from the first `length` tokens of a sequence; what lay behind them is lost."""
        retentions = self._retentions.get(key, {})
        while retentions:
            response = next(reversed(retentions))
            if length and response not in self._expires_at:
                break
            self._remove(response)
        for response, one in reversed(retentions.items()):
            if one.length <= length:
                break
            protected = min(one.protected, length)
            retentions[response] = msgspec.structs.replace(one, length=length, protected=protected)

    def retain(self, key: int, response: ResponseKey, retention: Retention, expires_at: float | None) -> None:
        """Note what a turn leaves at its end, in a sequence that it has made longer."""
        self._remove(response)
        self._retentions.setdefault(key, {})[response] = retention
        self._sequences[response] = key
        if expires_at is not None:
            self._expires_at[response] = expires_at

    def release(self, response: ResponseKey, expires_at: float) -> None:
        """Let a retention expire: no client can name its response any more."""
        if response in self._sequences:
            self._expires_at.setdefault(response, expires_at)

    def drop_expiring_tail(self, key: int) -> bool:
        """Remove the expiring retentions behind the longest lasting one; say if there were both."""
        retentions = self._retentions.get(key, {})
        expiring = list(itertools.takewhile(self._expires_at.__contains__, reversed(retentions)))
        if not expiring or len(expiring) == len(retentions):
            return False
        self.forget(expiring)
        return True

    def forget(self, responses: Iterable[ResponseKey]) -> set[int]:
        """Remove the retentions of responses that are gone; return the sequences that had them."""
        keys = {self._remove(response) for response in responses}
        return {key for key in keys if key is not None}

    def of_tenant(self, tenant: str) -> list[ResponseKey]:
        """Return the responses of a tenant that retain something."""
        return [response for response in self._sequences if response[0] == tenant]

    def expire(self, now: float) -> set[int]:
        """Remove the retentions that have expired; return the sequences that had them."""
        due = []
        for response, expires_at in self._expires_at.items():
            if expires_at > now:
                break
            due.append(response)
        return self.forget(due)

    def next_expiry(self) -> float | None:
        """Return when the next retention expires."""
        return next(iter(self._expires_at.values()), None)

    def drop_sequence(self, key: int) -> None:
        """Note that a sequence is gone."""
        for response in self._retentions.pop(key, ()):
            del self._sequences[response]
            self._expires_at.pop(response, None)

    def _remove(self, response: ResponseKey) -> int | None:
        key = self._sequences.pop(response, None)
        if key is None:
            return None
        self._expires_at.pop(response, None)
        retentions = self._retentions[key]
        del retentions[response]
        if not retentions:
            del self._retentions[key]
        return key
