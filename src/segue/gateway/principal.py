"""The principal of a request: the key that it came with, the tenant of that key, and what the key may be used for.

A principal that a connection keeps is looked up anew for each turn (`Access.renewed`), since its key may have expired
or been revoked meanwhile. Not here: finding the principal of a request (`access`).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

import msgspec

from segue.gateway.client_certificate import ClientCertificate

#: The pattern that every name matches.
ANY: Final = "*"


class Principal(msgspec.Struct, frozen=True):
    """Who sends a request.

    `key` is the name of its API key, or of its client certificate; None if there are neither. `digest` is the SHA-256
    of the key, hex; None if there is none. `models` and `routes` are names or globs: of models, and of the prefixes of
    routes for requests of sidecars. An `operator` may erase what other tenants have.
    """

    tenant: str
    key: str | None = None
    digest: str | None = None
    models: tuple[str, ...] = (ANY,)
    routes: tuple[str, ...] = (ANY,)
    expires_at: float | None = None
    certificate: ClientCertificate | None = None
    operator: bool = False

    def has_expired(self, now: float) -> bool:
        """Say whether its key is no longer valid; `now` in unix seconds."""
        return self.expires_at is not None and now >= self.expires_at

    def may_use(self, model: str) -> bool:
        """Say whether its key may ask for a model."""
        return ANY in self.models or _is_match(model, self.models)

    def may_reach(self, prefix: str) -> bool:
        """Say whether requests of its sidecar may go to the route that begins with `prefix`."""
        return ANY in self.routes or _is_match(prefix, self.routes)


def _is_match(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
