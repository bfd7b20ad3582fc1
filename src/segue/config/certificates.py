"""`[[certificate]]`: client certificates that stand for a tenant, as the gateway's own API keys do."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from segue.config.limits import LimitsConfig
from segue.config.units import AllowedModels, AllowedRoutes, IsOperator, Moment, everything


class CertificateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[certificate]]`: a client certificate, or all that have a name, and whose they are.

    Exactly one of `sha256`, `subject` and `san` says which certificate is meant.
    """

    name: Annotated[str, Meta(min_length=1, description="Whose it is; no other certificate and no key has this name.")]
    tenant: Annotated[str, Meta(min_length=1, description="The tenant whose responses it may see.")]
    sha256: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None,
        Meta(description="Hex SHA-256 of the certificate (DER): openssl x509 -fingerprint -sha256, without colons."),
    ] = None
    subject: Annotated[
        dict[str, str],
        Meta(description='Attributes that its subject has, such as {commonName = "build", organizationName = "Acme"}.'),
    ] = {}
    san: Annotated[
        Annotated[str, Meta(pattern="^(?:DNS|URI|email|IP Address):.+$")] | None,
        Meta(description="A subject alternative name that it has: DNS:…, URI:…, email:… or IP Address:…"),
    ] = None
    expires_at: Annotated[
        Moment | None, Meta(description="When it is not taken any more, if that is before its own end.")
    ] = None
    models: AllowedModels = msgspec.field(default_factory=everything)
    routes: AllowedRoutes = msgspec.field(default_factory=everything)
    operator: IsOperator = False
    limits: Annotated[LimitsConfig, Meta(description="What it may use; see [limits].")] = LimitsConfig()
