"""The beginning of the keys of a tenant in Redis. Pure. Not here: what is under the keys."""

from __future__ import annotations

import hashlib


def tenant_tag(prefix: str, tenant: str) -> str:
    """Return the beginning of all keys of a tenant: one hash tag, so that a script finds them in one slot.

    Tenants are named by a digest: a name may hold any character.
    """
    return f"{prefix}:{{{hashlib.sha256(tenant.encode()).hexdigest()[:24]}}}"
