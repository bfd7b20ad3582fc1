"""From a conversation to messages that a chat template takes: pure.

Many templates know no system messages, or one at the beginning; some want users and assistants to take turns, some
show one call at a time, or lose the words beside a call. (Where it is a role's turn that has nothing to say, it says
nothing, in a message of its own.) What a client sends is none of their business: here it is
arranged so that they write all of it. Each message is arranged by what stands beside it, so what a later turn adds
changes nothing before the answer that it follows. Not here: how it is found out what a template takes (`template`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Literal

import msgspec

from segue.engine.prompt.messages import Message


class Habits(msgspec.Struct, frozen=True):
    """What a template takes: where system messages may stand, and what one message may have.

    `neighbours` says that two messages of one role may follow each other, `user_behind_outputs` that a user may speak
    before the outputs of calls are answered.
    """

    systems: Literal["anywhere", "first", "never"] = "anywhere"
    neighbours: bool = True
    text_with_calls: bool = True
    many_calls: bool = True
    user_behind_outputs: bool = True


def adapt(messages: Sequence[Message], habits: Habits) -> list[Message]:
    """Arrange messages for a template of such habits; nothing that they say is lost."""
    arranged = list(messages) if habits.systems == "anywhere" else _place_systems(messages, habits.systems)
    if not habits.neighbours:
        arranged = _join_neighbours(arranged)
    if not habits.user_behind_outputs:
        arranged = _answer_outputs(arranged)
    return [part for message in arranged for part in _split_calls(message, habits)]


def _place_systems(messages: Sequence[Message], systems: Literal["first", "never"]) -> list[Message]:
    """Make one of the system messages at the beginning, and let users say the others."""
    leading = list(takewhile(lambda message: message.role == "system", messages))
    rest = [_said_by_user(message) if message.role == "system" else message for message in messages[len(leading) :]]
    text = _join(message.text for message in leading)
    if systems == "first" and leading and rest and rest[0].role == "user":  # alone, many templates do not write it
        return [Message("system", text), *rest]
    return [Message("user", text), *rest] if text else rest


def _said_by_user(message: Message) -> Message:
    return Message("user", message.text)


def _join_neighbours(messages: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        before = joined[-1] if joined else None
        if before is None or before.role != message.role or before.role == "tool" or before.calls:
            joined.append(message)
        else:
            joined[-1] = msgspec.structs.replace(message, text=_join((before.text, message.text)))
    return joined


def _answer_outputs(messages: Sequence[Message]) -> list[Message]:
    answered: list[Message] = []
    for message in messages:
        if message.role == "user" and answered and answered[-1].role == "tool":
            answered.append(Message("assistant", ""))
        answered.append(message)
    return answered


def _split_calls(message: Message, habits: Habits) -> list[Message]:
    if not message.calls:
        return [message]
    parts = [Message("assistant", message.text)] if message.text and not habits.text_with_calls else []
    if parts and not habits.neighbours:
        parts.append(Message("user", ""))
    text = "" if parts else message.text
    if habits.many_calls:
        return [*parts, msgspec.structs.replace(message, text=text)]
    first, *others = message.calls
    return [*parts, Message("assistant", text, (first,)), *(Message("assistant", "", (call,)) for call in others)]


def _join(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)
