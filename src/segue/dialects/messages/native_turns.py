"""The Anthropic Messages dialect: turns of a thread in the API's own words, which a later turn repeats as they are.

A block that is no item, or that an item would say otherwise, is kept that way. Only its marks (`cache_control`) go: a
client marks what is new in every turn, and this API takes four marks in a request. Anthropic's SDKs do the same when
they send a thread whole. Not here: turns that came in another API, which are rendered from their items (`request`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from segue.dialects.messages.message_fold import MessageFold
from segue.history.chains import NativeTurn, Turn
from segue.protocol.codec import encode
from segue.protocol.items import join
from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.requests import NativeBody

_MARK = "cache_control"
_lists = msgspec.json.Decoder(list[Raw])


def native_turn(native: NativeBody, reply_fold: MessageFold) -> NativeTurn:
    """Return the new messages of a request, and the message that its provider's events add up to."""
    content = reply_fold.content()
    reply = encode({"role": "assistant", "content": content}) if content else b""
    asked = _without_marks(native.messages) if f'"{_MARK}"'.encode() in native.messages else native.messages
    return NativeTurn(native.dialect, b",".join(part for part in (asked, reply) if part))


def _without_marks(messages: bytes) -> bytes:
    """Return messages without the marks of their blocks, and of the blocks within those; all else keeps its bytes."""
    return b",".join(_unmarked(bytes(message), "content") for message in _lists.decode(b"[%b]" % messages))


def _unmarked(value: bytes, inside: str) -> bytes:
    """Return an object without its mark, and without those of the objects in the list of this name."""
    text = read_object(value) if value.lstrip()[:1] == b"{" else None
    if not isinstance(text, ObjectText):
        return value
    content, changed = text.value(inside), {}
    if content is not None and content.startswith(b"["):
        changed = {inside: (join([_unmarked(bytes(block), inside) for block in _lists.decode(content)]),)}
    return b"".join(text.changed(changed, without={_MARK}))


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
