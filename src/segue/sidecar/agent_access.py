"""Who may use a sidecar: programs of its own user, and whoever has its token in the address.

A sidecar acts for its user: with its key for the gateway, and with what it remembers of earlier requests. Loopback is
open to every user of the machine, so by default a connection has to come from the sidecar's own user. Where that cannot
be known, as from a container, or where the user wants more, agents prove it by a token that their base URL begins with:
`http://127.0.0.1:4748/TOKEN/anthropic`. It is taken off before anything else sees the target. Not here: Host and Origin
(`segue.http.origins`), and asking the platform (`segue.peer_credentials`).
"""

from __future__ import annotations

import hmac
import secrets
import socket
from typing import Final, Literal, TypeAlias

from segue.http.request_rules import RequestRefusal
from segue.peer_credentials.lookup import PeerUsers

#: `user`: programs of the own user, and whoever has the token; `token`: who has it; `anyone`: all who reach the port.
AccessMode: TypeAlias = Literal["user", "token", "anyone"]

_TOKEN_BYTES = 24

_NOT_OWN: Final = (
    "This sidecar serves only the programs of the user who runs it. This connection is another user's, or comes from a "
    "container or another machine, where the user is not known. "
)
_NO_TOKEN: Final = "This sidecar wants its token in the address, and this one has none or another one. "  # noqa: S105 - words, not a password
_CURE: Final = (
    "Give the agent a base URL that begins with http://HOST:PORT/TOKEN/, with the token in [sidecar] token "
    '(SEGUE_SIDECAR_TOKEN), or let everybody in: [sidecar] access = "anyone" (SEGUE_SIDECAR_ACCESS=anyone).'
)


class AgentAccess:
    """The rule of one sidecar. If all agents need a token and none is given, one is drawn."""

    def __init__(self, mode: AccessMode, token: str | None, users: PeerUsers) -> None:
        self._mode = mode
        self._users = users
        self.needs_token: Final = mode == "token" or (mode == "user" and not users.known)
        """Whether every agent needs the token: nothing else tells who it is."""
        self.has_drawn: Final = self.needs_token and token is None
        """Whether nobody knows the token yet."""
        self.token: Final = secrets.token_urlsafe(_TOKEN_BYTES) if self.has_drawn else token

    def trusts(self, connection: socket.socket | None) -> bool:
        """Tell whether a connection may be used without a token. It costs a question to the kernel: ask once."""
        return self._mode == "anyone" or (not self.needs_token and self._users.is_own(connection))

    def admit(self, target: bytes, *, trusted: bool) -> bytes | RequestRefusal:
        """Return the target of a request without the token, or why the request is refused."""
        bare = None if self.token is None else _without(self.token.encode(), target)
        if bare is not None:
            return bare
        return target if trusted else self.refusal()

    def refusal(self) -> RequestRefusal:
        """Return why a connection that is not trusted is of no use without the token."""
        return RequestRefusal("forbidden_peer", (_NO_TOKEN if self.needs_token else _NOT_OWN) + _CURE)

    def base_url(self, url: str) -> str:
        """Return what the base URLs of agents begin with, if `url` is where the sidecar listens."""
        return f"{url}/{self.token}" if self.needs_token else url


def _without(token: bytes, target: bytes) -> bytes | None:
    """Return a target behind its first segment; None if that is not the token. The time taken does not tell why."""
    segment, _, rest = target.removeprefix(b"/").partition(b"/")
    return b"/" + rest if hmac.compare_digest(segment, token) else None
