"""The word by which a router keeps a conversation with one of several servers: pure.

It is the same in every turn of a conversation and says nothing: a keyed digest of where the conversation began, so that
neither a tenant nor an id can be read from it, or guessed and checked. The key belongs to the tenant. Not here: where
the key comes from, and which header a router reads.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

import msgspec

from segue.upstreams.conversation_key import ConversationKey

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
#: Names that have a meaning to the provider, or to the connection (RFC 9110, 7.6.1).
_TAKEN = re.compile(
    r"accept.*|content-.*|proxy-.*|authorization|connection|cookie|date|expect|host|keep-alive|te|trailer"
    r"|transfer-encoding|upgrade|user-agent|via|x-api-key|api-key|anthropic-version",
    re.IGNORECASE,
)

#: The digits of the word: 128 bits. Routers take at least as much.
_DIGITS = 32


class SessionAffinity(msgspec.Struct, frozen=True):
    """Which header carries the word; `secret_of` gives the key of a tenant."""

    header: str
    secret_of: Callable[[str], bytes]

    def line(self, origin: ConversationKey) -> tuple[str, str]:
        """Return the header line for a turn."""
        return self.header, affinity_key(self.secret_of(origin.tenant), origin)


def fault_of_header(name: str) -> str | None:
    """Say why a header cannot carry the word."""
    if not _TOKEN.fullmatch(name):
        return "is not the name of a header, such as X-Session-ID"
    if _TAKEN.fullmatch(name):
        return "has a meaning of its own; name another header, such as X-Session-ID"
    return None


def affinity_key(secret: bytes, origin: ConversationKey) -> str:
    """Return the word of a conversation: 32 hex digits."""
    name = b"start" + origin.start if origin.replayed else b"chain" + origin.chain.encode()
    tenant = origin.tenant.encode("utf-8", "surrogatepass")
    return hmac.new(secret, b"affinity\0" + tenant + b"\0" + name, hashlib.sha256).hexdigest()[:_DIGITS]
