"""The Anthropic Messages dialect: turns of a thread in the API's own words, which a later turn repeats as they are.

A block that is no item, or that an item would say otherwise, is kept that way. Not here: turns that came in another
API, which are rendered from their items (`request`).
"""

from __future__ import annotations

from collections.abc import Sequence

from segue.dialects.messages.message_fold import MessageFold
from segue.history.chains import NativeTurn, Turn
from segue.protocol.codec import encode
from segue.protocol.requests import NativeBody


def native_turn(native: NativeBody, reply_fold: MessageFold) -> NativeTurn:
    """Return the new messages of a request, and the message that its provider's events add up to."""
    content = reply_fold.content()
    reply = encode({"role": "assistant", "content": content}) if content else b""
    return NativeTurn(native.dialect, b",".join(part for part in (native.messages, reply) if part))


def native_messages(turns: Sequence[Turn], native: NativeBody) -> tuple[bytes, ...] | None:
    """Return the whole list of messages in pieces, or None if a turn is not there in this API's words."""
    pieces: list[bytes] = []
    for turn in turns:
        if turn.native is None or turn.native.dialect != native.dialect:
            return None
        if turn.native.messages:
            pieces += [b"," if pieces else b"[", turn.native.messages]
    if native.messages:
        pieces += [b"," if pieces else b"[", native.messages]
    return (*pieces, b"]") if pieces else (b"[]",)
