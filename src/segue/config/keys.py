"""`[[key]]`: the gateway's own API keys, and keys that are read from files. Not here: how a key is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from segue.config.errors import ConfigError
from segue.config.limits import LimitsConfig
from segue.config.units import AllowedModels, AllowedRoutes, IsOperator, Moment, everything

_MAX_KEY_BYTES = 4096


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[key]]`: one of the gateway's own API keys. Only its SHA-256 is kept."""

    name: Annotated[str, Meta(min_length=1, description="Whose key it is; no other key has this name.")]
    tenant: Annotated[str, Meta(min_length=1, description="The tenant whose responses it may see.")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="Hex digest of the key.")]
    expires_at: Annotated[
        Moment | None, Meta(description="When it stops working, with a time zone: 2030-01-31T00:00:00Z.")
    ] = None
    models: AllowedModels = msgspec.field(default_factory=everything)
    routes: AllowedRoutes = msgspec.field(default_factory=everything)
    operator: IsOperator = False
    limits: Annotated[LimitsConfig, Meta(description="What it may use; see [limits].")] = LimitsConfig()


def key_of_file(file: str) -> str:
    """Return the key that a file holds.

    Raises:
        ConfigError: it cannot be read, or what it holds cannot be a key. The message does not quote it.
    """
    try:
        with Path(file).expanduser().open("rb") as opened:
            text = opened.read(_MAX_KEY_BYTES + 1)
        found = text.decode()
    except OSError as error:
        raise ConfigError(f"cannot read the key file {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the key file {file} holds no text") from None
    if len(text) > _MAX_KEY_BYTES:
        raise ConfigError(f"the key file {file} holds more than a key: it is longer than {_MAX_KEY_BYTES} bytes")
    key = sendable_key(found, f"what the key file {file} holds")
    if key is None:
        raise ConfigError(f"the key file {file} is empty")
    return key


def sendable_key(key: str, source: str) -> str | None:
    """Return a key without the blanks and line ends around it, which a file or a shell adds; None if nothing is left.

    Raises:
        ConfigError: a header line cannot hold it. The message names its source, and not the key.
    """
    stripped = key.strip()
    if not stripped.isprintable():
        raise ConfigError(f"{source} cannot be sent as a key: it holds a line break or another control character")
    return stripped or None
