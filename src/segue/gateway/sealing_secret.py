"""The secret that seals summaries where the configuration names none: a file beside that of the store.

It lives as long as the conversations in the store, and is read by whoever may read those; so a gateway that is started
again reads what it had sealed. Not here: secrets of the configuration, which several gateways can share
(`segue.config.environment`).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from segue.config import ConfigError

_PRIVATE = 0o600
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
#: In hexadecimal digits: a file that is shorter was cut when it was written.
_LENGTH = 64


def stored_secret(store: Path, *, make: bool) -> bytes | None:
    """Return the secret beside the file of a store; None if there is none, and none is to be made.

    Raises:
        ConfigError: the file cannot be read or made.
    """
    file = store.with_name(f"{store.name}.secret")
    if not make and not file.exists():
        return None
    try:
        with os.fdopen(os.open(file, _FLAGS | os.O_CREAT, _PRIVATE), "r+b") as opened:
            os.fchmod(opened.fileno(), _PRIVATE)
            secret = opened.read(_LENGTH)
            if len(secret) == _LENGTH:
                return secret
            secret = secrets.token_hex(_LENGTH // 2).encode()
            opened.seek(0)
            opened.write(secret)
            opened.flush()
            os.fsync(opened.fileno())
            return secret
    except OSError as error:
        raise ConfigError(f"the secret for compactions in {file} cannot be used: {error.strerror}") from None
