"""Watches that the server at the other end of a WebSocket lives: pings it while it is silent, and breaks a dead one.

Not here: when to ping and when to give up (`heartbeat`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from segue.http_client.heartbeat import Heartbeat
from segue.http_client.websocket_opening import OpenedWebSocket


async def watch_liveness(
    opened: OpenedWebSocket, heartbeat_s: float, *, is_over: Callable[[], bool], is_reading: Callable[[], bool]
) -> None:
    """Ping a silent server every `heartbeat_s`, until the connection `is_over`; break it if nothing comes back.

    While nothing `is_reading`, silence says nothing. Something must receive messages, or pongs are not seen.
    """
    clock, meter = asyncio.get_running_loop().time, opened.meter
    heartbeat = Heartbeat(heartbeat_s, clock())
    while not is_over():
        beat = heartbeat.look(clock(), received_at=meter.received_at, sent_bytes=meter.sent_bytes, reading=is_reading())
        if beat.action == "dead":
            opened.abort()
            return
        if beat.action == "ping":
            try:
                async with asyncio.timeout(beat.again_s):
                    await opened.socket.ping()
            except (OSError, aiohttp.ClientError):
                continue  # what is written before it has not left yet, or the connection is over
        else:
            await asyncio.sleep(beat.again_s)
