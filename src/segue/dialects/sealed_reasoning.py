"""Sealed reasoning: what a provider wants back unread, marked with that provider's name.

A provider wants a signature, a redacted block or encrypted reasoning back exactly as it wrote it, and no other provider
can use it. It stands in `encrypted_content` of a reasoning item as `segue:1:<provider>:<content>`. Clients send that
field back as they do with OpenAI's. Content without our mark comes from a Responses server that the client used
directly.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import msgspec

#: How what we have sealed begins.
MARK = "segue:1:"


class SealedReasoning(msgspec.Struct, frozen=True):
    """What a provider wants back; `provider` is None if the content has no mark."""

    provider: str | None
    content: str


def seal(provider: str, content: str) -> str:
    """Return `encrypted_content` with the mark of its provider."""
    return f"{MARK}{quote(provider, safe='')}:{content}"


def unseal(encrypted_content: str) -> SealedReasoning:
    """Take the mark off again."""
    if not encrypted_content.startswith(MARK):
        return SealedReasoning(None, encrypted_content)
    provider, _, content = encrypted_content[len(MARK) :].partition(":")
    return SealedReasoning(unquote(provider), content)
