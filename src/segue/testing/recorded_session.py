"""One task of one agent as values: each request that it sent, and the reply that it got.

`segue.bench` generates sessions and reads recorded ones. Not here: making sessions, and playing them.
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

#: The zstd level of every size that benchmarks compare.
LEVEL = 3


class RecordedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its reply; `news` is what nobody has seen before in this request, as JSON."""

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
        """A lower bound of the bytes up: the first body and the news of all later turns, each compressed once."""
        first, *later = self.turns
        return compressed(first.body) + compressed(b"".join(turn.news for turn in later))


def compressed(data: bytes) -> int:
    """Return the size of the data compressed by zstd at `LEVEL`."""
    return len(zstd.compress(data, LEVEL)) if data else 0
