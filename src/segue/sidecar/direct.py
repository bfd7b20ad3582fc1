"""Requests that go straight to the provider, by the built-in mounts, without a gateway.

Not here: when a request goes this way (`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import TypeVar

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.reply import StreamedReply
from segue.egress.websocket import OutboundWebSocket
from segue.http.routes import Resolved, RouteRefusal, RouteTable, route_table
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone

T = TypeVar("T")


class DirectForwarder:
    """Forwards requests to providers and their replies to agents."""

    def __init__(self, egress: Egress, routes: RouteTable | None = None) -> None:
        self._egress = egress
        self._routes = route_table(()) if routes is None else routes

    async def answer(self, request: AgentRequest) -> int | None:
        """Answer a request, and return the provider's status; None if there was no answer from a provider."""
        resolved = self._routes.resolve(request.head.target)
        if isinstance(resolved, RouteRefusal):
            await request.fail(resolved.code, resolved.message)
            return None
        try:
            if request.kind == "websocket":
                return await self._connect(request, resolved)
            return await _while_there(request, self._forward(request, resolved))
        except EgressError as error:
            await request.fail(error.code, str(error), repeatable=not error.sent)
            return None

    async def aclose(self) -> None:
        """Close the connections to providers."""
        await self._egress.aclose()

    async def _forward(self, request: AgentRequest, resolved: Resolved) -> int:
        async with aclosing(await self._egress.open(resolved, request.head, request.body)) as reply:
            await _pass_on(request, reply)
            return reply.head.status

    async def _connect(self, request: AgentRequest, resolved: Resolved) -> int:
        opened = await _while_there(request, self._egress.connect(resolved, request.head))
        if isinstance(opened, StreamedReply):
            async with aclosing(opened):
                await _pass_on(request, opened)
            return opened.head.status
        try:
            await request.accept(opened.head)
            await _relay(request, opened)
        finally:
            await opened.abort()
        return opened.head.status


async def _while_there(request: AgentRequest, work: Coroutine[object, object, T]) -> T:
    """Return the result of some work; the work is cancelled when the agent hangs up."""
    loop = asyncio.get_running_loop()
    task, watch = loop.create_task(work), loop.create_task(request.gone.wait())
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise AgentGone
        return task.result()
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _pass_on(request: AgentRequest, reply: StreamedReply) -> None:
    await request.start(reply.head)
    async for chunk in reply.chunks():
        await request.send(chunk)
    await request.end()


async def _relay(request: AgentRequest, socket: OutboundWebSocket) -> None:
    upward = asyncio.get_running_loop().create_task(_upward(request, socket))
    try:
        await _downward(request, socket)
    finally:
        upward.cancel()
        await asyncio.wait((upward,))
    if not upward.cancelled():
        upward.result()


async def _upward(request: AgentRequest, socket: OutboundWebSocket) -> None:
    """Relay the agent's messages until it closes; cut the provider's socket if one cannot be sent."""
    try:
        while True:
            message = await request.receive()
            if isinstance(message, WebSocketClose):
                await socket.close(message.code, message.reason)
                return
            await socket.send(message)
    except (AgentGone, EgressError):
        await socket.abort()
    except Exception:  # a bug of ours: nobody waits for what the provider will never be asked
        await socket.abort()
        raise


async def _downward(request: AgentRequest, socket: OutboundWebSocket) -> None:
    while True:
        message = await socket.receive()
        if isinstance(message, WebSocketClose):
            if message.code == ABNORMAL_CLOSURE:
                request.abort()
            else:
                await request.close(message.code, message.reason)
            return
        await request.send(message)
