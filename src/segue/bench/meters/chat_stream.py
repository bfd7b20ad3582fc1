"""Asks a server for an answer over Chat Completions, streamed, and notes when its first token and its end came.

Any server of that API can be asked, and all in the same way: temperature 0, and a number of tokens as the limit. Not
here: what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import aiohttp
import msgspec

_DATA, _DONE = b"data:", b"[DONE]"


class ChatStreamError(RuntimeError):
    """The server refused the request, or its stream ended before the answer did."""


class TimedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and its times in seconds from the sending of the request."""

    text: str
    prompt_tokens: int
    output_tokens: int
    first_token_s: float
    time_s: float

    @property
    def tokens_s(self) -> float | None:
        """Tokens in a second, counted from the first one on; None if no other followed."""
        writing_s = self.time_s - self.first_token_s
        return (self.output_tokens - 1) / writing_s if self.output_tokens > 1 and writing_s > 0 else None


class _CountedTokens(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _ChatDelta(msgspec.Struct):
    content: str | None = None


class _ChatChoice(msgspec.Struct):
    delta: _ChatDelta


class _ChatChunk(msgspec.Struct):
    choices: list[_ChatChoice] = []
    usage: _CountedTokens | None = None


_chunks = msgspec.json.Decoder(_ChatChunk)


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    messages: Sequence[Mapping[str, str]],
    *,
    model: str,
    tokens: int,
) -> TimedAnswer:
    """Ask for an answer of at most so many tokens. Raises `ChatStreamError`."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(messages),
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    pieces: list[str] = []
    counted: _CountedTokens | None = None
    first_at: float | None = None
    began_at = perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        if reply.status != 200:  # noqa: PLR2004 - the status is OK
            raise ChatStreamError(f"HTTP {reply.status}: {(await reply.text())[:200]}")
        async for line in reply.content:
            data = line.removeprefix(_DATA).strip()
            if not line.startswith(_DATA) or data == _DONE:
                continue
            chunk = _chunks.decode(data)
            counted = chunk.usage or counted
            text = "".join(choice.delta.content or "" for choice in chunk.choices)
            if text and first_at is None:
                first_at = perf_counter()
            pieces.append(text)
    now = perf_counter()
    if counted is None or first_at is None:
        raise ChatStreamError("the stream ended without an answer, or without its usage")
    return TimedAnswer(
        text="".join(pieces),
        prompt_tokens=counted.prompt_tokens,
        output_tokens=counted.completion_tokens,
        first_token_s=first_at - began_at,
        time_s=now - began_at,
    )
