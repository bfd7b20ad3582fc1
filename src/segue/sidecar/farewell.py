"""How a session ends: what it says to its gateway at last, and whether that was heard.

A gateway that was not told goes on with what nobody wants any more, and waits for the sidecar when it drains. Not here:
when a session ends (`segue.sidecar.session`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from segue.sidecar.connector import TunnelSocket, frame_bytes
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelClient

#: The last packets may wait for a full socket for so long, and for the gateway's close for so many round trips more.
GOODBYE_S = 1.0
GOODBYE_RTTS = 3.0
#: If a link breaks before the goodbye was heard, it is said on another one; so often at most.
FAREWELLS = 5


class Farewell:
    """The goodbye of one session, over as many links as it takes."""

    def __init__(self, tunnel: TunnelClient, stats: Stats) -> None:
        self.under_way = False
        """It is being said: whoever cuts the link now may cut it off."""
        self._tunnel = tunnel
        self._stats = stats
        self._heard = False
        self._left = FAREWELLS

    @property
    def over(self) -> bool:
        """It was heard, or need not be said, or was tried often enough."""
        return self._heard or not self._tunnel.epoch or self._left <= 0

    def note_attempt(self) -> None:
        """Count an attempt to say it."""
        self._left -= 1

    async def say(self, socket: TunnelSocket) -> None:
        """Give up what is under way, acknowledge what has come, and close: then the gateway keeps nothing for us."""
        loop = asyncio.get_running_loop()
        self._tunnel.leave()
        self.under_way = True
        try:
            while (packet := self._tunnel.next_packet(loop.time())) is not None:
                self._stats.tunnel_bytes_up += frame_bytes(len(packet), masked=True)
                with suppress(TimeoutError):
                    async with asyncio.timeout(GOODBYE_S):
                        await socket.send(packet)
            self._heard = await socket.close(within_s=GOODBYE_S + GOODBYE_RTTS * (self._tunnel.rtt_s or 0.0))
        except ConnectionError:
            pass  # the next link says it, or nobody
        finally:
            self.under_way = False
