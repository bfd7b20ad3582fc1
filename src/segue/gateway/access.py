"""Who may talk to the gateway: host names, web origins, API keys, and what only this machine may see.

Loopback is no authentication: any web page can make a browser connect to 127.0.0.1. So a request must name a host that
is ours (DNS rebinding), and must not come from somebody else's page (Origin, Sec-Fetch-Site). Keys are compared in
constant time, as SHA-256 digests; the key itself is nowhere kept or logged. The decisions are pure functions of
headers and addresses.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from segue.config import Config, Key, is_loopback
from segue.protocol.problems import Problem, quoted
from segue.upstreams.interface import Secret

#: The tenant of everybody, when no keys are configured.
LOCAL_TENANT = "local"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]+)(?::[0-9]*)?")  # RFC 9110, 7.2; no more hides in it


class Access:
    """The access rules of one configuration."""

    def __init__(self, config: Config) -> None:
        self._keys: Sequence[Key] = config.key
        bound = config.server.host
        self._hosts = frozenset(_plain(name) for name in (bound, *config.server.hosts) if name)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in config.server.origins)

    def refuse_origin(self, headers: Mapping[str, str]) -> Problem | None:
        """Check Host, Origin and Sec-Fetch-Site; every endpoint does."""
        host = headers.get("Host", "")
        name = _host_name(host)
        if not (is_loopback(name) or name in self._hosts or "*" in self._hosts):
            message = f"The host {quoted(host)} is not served here. Add its name to server.hosts in the configuration."
            return Problem("forbidden_host", message)
        origin = headers.get("Origin")
        if origin is not None:
            return None if self._is_ours(origin, host) else _foreign(origin)
        if headers.get("Sec-Fetch-Site", "none") in {"cross-site", "same-site"}:
            return _foreign("of another site")
        return None

    def tenant(self, headers: Mapping[str, str]) -> str | Problem:
        """Return the tenant that the request's key belongs to."""
        if not self._keys:
            return LOCAL_TENANT
        scheme, _, secret = headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).hexdigest()
        tenant: str | None = None
        for key in self._keys:  # all of them, whatever matched: time must not tell which
            if hmac.compare_digest(digest, key.sha256):
                tenant = key.tenant
        if tenant is None or scheme.lower() != "bearer":
            message = "Incorrect API key provided. Send a key of this gateway as 'Authorization: Bearer KEY'."
            return Problem("invalid_api_key", message)
        return tenant

    def credential(self, headers: Mapping[str, str]) -> Secret | None:
        """Return the client's own key for a provider, which is passed on only to upstreams configured for that.

        It is in `X-Upstream-Key`; where the gateway has no keys, also what a client sends as its API key, since it can
        mean nothing else. A key of the gateway is never passed on.
        """
        own = headers.get("X-Upstream-Key", "").strip()
        if not own and not self._keys:
            scheme, _, secret = headers.get("Authorization", "").partition(" ")
            own = secret.strip() if scheme.lower() == "bearer" else ""
        return Secret(own) if own and own.isascii() and own.isprintable() else None

    def refuse_private(self, headers: Mapping[str, str], peer: str | None) -> Problem | None:
        """Check that an operator's endpoint is asked for from this machine, or with a key."""
        if peer is not None and is_loopback(peer) and is_loopback(_host_name(headers.get("Host", ""))):
            return None
        if self._keys and not isinstance(self.tenant(headers), Problem):
            return None
        return Problem("forbidden_peer", "This endpoint is for this machine only, or for a request with an API key.")

    def _is_ours(self, origin: str, host: str) -> bool:
        """A page of our own (same host and port), or one that the configuration names."""
        if origin.lower().rstrip("/") in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
            ours = urlsplit(f"{parts.scheme}://{host}")
            our_port = ours.port or _DEFAULT_PORTS.get(parts.scheme)
        except ValueError:
            return False
        return parts.scheme in _DEFAULT_PORTS and (parts.hostname, port) == (ours.hostname, our_port)


def _host_name(host: str) -> str:
    """Return the name of a Host field without its port; what is more than that names nobody."""
    found = _HOST.fullmatch(host)
    return "" if found is None else _plain(found["name"])


def _plain(name: str) -> str:
    return name.strip("[]").lower().rstrip(".")


def _foreign(origin: str) -> Problem:
    message = (
        f"A web page of the origin {quoted(origin)} may not call this gateway. Add it to server.origins if it may."
    )
    return Problem("forbidden_origin", message)
