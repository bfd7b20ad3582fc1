"""Session affinity: the header by which a router sends all turns of a conversation to the same replica. Pure.

Its value, the affinity key, is the same in every turn of a conversation. It is a keyed digest (HMAC) of where the
conversation began, under the tenant's own secret, so that nobody can read a tenant or an id from it, or guess one and
check the guess. Not here: where the secret comes from, and which header a router reads.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

import msgspec

from segue.upstreams.conversation_key import ConversationKey

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
#: Headers that already mean something to the provider, or to the connection (RFC 9110, 7.6.1).
_RESERVED = re.compile(
    r"accept.*|content-.*|proxy-.*|authorization|connection|cookie|date|expect|host|keep-alive|te|trailer"
    r"|transfer-encoding|upgrade|user-agent|via|x-api-key|api-key|anthropic-version",
    re.IGNORECASE,
)

#: Hex digits of an affinity key: 128 bits. Routers accept at least this length.
_DIGITS = 32


class SessionAffinity(msgspec.Struct, frozen=True):
    """The header that carries the affinity key; `secret_of` returns a tenant's secret."""

    header: str
    secret_of: Callable[[str], bytes]

    def header_line(self, conversation: ConversationKey) -> tuple[str, str]:
        """Return the header line of a turn."""
        return self.header, affinity_key(self.secret_of(conversation.tenant), conversation)


def fault_of_header(name: str) -> str | None:
    """Say why a header cannot carry the affinity key; return None if it can."""
    if not _TOKEN.fullmatch(name):
        return "is not the name of a header, such as X-Session-ID"
    if _RESERVED.fullmatch(name):
        return "has a meaning of its own; name another header, such as X-Session-ID"
    return None


def affinity_key(secret: bytes, conversation: ConversationKey) -> str:
    """Return the affinity key of a conversation: 32 hex digits."""
    name = b"start" + conversation.prefix_digest if conversation.replayed else b"chain" + conversation.chain.encode()
    tenant = conversation.tenant.encode("utf-8", "surrogatepass")
    return hmac.new(secret, b"affinity\0" + tenant + b"\0" + name, hashlib.sha256).hexdigest()[:_DIGITS]
