"""SealedReasoning reasoning: who wrote it, so that it goes back to its own provider intact and to nobody else.

What a provider wants back unread (a signature, a redacted block, encrypted reasoning) stands in `encrypted_content` of
a reasoning item, behind our mark and the provider's name: `segue:1:<provider>:<what it was>`. Clients carry that text
as they carry OpenAI's. What comes without our mark was written by a Responses server that the client talked to itself.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

import msgspec

_MARK = "segue:1:"


class SealedReasoning(msgspec.Struct, frozen=True):
    """What a provider wants back; `provider` is None where nobody wrote down whose it is."""

    provider: str | None
    content: str


def seal(provider: str, content: str) -> str:
    """Return `encrypted_content` that says whose it is."""
    return f"{_MARK}{quote(provider, safe='')}:{content}"


def unseal(encrypted_content: str) -> SealedReasoning:
    """Take our mark off again."""
    if not encrypted_content.startswith(_MARK):
        return SealedReasoning(None, encrypted_content)
    provider, _, content = encrypted_content[len(_MARK) :].partition(":")
    return SealedReasoning(unquote(provider), content)
