"""How many files and sockets this process may have open. Not here: what they are shared out to (`app`)."""

from __future__ import annotations

import resource


def descriptor_limit() -> int | None:
    """Return how many descriptors this process may have; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> tuple[int, int]:
    """Let this process have as many descriptors as it may, and return how many that were and are.

    The usual limit is meant for programs that use `select`; whoever needs more is to ask for it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS has a hard limit that it does not allow
        return soft, soft
    return soft, hard
