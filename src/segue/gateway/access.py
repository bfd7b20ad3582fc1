"""Who may talk to the gateway: host names, web origins, keys, client certificates, and what only this machine may see.

Hosts and origins follow the same policy as at the sidecar (`segue.http.origins`). Keys are compared in constant time,
as SHA-256 digests, and always with all of them: the time taken must not show which one matched. The gateway neither
keeps nor logs a key. Keys can be replaced while the gateway runs: a connection keeps a `Principal`, and renews it for
each turn. The decisions are pure functions of headers, addresses and the time. Not here: which routes ask for what
(`api.application`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Protocol, assert_never

from segue.config import CertificateConfig, Config, KeyConfig
from segue.gateway.client_certificate import ClientCertificate
from segue.gateway.principal import Principal
from segue.http.origins import OriginPolicy, is_from_this_machine
from segue.protocol.problems import Problem, quoted
from segue.upstreams.interface import Secret

#: The tenant of everybody, when no keys are configured.
LOCAL_TENANT = "local"
_LOCAL = Principal(LOCAL_TENANT, operator=True)


class PeerCheck(Protocol):
    """A check of who asks: it returns why a request is refused, or None."""

    def __call__(
        self, headers: Mapping[str, str], peer: str | None, now: float, *, certificate: ClientCertificate | None = None
    ) -> Problem | None:
        """Check a request: its headers, where it comes from, the time, and the certificate that its client showed."""


class Access:
    """The access rules of one configuration."""

    def __init__(self, config: Config) -> None:
        self._principals: Mapping[str, Principal] = {}
        self._certificates: Sequence[CertificateConfig] = ()
        self._mode = config.server.access
        self.open = True
        """Nobody needs to say who they are."""
        self.for_own_user = True
        """Only programs of the gateway's own user may use it: nothing else tells who somebody is."""
        self.replace_keys(config.key, config.certificate)
        bound = [config.server.host, *(listener.host for listener in config.listener)]
        self._has_hosts = bool(config.server.hosts)
        self._origins = OriginPolicy((*bound, *config.server.hosts), config.server.origins)

    def replace_keys(self, keys: Sequence[KeyConfig], certificates: Sequence[CertificateConfig] = ()) -> None:
        """Take other keys and certificates. A principal whose key is not among them is refused from now on."""
        self._principals = {key.sha256: _principal_of(key) for key in keys}
        self._certificates = tuple(certificates)
        self.open = not (keys or certificates)
        self.for_own_user = self.open and self._mode == "user"

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

    def principal(
        self, headers: Mapping[str, str], now: float, certificate: ClientCertificate | None = None
    ) -> Principal | Problem:
        """Return who sends a request, by the key in its headers, else by the certificate; `now` in unix seconds.

        An SDK sends a key in any case. So one that is not ours does no harm to a certificate that is.
        """
        if self.open:
            return _LOCAL
        scheme, secret = _presented(headers)
        digest = hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found: Principal | None = None
        for known, principal in self._principals.items():  # all of them, even after a match: see the module
            if hmac.compare_digest(digest, known):
                found = principal
        if found is None or scheme != "bearer":
            if certificate is not None:
                return self._of_certificate(certificate, now)
            message = (
                "Incorrect API key provided. "
                "Send a key of this gateway as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
            )
            return Problem("invalid_api_key", message)
        return _unless_expired(found, now)

    def renewed(self, principal: Principal, now: float) -> Principal | Problem:
        """Return what is true of a principal by now: its key may have expired, or been changed or revoked."""
        if principal.certificate is not None:
            return self._of_certificate(principal.certificate, now)
        if principal.digest is None:
            return _LOCAL if self.open else _revoked()
        found = self._principals.get(principal.digest)
        return _revoked() if found is None else _unless_expired(found, now)

    def credential(self, headers: Mapping[str, str]) -> Secret | None:
        """Return the client's own key for a provider. Only upstreams with `pass_key` get it.

        It is in `X-Upstream-Key`. If the gateway has no keys, the client's API key is one for a provider too, since it
        can mean nothing else. A key of the gateway is never passed on.
        """
        own = headers.get("X-Upstream-Key", "").strip()
        if not own and self.open:
            scheme, secret = _presented(headers)
            own = secret if scheme == "bearer" else ""
        return Secret(own) if own and own.isascii() and own.isprintable() else None

    def _of_certificate(self, certificate: ClientCertificate, now: float) -> Principal | Problem:
        """Return whose a certificate is: the first row of the configuration that means it says so."""
        row = next((row for row in self._certificates if certificate.is_meant_by(row)), None)
        if row is None:
            message = (
                f"The client certificate (SHA-256 {certificate.sha256}) is in no [[certificate]] table of this "
                "gateway, and the request has no API key of it."
            )
            return Problem("invalid_api_key", message)
        ends = (
            certificate.expires_at
            if row.expires_at is None
            else min(certificate.expires_at, row.expires_at.timestamp())
        )
        principal = Principal(
            tenant=row.tenant,
            key=row.name,
            models=tuple(row.models),
            routes=tuple(row.routes),
            expires_at=ends,
            certificate=certificate,
            operator=row.operator,
        )
        return _unless_expired(principal, now)

    def refuse_private(
        self,
        headers: Mapping[str, str],
        peer: str | None,
        now: float,
        *,
        certificate: ClientCertificate | None = None,
    ) -> Problem | None:
        """Check a request for an operator's endpoint: it needs a key, or must come from this machine if there is none.

        With keys or `server.hosts`, a proxy on this machine may pass on what others send, and with it whatever they
        have written as Host. So nothing but a key is enough then.
        """
        if not self.open:
            allowed = not isinstance(self.principal(headers, now, certificate), Problem)
        else:
            allowed = not self._has_hosts and is_from_this_machine(peer, headers.get("Host", ""), headers)
        if allowed:
            return None
        message = (
            "This endpoint is for a request with an API key. "
            "It is open to this machine only if there are no keys, no server.hosts and no proxy."
        )
        return Problem("forbidden_peer", message)

    def refuse_others(
        self,
        headers: Mapping[str, str],
        peer: str | None,
        now: float,
        *,
        certificate: ClientCertificate | None = None,
    ) -> Problem | None:
        """Refuse who is no operator: as `refuse_private`, and a key must be an operator's."""
        problem = self.refuse_private(headers, peer, now, certificate=certificate)
        if problem is not None or self.open:
            return problem
        found = self.principal(headers, now, certificate)
        if isinstance(found, Principal) and found.operator:
            return None
        return Problem("forbidden_peer", "This endpoint is for a key whose table says operator = true.")


def not_own_user() -> Problem:
    """Return why a request of another user of this machine is refused."""
    message = (
        "This gateway has no keys, and so it serves only the programs of the user who runs it. This connection is "
        "another user's, or comes from a container. Add a [[key]] to the configuration (segue key new), or let "
        'everybody on this machine in: [server] access = "anyone" (SEGUE_SERVER_ACCESS=anyone).'
    )
    return Problem("forbidden_peer", message)


def _presented(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return the scheme and the key of a request. Clients of the Messages API send theirs as `x-api-key`."""
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    if not scheme and "x-api-key" in headers:
        return "bearer", headers["x-api-key"].strip()
    return scheme.lower(), secret.strip()


def _principal_of(key: KeyConfig) -> Principal:
    return Principal(
        tenant=key.tenant,
        key=key.name,
        digest=key.sha256,
        models=tuple(key.models),
        routes=tuple(key.routes),
        expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        operator=key.operator,
    )


def _unless_expired(principal: Principal, now: float) -> Principal | Problem:
    if principal.has_expired(now):
        what = "API key" if principal.certificate is None else "client certificate"
        return Problem("invalid_api_key", f"This {what} has expired. Ask for a new one.")
    return principal


def _revoked() -> Problem:
    return Problem("invalid_api_key", "This API key is not valid any more. Ask for a new one.")
