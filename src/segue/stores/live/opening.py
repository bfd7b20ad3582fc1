"""Opening what several gateways share, by its URL. Only this imports the Redis client, and only when it is needed.

Not here: one gateway that shares nothing (`memory`).
"""

from __future__ import annotations

import os

from segue.extras import how_to_add
from segue.stores.live.interface import Live, LiveUnavailable
from segue.stores.live.live_url import is_shared, parse_live_url

#: Length of the id of a node. No two runs draw the same.
NODE_BYTES = 8


def open_live(url: str, *, address: str, started_at: float) -> Live | None:
    """Return what is shared at a URL; None if nothing is. Nothing is asked of it before its nodes are started.

    Raises `ValueError` if nothing has such a URL, and `LiveUnavailable` if there is no client for it here.
    """
    if not is_shared(url):
        return None
    where = parse_live_url(url)
    try:
        from segue.stores.live.redis_live import RedisLive  # noqa: PLC0415 - an extra, and slow to import
    except ModuleNotFoundError as error:
        message = f"live needs the package {error.name}, which is not installed: {how_to_add('cluster')}"
        raise LiveUnavailable(message) from error
    return RedisLive(where, node=os.urandom(NODE_BYTES).hex(), address=address, started_at=started_at)
