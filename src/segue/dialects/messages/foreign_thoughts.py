"""The door of the Messages API: thoughts that only another provider can read, in a request that passes through.

A model of another API has written them, and the gateway has sealed what its provider wants back. Anthropic refuses a
request with a signature that is not its own, so such blocks are left out, as they are wherever a conversation changes
its provider. Everything else stays as it was written. Not here: requests that are translated, whose renderer does this.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from segue.dialects.sealed_reasoning import MARK
from segue.protocol.codec import UNREADABLE, encode

#: What a request holds that has such thoughts, and few others.
SEALED = f'"{MARK}'.encode()


class _ThoughtBlock(msgspec.Struct):
    signature: str = ""
    data: str = ""


class _ThinkingMessage(msgspec.Struct):
    role: str
    content: list[Raw]


_messages = msgspec.json.Decoder(_ThinkingMessage)
_blocks = msgspec.json.Decoder(_ThoughtBlock)


def without_foreign_thoughts(messages: Sequence[bytes | Raw]) -> list[bytes] | None:
    """Return the messages without thoughts of other providers; None if there are none. A message may become none."""
    written = [bytes(message) for message in messages]
    cleaned = [_clean(message) for message in written]
    return None if cleaned == written else [message for message in cleaned if message]


def _clean(message: bytes) -> bytes:
    if SEALED not in message:
        return message
    try:
        read = _messages.decode(message)
        kept = [block for block in read.content if not _is_foreign(block)]
    except UNREADABLE:  # what is no list of blocks has no thoughts
        return message
    if len(kept) == len(read.content):
        return message
    return encode({"role": read.role, "content": kept}) if kept else b""


def _is_foreign(block: Raw) -> bool:
    if SEALED not in bytes(block):
        return False
    thought = _blocks.decode(block)
    return thought.signature.startswith(MARK) or thought.data.startswith(MARK)
