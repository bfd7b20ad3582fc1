"""`[[key]]`: the gateway's own API keys."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from segue.config.errors import ConfigError


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[key]]`: one of the gateway's own API keys. Only its SHA-256 is kept."""

    name: Annotated[str, Meta(min_length=1, description="Whose key it is; no other key has this name.")]
    tenant: Annotated[str, Meta(min_length=1, description="The tenant whose responses it may see.")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="Hex digest of the key.")]


def sendable_key(key: str, source: str) -> str | None:
    """Return a key without the blanks and line ends around it, which a file or a shell adds; None if nothing is left.

    Raises:
        ConfigError: a header line cannot hold it. The message names its source, and not the key.
    """
    stripped = key.strip()
    if not stripped.isprintable():
        raise ConfigError(f"{source} cannot be sent as a key: it holds a line break or another control character")
    return stripped or None
