"""`[[key]]`: the gateway's own API keys."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[key]]`: one of the gateway's own API keys. Only its SHA-256 is kept."""

    name: Annotated[str, Meta(min_length=1, description="Whose key it is; no other key has this name.")]
    tenant: Annotated[str, Meta(min_length=1, description="The tenant whose responses it may see.")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="Hex digest of the key.")]
