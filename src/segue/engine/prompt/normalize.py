"""Normalizes a conversation to messages that a chat template supports: pure.

Many templates support no system messages, or only one at the beginning. Some want users and assistants to alternate;
some write one call at a time, or drop the text beside a call. This module rearranges the messages so that the template
writes all of them. If roles must alternate and one of them has nothing to say, it gets an empty message. How a message
is rearranged depends only on its neighbours, so a later turn changes nothing before the answer that it follows. Not
here: how the capabilities of a template are found (`chat_template`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Literal

import msgspec

from segue.engine.prompt.messages import PromptMessage


class TemplateCapabilities(msgspec.Struct, frozen=True):
    """What a template supports.

    - `system_messages`: where they may stand.
    - `repeated_roles`: two messages of one role may follow each other.
    - `text_with_calls`: an assistant message may have text beside its calls.
    - `parallel_calls`: an assistant message may have several calls.
    - `user_after_outputs`: a user message may follow the outputs of calls directly.
    """

    system_messages: Literal["anywhere", "first", "never"] = "anywhere"
    repeated_roles: bool = True
    text_with_calls: bool = True
    parallel_calls: bool = True
    user_after_outputs: bool = True


def normalize(messages: Sequence[PromptMessage], template: TemplateCapabilities) -> list[PromptMessage]:
    """Return the messages as the template supports them; no text is lost."""
    arranged = list(messages)
    if template.system_messages != "anywhere":
        arranged = _move_system_messages(arranged, template.system_messages)
    if not template.repeated_roles:
        arranged = _join_repeated_roles(arranged)
    if not template.user_after_outputs:
        arranged = _answer_outputs(arranged)
    return [part for message in arranged for part in _split_calls(message, template)]


def _move_system_messages(
    messages: Sequence[PromptMessage], supported: Literal["first", "never"]
) -> list[PromptMessage]:
    """Join the system messages at the beginning to one, and make the others messages of the user."""
    leading = list(takewhile(lambda message: message.role == "system", messages))
    rest = [_as_user_message(message) if message.role == "system" else message for message in messages[len(leading) :]]
    text = _join(message.text for message in leading)
    if (
        supported == "first" and leading and rest and rest[0].role == "user"
    ):  # without a user message, many templates drop it
        return [PromptMessage("system", text), *rest]
    return [PromptMessage("user", text), *rest] if text else rest


def _as_user_message(message: PromptMessage) -> PromptMessage:
    return PromptMessage("user", message.text)


def _join_repeated_roles(messages: Sequence[PromptMessage]) -> list[PromptMessage]:
    joined: list[PromptMessage] = []
    for message in messages:
        before = joined[-1] if joined else None
        if before is None or before.role != message.role or before.role == "tool" or before.calls:
            joined.append(message)
        else:
            joined[-1] = msgspec.structs.replace(message, text=_join((before.text, message.text)))
    return joined


def _answer_outputs(messages: Sequence[PromptMessage]) -> list[PromptMessage]:
    answered: list[PromptMessage] = []
    for message in messages:
        if message.role == "user" and answered and answered[-1].role == "tool":
            answered.append(PromptMessage("assistant", ""))
        answered.append(message)
    return answered


def _split_calls(message: PromptMessage, template: TemplateCapabilities) -> list[PromptMessage]:
    if not message.calls:
        return [message]
    parts = [PromptMessage("assistant", message.text)] if message.text and not template.text_with_calls else []
    if parts and not template.repeated_roles:
        parts.append(PromptMessage("user", ""))
    text = "" if parts else message.text
    if template.parallel_calls:
        return [*parts, msgspec.structs.replace(message, text=text)]
    first, *others = message.calls
    return [
        *parts,
        msgspec.structs.replace(message, text=text, calls=(first,)),
        *(PromptMessage("assistant", "", (call,)) for call in others),
    ]


def _join(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)
