"""The addresses at which a session looks for its gateway, and in which order.

A node says in its WELCOME at which address it can be reached itself: behind a balancer, only that address leads back to
the node that has the session's exchanges. Pure. Not here: connecting (`segue.sidecar.connector`), and when
(`segue.sidecar.session`).
"""

from __future__ import annotations

from collections.abc import Sequence

from segue.sidecar.connector import tunnel_url
from segue.sidecar.ssh_address import is_ssh


class GatewayAddresses:
    """The addresses of one session, from its configured gateways and from what nodes say."""

    def __init__(self, gateways: Sequence[str]) -> None:
        self.current = gateways[0]
        """Where the present or last link leads to, as it was given."""
        self._gateways = tuple(gateways)
        self._owner: str | None = None  # the address of the node that has our exchanges
        self._unusable: set[str] = set()  # addresses of nodes that only others can reach
        self._failed: set[str] = set()  # in this round

    def begin_round(self, *, owner_only: bool) -> list[str]:
        """Return the addresses to try in turn: the node that has our exchanges, the last gateway, and all others.

        `owner_only`: without the others, where the outcome of our exchanges would be unknown.
        """
        self._failed = set()
        first = [self.current] if self._owner is None else [self._owner, self.current]
        return list(dict.fromkeys(first if owner_only else (*first, *self._gateways)))

    def note_failed(self, gateway: str) -> None:
        """Record that there is no link at an address."""
        self._failed.add(gateway)

    def note_welcome(self, gateway: str, address: bytes, *, new_epoch: bool) -> None:
        """Record that a link leads to `gateway`, whose node gave this address of itself."""
        self.current = gateway
        owner = _usable(address, gateway)
        if owner is not None and owner in self._failed and not new_epoch:
            self._unusable.add(owner)  # this very node was not found there
        self._owner = None if owner in self._unusable else owner


def _usable(address: bytes, gateway: str) -> str | None:
    """Return the address that a node gave of itself, if it is valid and as safe for our key as the gateway's.

    By ssh there is one node and one way to it. No node can make us run ssh: `tunnel_url` knows no such address.
    """
    if is_ssh(gateway):
        return None
    try:
        text = address.decode("ascii")
        url = tunnel_url(text)
    except (UnicodeDecodeError, ValueError):
        return None
    safe = url.startswith("wss:") or not tunnel_url(gateway).startswith("wss:")
    return text if safe else None
