"""The Anthropic Messages dialect: what a reply in a message thread of the upstream tells about its own continuation.

The upstream says nowhere whether it has kept a reply. It keeps none that broke off, that a filter cut, or that another
model wrote in place of the first (https://platform.claude.com/docs/en/build-with-claude/message-threads). A server that
ignores the field `thread` answers too, without the history. That shows in how many tokens it has read, which it says
before the first word of its answer. Not here: the request (`thread_request`), and what the events mean (`stream`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from segue.dialects.error_shapes import read_error
from segue.dialects.interface import Awaited, Output, ReplyDecoder
from segue.dialects.messages.message_fold import MessageFold
from segue.dialects.messages.stream import read_usage
from segue.http.sse import SseEvent
from segue.protocol.codec import UNREADABLE
from segue.protocol.responses import Failure

_NAME = re.compile(r"msg_[0-9A-Za-z_-]{1,120}")
#: The stop reasons of a reply that is kept as it is.
_KEPT = frozenset({"end_turn", "tool_use", "stop_sequence", "pause_turn", "max_tokens"})
_FORGOTTEN = Failure(
    "upstream_protocol_error", "The upstream has answered without the history that it was to go on from."
)

#: The fields of each kind of block that is compared, and those that say nothing if they have these values.
_COMPARED: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "tool_use": ("id", "name", "input"),
}
_THOUGHTS = frozenset({"thinking", "redacted_thinking"})
_SILENT: dict[str, tuple[object, ...]] = {"citations": (None, []), "caller": (None, {"type": "direct"})}


class ContinuableReply(msgspec.Struct, frozen=True):
    """A reply that its upstream can go on from: its `name` there, and a digest and the size of its content.

    The upstream has read `prompt_tokens` for it. `thoughts`: there are thoughts in it.
    """

    name: str
    content: bytes
    size_bytes: int
    prompt_tokens: int
    thoughts: bool = False


class ThreadReplyDecoder:
    """A reply's decoder that reads what a continuation needs. `least_tokens`, if given, is what it must have read.

    `forgotten` is true once it has read less, or does not say how much. `error_code` is that of an error in the stream.
    """

    def __init__(self, decoder: ReplyDecoder, least_tokens: int | None = None) -> None:
        self._decoder = decoder
        self._least_tokens = least_tokens
        self._fold = MessageFold()
        self._read_tokens: int | None = None  # once the upstream has said it
        self.forgotten = False
        self.error_code = ""

    @property
    def ended(self) -> bool:
        """Whether an `Ended` was returned."""
        return self._decoder.ended

    @property
    def awaited(self) -> Awaited:
        """What the stream has still to bring."""
        return self._decoder.awaited

    def feed(self, event: SseEvent) -> Output:
        """Read one event. Nothing of an answer is let out before the upstream has shown that it knows the history."""
        if self._decoder.ended:
            return []
        self._fold.feed(event.data)
        if event.type == "error":
            self.error_code = read_error(event.data).detail
        if self._read_tokens is None and self._fold.fields:
            self._read_tokens = _prompt_tokens(self._fold.fields)
            if self._read_tokens < (self._least_tokens or 0):
                return self._forget()
        output = self._decoder.feed(event)
        if self._read_tokens is None and self._least_tokens is not None and output and not self._decoder.ended:
            return self._forget()  # an answer that never said how much was read
        return output

    def _forget(self) -> Output:
        self.forgotten = True
        return self._decoder.fail(_FORGOTTEN)

    def end(self, *, truncated: bool = False) -> Output:
        """Report that the stream is over."""
        return self._decoder.end(truncated=truncated)

    def fail(self, failure: Failure) -> Output:
        """End the turn as failed."""
        return self._decoder.fail(failure)

    def kept_reply(self) -> ContinuableReply | None:
        """Return the reply if its upstream has surely kept it, as far as a stream can tell."""
        message = self._fold.fields
        name, tokens = message.get("id"), self._read_tokens
        if not self._fold.stopped or message.get("stop_reason") not in _KEPT or _is_fallback(message) or not tokens:
            return None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return None
        content = self._fold.content()
        if message["stop_reason"] == "max_tokens" and content and content[-1].get("type") == "tool_use":
            return None  # its input may have been cut off
        digest = content_digest(content)
        if digest is None:
            return None
        thoughts = any(block["type"] in _THOUGHTS for block in content)
        return ContinuableReply(name, digest.digest, digest.size_bytes, tokens, thoughts)


class _WrittenMessage(msgspec.Struct):
    role: str
    content: list[dict[str, Any]]


_messages = msgspec.json.Decoder(_WrittenMessage)


class ContentDigest(msgspec.Struct, frozen=True):
    """A digest of the blocks of a message, and roughly how long they are as JSON."""

    digest: bytes
    size_bytes: int


def content_digest(blocks: Sequence[dict[str, Any]]) -> ContentDigest | None:
    """Return a digest that is the same for blocks that say the same; None for no block, or one not understood."""
    compared = [_compared(block) for block in blocks]
    if not compared or None in compared:
        return None
    try:
        plain = msgspec.json.decode(msgspec.json.encode(compared))  # an input may be raw JSON
        written = msgspec.json.encode(plain, order="sorted")
    except UNREADABLE:  # it is nested too deeply
        return None
    return ContentDigest(hashlib.sha256(written).digest(), len(written))


def digest_of_blocks(blocks: Sequence[bytes]) -> ContentDigest | None:
    """Return the digest of blocks that are written already."""
    try:
        read: list[dict[str, Any]] = msgspec.json.decode(b"[" + b",".join(blocks) + b"]")
    except UNREADABLE:
        return None
    return content_digest(read)


def digest_of_message(message: bytes) -> ContentDigest | None:
    """Return the digest of what a message of the model's says; None if it is anything else."""
    try:
        read = _messages.decode(message)
    except UNREADABLE:
        return None
    return content_digest(read.content) if read.role == "assistant" else None


def _compared(block: dict[str, Any]) -> list[Any] | None:
    kind = str(block.get("type"))
    names = _COMPARED.get(kind)
    if names is None:
        return None
    others = block.keys() - {"type", *names}
    if any(name not in _SILENT or block[name] not in _SILENT[name] for name in others):
        return None
    return [kind, *(block.get(name) for name in names)]


def _prompt_tokens(message: Any) -> int:  # noqa: ANN401 - JSON of a peer
    usage = message.get("usage")
    return read_usage(usage).input_tokens if isinstance(usage, dict) else 0


def _is_fallback(message: Any) -> bool:  # noqa: ANN401 - JSON of a peer
    """Tell whether another model has answered: such a turn is not kept."""
    usage = message.get("usage")
    rounds = usage.get("iterations") if isinstance(usage, dict) else None
    return isinstance(rounds, list) and any(
        isinstance(one, dict) and one.get("type") == "fallback_message" for one in rounds
    )
