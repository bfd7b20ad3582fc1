"""The session of an agent as it would be with Anthropic's message threads: pure, and computed from the recorded one.

The first request creates the thread; each later one has the messages after the reply before it, and names that reply.
What else it has depends on the client: Anthropic's SDKs leave `system` and `tools` out, which the server keeps. Claude
Code repeats them in full towards any host but Anthropic's own. Not here: what that costs (`arms.baselines`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from segue.http.heads import Line
from segue.testing.recorded_session import RecordedSession, RecordedTurn

_BETA = b"message-threads-2026-08-12"
#: As long as an id of Anthropic's.
_MESSAGE_ID = "msg_01" + 22 * "x"
_KEPT = frozenset({"system", "tools"})
_CREATE: Mapping[str, str] = {"type": "create"}
_CONTINUE: Mapping[str, str] = {"type": "continue", "previous_message_id": _MESSAGE_ID}


class _MessageRole(msgspec.Struct):
    role: str


_bodies = msgspec.json.Decoder(dict[str, Raw])
_lists = msgspec.json.Decoder(list[Raw])
_roles = msgspec.json.Decoder(_MessageRole)


def threaded(session: RecordedSession, *, settings_again: bool) -> RecordedSession:
    """Return a session of the Messages API with threads. `settings_again`: `system` and `tools` are always sent."""
    assert session.api == "messages", "other APIs have no threads"
    turns = (_threaded(turn, first=not number, again=settings_again) for number, turn in enumerate(session.turns))
    return replace(session, turns=tuple(turns))


def _threaded(turn: RecordedTurn, *, first: bool, again: bool) -> RecordedTurn:
    body = _bodies.decode(turn.body)
    if not first:
        body["messages"] = Raw(msgspec.json.encode(_new_messages(_lists.decode(body["messages"]))))
    kept = {name: value for name, value in body.items() if first or again or name not in _KEPT}
    lines = tuple(_with_beta(line) for line in turn.head.lines)
    return replace(
        turn,
        head=replace(turn.head, lines=lines),
        body=msgspec.json.encode({**kept, "thread": _CREATE if first else _CONTINUE}),
    )


def _new_messages(messages: list[Raw]) -> list[Raw]:
    """Return the messages after the last one of the model."""
    places = [place for place, message in enumerate(messages) if _roles.decode(message).role == "assistant"]
    return messages[places[-1] + 1 :] if places else messages


def _with_beta(line: Line) -> Line:
    return Line(line.name, b"%b,%b" % (line.value, _BETA)) if line.name.lower() == b"anthropic-beta" else line
