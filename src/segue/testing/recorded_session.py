"""What one agent sent and was answered in one task, as values: generated (`segue.bench`) or read from a recording.

Not here: making sessions, and playing them.
"""

from __future__ import annotations

import sys
from typing import Literal

import msgspec

from segue.http.heads import RequestHead
from segue.testing.replies import Api, ProviderReply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3


class RecordedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its reply."""

    head: RequestHead
    body: bytes
    reply: ProviderReply
    news: bytes


class RecordedSession(msgspec.Struct, frozen=True, kw_only=True):
    """One task of one agent."""

    kind: str
    api: Api
    streamed: bool
    transport: Literal["http", "websocket"]
    turns: tuple[RecordedTurn, ...]

    @property
    def bound(self) -> int:
        """Bytes of the first body and of all news of later turns, each compressed by zstd once."""
        first, *later = self.turns
        return compressed(first.body) + compressed(b"".join(turn.news for turn in later))


def compressed(data: bytes) -> int:
    """Return the size of the data compressed by zstd, at the level that everything here is compared at."""
    return len(zstd.compress(data, LEVEL)) if data else 0
