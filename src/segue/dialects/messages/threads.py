"""The door of the Messages API: message threads, as far as a request alone tells.

A client begins a thread with its whole conversation, and continues it from the last message's id with what is new
(https://platform.claude.com/docs/en/build-with-claude/message-threads). The thread keeps `system` and `tools`; what a
request says of them again must be the same, but for cache marks and for a block that is for billing, which changes from
turn to turn. All other fields are the request's own. Not here: where threads are held (`gateway.turns.threads`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from segue.dialects.messages.door_items import BILLING
from segue.protocol.codec import UNREADABLE, decode, encode
from segue.protocol.problems import Problem, thread_mismatch, thread_unsupported
from segue.protocol.request_size import RequestLimits, refuse_size
from segue.protocol.requests import ThreadContext

_NULL = Raw(b"null")
_MARK = "cache_control"


class _GivenThread(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    previous_message_id: str | None = None


class _ThreadCarrier(msgspec.Struct):
    thread: Raw = _NULL


class ThreadAsk(msgspec.Struct, frozen=True):
    """What a request says about its thread: it begins one, or goes on from a message."""

    previous_message_id: str | None = None


class KnownContext(NamedTuple):
    """What holds for a request of a thread: `system` and `tools`, and the fields that its body must get for that."""

    context: ThreadContext
    fields: Mapping[str, bytes]


_threads = msgspec.json.Decoder(_GivenThread)
_carriers = msgspec.json.Decoder(_ThreadCarrier)
_any = msgspec.json.Decoder()


def read_thread(raw: Raw) -> ThreadAsk | Problem | None:
    """Read the field `thread`; None if there is none. What is not known is refused as its clients understand it."""
    if raw == _NULL:
        return None
    given = decode(raw, _threads, "thread")
    if isinstance(given, Problem):
        return thread_unsupported("'thread' has another form than this gateway knows")
    previous = given.previous_message_id
    if given.type == "create" and previous is None:
        return ThreadAsk()
    if given.type == "continue" and previous:
        return ThreadAsk(previous)
    return thread_unsupported("'thread' says something that this gateway does not know")


def may_have_thread(body: bytes) -> bool:
    """Tell whether a request may be one of a thread. An escape in the name is found later, and refused."""
    return b'"thread"' in body


def previous_message(body: bytes, limits: RequestLimits) -> str | None:
    """Return the id of the message that a request goes on from; None if it does not, or cannot be read."""
    if refuse_size(body, limits) is not None:
        return None
    carrier = decode(body, _carriers)
    asked = None if isinstance(carrier, Problem) else read_thread(carrier.thread)
    return asked.previous_message_id if isinstance(asked, ThreadAsk) else None


def given_context(system: Raw, tools: Raw) -> ThreadContext:
    """Return the context of a thread that begins."""
    return ThreadContext(Raw(bytes(system)), Raw(bytes(tools)))  # copies: a view would keep the whole request


def known_context(held: ThreadContext, system: Raw, tools: Raw) -> KnownContext | Problem:
    """Return what holds for a request that goes on with a thread, or the problem if it says something else."""
    fields: dict[str, bytes] = {}
    differing: list[str] = []
    blocks, held_blocks = _system(system), _system(held.system)
    only_billing = bool(blocks) and all(map(_is_billing, blocks))
    if system == _NULL and held.system != _NULL:
        fields["system"] = bytes(held.system)
    elif only_billing:
        fields["system"] = encode([*blocks, *(block for block in held_blocks if not _is_billing(block))])
    elif _compared(blocks) != _compared(held_blocks):
        differing.append("system")
    if tools == _NULL and held.tools != _NULL:
        fields["tools"] = bytes(held.tools)
    elif _compared(_list(tools)) != _compared(_list(held.tools)):
        differing.append("tools")
    if differing:
        return thread_mismatch(differing)
    found = {"system": bytes(system), "tools": bytes(tools)} | fields
    return KnownContext(given_context(Raw(found["system"]), Raw(found["tools"])), fields)


def _system(raw: Raw) -> list[Any]:
    value = _value(raw)
    if isinstance(value, str):
        return [{"type": "text", "text": value}] if value else []
    return value if isinstance(value, list) else []


def _list(raw: Raw) -> list[Any]:
    value = _value(raw)
    return value if isinstance(value, list) else []


def _value(raw: Raw) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return _any.decode(raw)
    except UNREADABLE:
        return None


def _is_billing(block: object) -> bool:
    return isinstance(block, dict) and str(block.get("text", "")).startswith(BILLING)


def _compared(blocks: list[Any]) -> list[Any]:
    """Return blocks without what may differ."""
    kept = (block for block in blocks if not _is_billing(block))
    return [
        {name: value for name, value in block.items() if name != _MARK} if isinstance(block, dict) else block
        for block in kept
    ]
