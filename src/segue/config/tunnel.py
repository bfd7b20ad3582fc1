"""`[tunnel]` and `[[route]]`: what the gateway does for sidecars, and where it forwards their requests."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from segue.config.units import MIB, Bytes, Positive


class TunnelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tunnel]`: what the gateway does for sidecars, and its limits."""

    max_body_bytes: Annotated[Bytes, Meta(description="Largest request body of an agent.")] = 64 * MIB
    bases_bytes: Annotated[Bytes, Meta(description="Bodies and replies kept as bases of deltas, for each tenant.")] = (
        128 * MIB
    )
    uploads_bytes: Annotated[
        Bytes, Meta(description="Uploads under way at once, expanded, which tenants share evenly.")
    ] = 256 * MIB
    upload_stall_s: Annotated[
        Positive, Meta(description="How long nothing may come of an upload while its sidecar has a link.")
    ] = 60.0
    away_s: Annotated[Positive, Meta(description="How long exchanges go on while their sidecar is away.")] = 300.0
    max_sessions: Annotated[int, Meta(ge=1, description="Sidecars with a session, for each tenant.")] = 1000
    connect_timeout_s: Annotated[Positive, Meta(description="How long a connection to a provider may take.")] = 15.0
    reply_timeout_s: Annotated[
        Positive, Meta(description="How long a provider may be silent; agents usually give up before.")
    ] = 1800.0
    built_in_routes: Annotated[
        bool, Meta(description="Whether /anthropic, /openai and /gemini lead to these providers without a [[route]].")
    ] = True
    exchange_log: Annotated[
        str | None,
        Meta(
            description="File to which a JSON line is appended for each exchange of a sidecar, or stderr; see Operate."
        ),
    ] = None
    address: Annotated[str, Meta(description="This node's own URL, told to sidecars so that they find it again.")] = ""


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[route]]`: where the tunnel forwards requests; those to the gateway itself are always its own API's."""

    target: Annotated[str, Meta(description="Where the requests go: a URL, or 'self' for the gateway's own API.")]
    mount: Annotated[str | None, Meta(description="Requests below this path; the path is removed.")] = None
    path: Annotated[
        str | None, Meta(description="Requests below this path; the path is kept. Give either this or mount.")
    ] = None
