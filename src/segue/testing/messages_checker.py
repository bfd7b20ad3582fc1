"""A checker of Messages streams: the shape of each event, and their order.

    check_messages_sse(body)                      # raises MessagesViolation; returns the message that they add up to
    checker = MessagesChecker(); checker.feed(name, value); checker.finish()

It shares nothing with the gateway's own writer, and asks nothing that Anthropic's documentation does not say
(https://platform.claude.com/docs/en/build-with-claude/streaming). Not here: what a message says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Json = dict[str, Any]

#: What each type of block starts with, and which deltas it may have.
_BLOCKS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = MappingProxyType(
    {
        "text": (frozenset({"text"}), frozenset({"text_delta", "citations_delta"})),
        "thinking": (frozenset({"thinking"}), frozenset({"thinking_delta", "signature_delta"})),
        "redacted_thinking": (frozenset({"data"}), frozenset()),
        "tool_use": (frozenset({"id", "name", "input"}), frozenset({"input_json_delta"})),
    }
)
_MESSAGE = frozenset({"id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage"})
_STOP_REASONS = frozenset({"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"})
_EVENT = re.compile(r"event: (?P<name>[a-z_]+)\ndata: (?P<data>.*)")


class MessagesViolation(AssertionError):
    """A stream breaks the rules of the Messages API."""


class MessagesChecker:
    """Takes one stream, event by event; `message` is what it adds up to."""

    def __init__(self) -> None:
        self.message: Json = {}
        self.error: Json | None = None
        self.ended = False
        self._open: Json | None = None
        self._partial = ""
        self._broken = False
        self._stopped = False

    def feed(self, name: str, value: Json) -> None:
        """Check the next event."""
        _require(value.get("type") == name, f"the event {name!r} has another type in its data: {value.get('type')!r}")
        _require(not self.ended, f"{name} comes after the end")
        if name in ("ping", "error"):
            self.error = value["error"] if name == "error" else self.error
            self.ended = name == "error"
            return
        _require((name == "message_start") != bool(self.message), f"{name} comes at the wrong end of the message")
        match name:
            case "message_start":
                self._start(value["message"])
            case "content_block_start" | "content_block_delta" | "content_block_stop":
                self._block(name, value)
            case "message_delta":
                self._stop(value)
            case "message_stop":
                _require(self._stopped, "a message stops that has not said why")
                self.ended = True
            case _:
                raise MessagesViolation(f"{name!r} is no event of this API")

    def finish(self) -> Json:
        """Check that the stream has ended; returns the message."""
        _require(self.ended, "the stream has no end")
        return self.message

    def _start(self, message: Json) -> None:
        _require(message.keys() >= _MESSAGE, f"message_start lacks {_MESSAGE - message.keys()}")
        _require(message["id"].startswith("msg_"), f"{message['id']!r} is no id of a message")
        _require((message["type"], message["role"]) == ("message", "assistant"), "it is no message of the model's")
        _require(message["content"] == [] and message["stop_reason"] is None, "a message starts with its end")
        _check_usage(message["usage"], {"input_tokens", "output_tokens"})
        self.message = {**message, "content": []}

    def _block(self, name: str, value: Json) -> None:
        content = self.message["content"]
        _require(not self._stopped, f"{name} comes after the message has said why it stops")
        if name == "content_block_start":
            _require(self._open is None, "a block starts within another one")
            _require(value["index"] == len(content), f"block {value['index']} starts, and it is the {len(content)}.")
            block = dict(value["content_block"])
            fields, _ = _BLOCKS.get(block["type"], (frozenset(), frozenset()))
            _require(block.keys() >= fields, f"a block of the type {block['type']} lacks {fields - block.keys()}")
            content.append(block)
            self._open, self._partial = block, ""
            return
        _require(self._open is not None, f"{name} comes outside of a block")
        _require(value["index"] == len(content) - 1, f"{name} is of another block than the open one")
        if name == "content_block_delta":
            self._grow(value["delta"])
        else:
            self._end_block()

    def _grow(self, delta: Json) -> None:
        block = self._open
        assert block is not None, "it was checked"
        kind = delta["type"]
        if block["type"] in _BLOCKS:
            _require(kind in _BLOCKS[block["type"]][1], f"a {kind} does not belong into a block of {block['type']}")
        if kind == "input_json_delta":
            self._partial += delta["partial_json"]
            return
        for name, text in delta.items():
            if name != "type" and isinstance(text, str):
                block[name] = (block.get(name) or "") + text

    def _end_block(self) -> None:
        block, self._open = self._open, None
        assert block is not None, "it was checked"
        if self._partial:
            try:
                block["input"] = json.loads(self._partial)
            except ValueError:  # it was cut off, which the reason must say
                block["input"] = {"arguments": self._partial}
                self._broken = True

    def _stop(self, value: Json) -> None:
        _require(self._open is None, "a message ends with an open block")
        _require(not self._stopped, "a message says twice why it stops")
        reason = value["delta"]["stop_reason"]
        _require(reason in _STOP_REASONS, f"{reason!r} is no reason to stop")
        _check_usage(value["usage"], {"output_tokens"})
        blocks = [block for block in self.message["content"] if block["type"] == "tool_use"]
        _require(reason != "tool_use" or bool(blocks), "it stops for a tool that it does not call")
        _require(not self._broken or reason in ("max_tokens", "refusal"), "the input of a tool is no JSON")
        self.message |= value["delta"]
        self.message["usage"] = {**self.message["usage"], **value["usage"]}
        self._stopped = True


def check_messages_sse(body: bytes) -> Json:
    """Check a whole stream; returns the message that it adds up to.

    Raises:
        MessagesViolation: it breaks a rule, or ends with an error.
    """
    checker = MessagesChecker()
    text = body.decode()
    _require(text.endswith("\n\n"), "the last event is not whole")
    for piece in text.removesuffix("\n\n").split("\n\n"):
        found = _EVENT.fullmatch(piece)
        if found is None:
            raise MessagesViolation(f"no event: {piece[:80]!r}")
        checker.feed(found["name"], json.loads(found["data"]))
    message = checker.finish()
    _require(checker.error is None, f"the stream ends with an error: {checker.error}")
    return message


def _check_usage(usage: Json, needed: set[str]) -> None:
    _require(usage.keys() >= needed, f"usage lacks {needed - usage.keys()}")
    counts = [value for name, value in usage.items() if name.endswith("_tokens")]
    _require(all(isinstance(count, int) and count >= 0 for count in counts), f"usage counts otherwise: {usage}")


def _require(condition: bool, breach: str) -> None:  # noqa: FBT001 - it reads like an assertion
    if not condition:
        raise MessagesViolation(breach)
