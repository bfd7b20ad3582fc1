"""Writes the creates of a session by joining bytes: nothing is encoded twice.

The members that stay the same (model, instructions, tools and other fields) are encoded once. The items are the bytes
of the history. Not here: what a create continues (`continuation`), and what a transport adds (`type`, `stream`,
`stream_id`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from segue.client.settings import SessionSettings
from segue.protocol.codec import encode
from segue.protocol.items import Item
from segue.protocol.requests import ENCRYPTED_REASONING, LeanForm

#: Members of a create that a session writes by itself.
_OWN_MEMBERS = frozenset(
    {
        "model",
        "instructions",
        "tools",
        "store",
        "input",
        "previous_response_id",
        "include",
        "type",
        "stream",
        "stream_id",
        "generate",
        "segue",
    }
)
#: Members that would take the history away from the session.
_FOREIGN_MEMBERS = frozenset({"conversation", "background", "prompt"})


class StaticMembers(msgspec.Struct, frozen=True):
    """The members that all creates of a session have, as JSON without its last brace.

    `include` is what the caller asks to be included.
    """

    head: bytes
    include: tuple[str, ...] = ()
    store: bool = False

    @property
    def wants_reasoning(self) -> bool:
        """Whether a session adds `reasoning.encrypted_content` by itself: a replay needs it, and nobody stores it."""
        return not self.store and ENCRYPTED_REASONING not in self.include


class CreateOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What only servers of this project understand; it is sent to nobody else."""

    idempotency_key: str | None = None
    epoch: str | None = None
    resume: bool = False
    lean: LeanForm = False


def encode_static(settings: SessionSettings) -> StaticMembers:
    """Encode what stays the same in a session.

    Raises:
        ValueError: a field is one that sessions write by themselves, or that they cannot work with.
    """
    fields = dict(settings.fields)
    include = tuple(fields.pop("include", None) or ())
    if wrong := sorted(_OWN_MEMBERS.intersection(fields)):
        raise ValueError(f"a session writes {', '.join(wrong)} by itself: use its own arguments")
    if wrong := sorted(_FOREIGN_MEMBERS.intersection(fields)):
        raise ValueError(f"a session keeps the history itself, so it cannot be used with {', '.join(wrong)}")
    members: dict[str, Any] = {"model": settings.model, "store": settings.store}
    if settings.instructions is not None:
        members["instructions"] = settings.instructions
    if settings.tools:
        members["tools"] = settings.tools
    return StaticMembers(encode(members | fields)[:-1], include, settings.store)


def write_create(
    static: StaticMembers,
    items: Iterable[Item],
    *,
    previous_response_id: str | None = None,
    own_include: bool = True,
    generate: bool = True,
    options: CreateOptions | None = None,
) -> bytes:
    """Join a create: with an id, `items` are the new ones; without, they are the whole history."""
    parts = [static.head]
    include = (*static.include, ENCRYPTED_REASONING) if own_include and static.wants_reasoning else static.include
    if include:
        parts.append(b',"include":%b' % encode(include))
    if not generate:
        parts.append(b',"generate":false')
    if options is not None and options != _NO_OPTIONS:
        parts.append(b',"segue":%b' % encode(options))
    if previous_response_id is not None:
        parts.append(b',"previous_response_id":%b' % encode(previous_response_id))
    parts += (b',"input":[', b",".join(items), b"]}")
    return b"".join(parts)


_NO_OPTIONS = CreateOptions()
