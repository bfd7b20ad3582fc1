"""Who may talk to the gateway: host names, web origins, API keys, and what only this machine may see.

Hosts and origins follow the same policy as at the sidecar (`segue.http.origins`). Keys are compared in constant time,
as SHA-256 digests; the gateway neither keeps nor logs a key. The decisions are pure functions of headers and addresses.
Not here: which routes ask for what (`api.application`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import assert_never

from segue.config import Config, KeyConfig
from segue.http.origins import OriginPolicy, is_from_this_machine
from segue.protocol.problems import Problem, quoted
from segue.upstreams.interface import Secret

#: The tenant of everybody, when no keys are configured.
LOCAL_TENANT = "local"


class Access:
    """The access rules of one configuration."""

    def __init__(self, config: Config) -> None:
        self._keys: Sequence[KeyConfig] = config.key
        bound = [config.server.host, *(listener.host for listener in config.listener)]
        self._local_only = not config.key and not config.server.hosts
        self._origins = OriginPolicy((*bound, *config.server.hosts), config.server.origins)

    def refuse_origin(self, headers: Mapping[str, str]) -> Problem | None:
        """Check Host, Origin and Sec-Fetch-Site, for every endpoint."""
        host = headers.get("Host", "")
        origin = headers.get("Origin")
        match self._origins.denial(host, origin=origin, fetch_site=headers.get("Sec-Fetch-Site")):
            case None:
                return None
            case "forbidden_host":
                message = (
                    f"The host {quoted(host)} is not served here. Add its name to server.hosts in the configuration."
                )
                return Problem("forbidden_host", message)
            case "forbidden_origin":
                page = "of another site" if origin is None else origin
                message = (
                    f"A web page of the origin {quoted(page)} may not call this gateway. "
                    "Add it to server.origins if it may."
                )
                return Problem("forbidden_origin", message)
            case never:
                assert_never(never)

    def tenant(self, headers: Mapping[str, str]) -> str | Problem:
        """Return the tenant that the request's key belongs to."""
        if not self._keys:
            return LOCAL_TENANT
        scheme, _, secret = headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).hexdigest()
        tenant: str | None = None
        for key in self._keys:  # all of them, even after a match: the time taken must not show which one matched
            if hmac.compare_digest(digest, key.sha256):
                tenant = key.tenant
        if tenant is None or scheme.lower() != "bearer":
            message = "Incorrect API key provided. Send a key of this gateway as 'Authorization: Bearer KEY'."
            return Problem("invalid_api_key", message)
        return tenant

    def credential(self, headers: Mapping[str, str]) -> Secret | None:
        """Return the client's own key for a provider. Only upstreams with `pass_key` get it.

        It is in `X-Upstream-Key`. If the gateway has no keys, the client's API key is one for a provider too, since it
        can mean nothing else. A key of the gateway is never passed on.
        """
        own = headers.get("X-Upstream-Key", "").strip()
        if not own and not self._keys:
            scheme, _, secret = headers.get("Authorization", "").partition(" ")
            own = secret.strip() if scheme.lower() == "bearer" else ""
        return Secret(own) if own and own.isascii() and own.isprintable() else None

    def refuse_private(self, headers: Mapping[str, str], peer: str | None) -> Problem | None:
        """Check a request for an operator's endpoint: it needs a key, or must come from this machine if there is none.

        With keys or `server.hosts`, a proxy on this machine may pass on what others send, and with it whatever they
        have written as Host. So nothing but a key is enough then.
        """
        if self._local_only:
            allowed = is_from_this_machine(peer, headers.get("Host", ""), headers)
        else:
            allowed = bool(self._keys) and not isinstance(self.tenant(headers), Problem)
        if allowed:
            return None
        message = (
            "This endpoint is for a request with an API key. "
            "It is open to this machine only if there are no keys, no server.hosts and no proxy."
        )
        return Problem("forbidden_peer", message)
