"""`[limits]`, `[[tenant]]` and the limits of a `[[key]]`: what may be used, in a minute, at once, and in the store."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_Count = Annotated[int, Meta(ge=1)]


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant, or one key, may use. What is not set has no limit."""

    requests_per_minute: Annotated[_Count | None, Meta(description="Turns that may begin in a minute.")] = None
    tokens_per_minute: Annotated[
        _Count | None, Meta(description="Tokens of prompts and answers in a minute, as the provider counts them.")
    ] = None
    upload_bytes_per_minute: Annotated[
        _Count | None, Meta(description="Bytes of requests, and of the bodies of sidecars, in a minute.")
    ] = None
    turns: Annotated[_Count | None, Meta(description="Turns under way at once.")] = None
    connections: Annotated[_Count | None, Meta(description="WebSocket connections that are open at once.")] = None
    stored_responses: Annotated[_Count | None, Meta(description="Responses in the store; not for a key.")] = None
    stored_bytes: Annotated[_Count | None, Meta(description="Their bytes in the store; not for a key.")] = None


class TenantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[tenant]]`: the limits of one tenant, in place of those of `[limits]`."""

    name: Annotated[str, Meta(min_length=1, description="The tenant, as in its keys.")]
    limits: Annotated[LimitsConfig, Meta(description="What all its keys together may use; see [limits].")]
