"""`[limits]`, `[[tenant]]` and the limits of a `[[key]]`: what may be used, in a minute, at once, and in the store."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_Count = Annotated[int, Meta(ge=1)]


#: Where message threads are kept: in memory for a while, or in the store like stored responses.
ThreadKeeping = Literal["memory", "durable"]


class LimitsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a tenant, or one key, may use. What is not set has no limit."""

    requests_per_minute: Annotated[
        _Count | None, Meta(description="Turns, and requests that run none, that may begin in a minute.")
    ] = None
    tokens_per_minute: Annotated[
        _Count | None,
        Meta(description="Tokens of prompts and answers in a minute, as the provider counts them, or else estimated."),
    ] = None
    upload_bytes_per_minute: Annotated[
        _Count | None, Meta(description="Bytes of requests, and of the bodies of sidecars, in a minute.")
    ] = None
    turns: Annotated[_Count | None, Meta(description="Turns under way at once.")] = None
    connections: Annotated[_Count | None, Meta(description="WebSocket connections that are open at once.")] = None
    stored_responses: Annotated[_Count | None, Meta(description="Responses in the store; not for a key.")] = None
    stored_bytes: Annotated[_Count | None, Meta(description="Their bytes in the store; not for a key.")] = None


class TenantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[tenant]]`: what holds for one tenant, in place of what holds for all."""

    name: Annotated[str, Meta(min_length=1, description="The tenant, as in its keys.")]
    limits: Annotated[
        LimitsConfig | None, Meta(description="What all its keys together may use, in place of [limits].")
    ] = None
    threads: Annotated[
        ThreadKeeping | None, Meta(description="Where its message threads are kept, in place of server.threads.")
    ] = None
    zero_retention: Annotated[
        bool, Meta(description="Let no provider keep its conversations beyond a connection: no message threads.")
    ] = False
