"""The messages of a WebSocket exchange, as the agent and the provider see them. Not here: frames of any socket."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Message(NamedTuple):
    """One whole message; a text message is its UTF-8 bytes."""

    opcode: Literal["text", "binary"]
    data: bytes


class Close(NamedTuple):
    """The end of a WebSocket: the code and reason of its close frame (1005: a close frame without a code)."""

    code: int
    reason: bytes
