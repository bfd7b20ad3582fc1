"""The reading half of a link at the sidecar: it hands packets over in the call in which they come.

A task waits beside for whatever else may happen to the link. Not here: what a packet holds, and writing
(`segue.packet_writer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from segue.sidecar.connector import TunnelSocket


class PacketIntake:
    """Reads one socket. `take` gets each packet, and returns what is wrong with the link if something is."""

    def __init__(self, socket: TunnelSocket, take: Callable[[bytes], str | None]) -> None:
        self._socket = socket
        self._take = take
        self._reason: str | None = None
        self._fault: Exception | None = None
        self._closing: asyncio.Task[bool] | None = None

    async def run(self) -> str | None:
        """Read until the link is over; return what is wrong with it, if that is known."""
        try:
            while self._reason is None and self._fault is None:
                self._socket.hand_over(self._take_now)
                packet = await self._socket.receive()
                if packet is None:
                    break
                self._take_now(packet)
        finally:
            self._socket.hand_over(None)
            if self._closing is not None:
                await self._closing
        if self._fault is not None:
            raise self._fault
        return self._reason

    def _take_now(self, packet: bytes) -> None:
        if self._reason is not None or self._fault is not None:
            return
        try:
            self._reason = self._take(packet)
        except Exception as fault:  # noqa: BLE001 - the task raises it: whoever waits for that gets it
            self._fault = fault
            self._socket.abort()
        if self._reason is not None:
            self._closing = asyncio.get_running_loop().create_task(self._socket.close(self._reason))
