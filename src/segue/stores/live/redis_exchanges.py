"""Which node has forwarded an exchange of a sidecar, so that no other one does. Not here: the tunnel."""

from __future__ import annotations

from typing import Final

from segue.stores.live.interface import Nodes
from segue.stores.live.redis_link import RedisLink, load_script
from segue.stores.live.tenant_keys import tenant_tag

#: For how long an exchange stays claimed: no sidecar comes back for one that is older.
_KEPT_MS: Final = 24 * 3600 * 1000


class RedisExchanges:
    """The exchanges of all nodes. A session of a sidecar uses a number once, at whatever nodes it is."""

    def __init__(self, link: RedisLink, nodes: Nodes) -> None:
        self._link = link
        self._nodes = nodes
        self._claim = load_script("claim_exchange")

    async def claim(self, tenant: str, session: str, number: int) -> bool:
        """Claim an exchange; False if another node has it. Raises `LiveUnavailable`."""
        key = f"{tenant_tag(self._link.prefix, tenant)}:exchange:{session}:{number}"
        owner: bytes = await self._link.run(self._claim, [key], self._nodes.id, _KEPT_MS)
        return owner.decode() == self._nodes.id
