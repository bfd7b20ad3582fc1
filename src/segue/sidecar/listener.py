"""The sidecar's local HTTP/1.1 server: it behaves like the provider, and hands every request to one handler.

It knows connections: how many there may be, how long they may take, how much may be in memory, what follows what.
Requests of one connection are answered in order. Not here: reading bytes (`segue.sidecar.request_reader`), answering
(`segue.sidecar.request`), and where the answer comes from, which is the handler's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import h11

from segue.http.error_replies import failure_reply
from segue.http.origins import OriginPolicy
from segue.http.request_rules import RequestRefusal
from segue.sidecar.agent_transport import AgentGone, Wire
from segue.sidecar.request import Request
from segue.sidecar.request_reader import ContinueAwaited, Received, RequestReader

_log = logging.getLogger("segue.sidecar")

_MIB = 1024 * 1024
_BACKLOG = 512


class Limits(NamedTuple):
    """What one listener puts up with. Times run from the first byte of a head, or between two pieces of a body."""

    max_body_bytes: int = 64 * _MIB
    max_head_bytes: int = 64 * 1024
    max_message_bytes: int = 64 * _MIB
    max_held_bytes: int = 512 * _MIB  # bodies of all requests at once
    max_connections: int = 512
    head_s: float = 30.0
    body_s: float = 60.0
    idle_s: float = 900.0
    linger_s: float = 2.0


class Budget:
    """Bytes that may be held at once, by all requests together."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Open a share for as long as one request is in memory."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)


class Share:
    """What one request holds of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> bool:
        """Hold this many bytes from now on; False, and no change, if the budget does not have them."""
        more = count - self._held
        if more > max(0, self._budget.left):
            return False
        self._budget.left -= more
        self._held = count
        return True


class Listener:
    """A server from `start` to `close`. The handler answers each request, and has ended or aborted it on return."""

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[None]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._admission = OriginPolicy((host, *hosts), origins)
        self._limits = Limits() if limits is None else limits
        self._server: asyncio.Server | None = None
        self._is_closing = False
        self._serving: dict[Wire, asyncio.Task[None]] = {}
        self._idle: dict[Wire, None] = {}  # in the order in which they became so
        self._budget = Budget(self._limits.max_held_bytes)

    async def start(self) -> str:
        """Listen; return the URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Wire(self._opened, self._closed), self._host, self._port, backlog=_BACKLOG
        )
        port: int = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening, cancel what is being answered, and cut all connections."""
        if self._server is None:
            return
        self._is_closing = True
        self._server.close()
        tasks = list(self._serving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    # ---------------------------------------------------------------------------------------------------- connections

    def _opened(self, wire: Wire) -> None:
        limit = self._limits.max_connections
        idle = next(iter(self._idle), None)
        if self._is_closing:  # accepted before, connected after
            wire.abort()
            return
        if len(self._serving) < limit:
            work = self._serve(wire)
        elif idle is not None:  # its agent wants nothing now, and will connect again
            del self._idle[idle]
            idle.cut()
            work = self._serve(wire)
        elif len(self._serving) < 2 * limit:
            work = self._turn_away(wire)
        else:
            wire.abort()
            return
        self._serving[wire] = asyncio.get_running_loop().create_task(work)

    def _closed(self, wire: Wire) -> None:
        self._idle.pop(wire, None)

    async def _serve(self, wire: Wire) -> None:
        reader = RequestReader(
            self._admission, max_head=self._limits.max_head_bytes, max_body=self._limits.max_body_bytes
        )
        try:
            while await self._exchange(wire, reader):
                reader.next_cycle()
            await wire.close(self._limits.linger_s)
        except (AgentGone, TimeoutError):
            await wire.close(0)
        finally:
            self._idle.pop(wire, None)
            wire.abort()
            del self._serving[wire]

    async def _turn_away(self, wire: Wire) -> None:
        try:
            await self._refuse(wire, RequestRefusal("segue_overloaded", "There are too many connections."))
            await wire.close(self._limits.linger_s)
        except AgentGone:
            await wire.close(0)
        finally:
            wire.abort()
            del self._serving[wire]

    async def _refuse(self, wire: Wire, refusal: RequestRefusal) -> None:
        head, body = failure_reply(refusal.code, refusal.message)
        lines = [(line.name, line.value) for line in head.lines]
        http = h11.Connection(h11.SERVER)
        events = (
            h11.Response(status_code=head.status, reason=head.reason, headers=[*lines, (b"Connection", b"close")]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        await wire.write(b"".join(http.send(event) or b"" for event in events))

    # ------------------------------------------------------------------------------------------------------- requests

    async def _exchange(self, wire: Wire, reader: RequestReader) -> bool:
        """Read a request and have it answered; return whether another may follow on the connection."""
        with self._budget.share() as share:
            received = await self._read_request(wire, reader, share=share)
            if isinstance(received, RequestRefusal):
                await self._refuse(wire, received)
                return False
            request = Request(received, reader.http, wire, max_message=self._limits.max_message_bytes)
            del received
            await self._answer(request)
        return request.stage == "ended" and (reader.http.our_state, reader.http.their_state) == (h11.DONE, h11.DONE)

    async def _read_request(self, wire: Wire, reader: RequestReader, *, share: Share) -> Received | RequestRefusal:
        loop = asyncio.get_running_loop()
        head_at = loop.time() + self._limits.head_s
        while True:
            event = reader.next_event()
            if not share.hold(reader.held):
                return RequestRefusal("segue_overloaded", "Too many large requests are in memory.")
            match event:
                case Received() | RequestRefusal():
                    return event
                case ContinueAwaited():
                    await wire.write(reader.http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                    continue
                case None:
                    pass
            if reader.phase == "idle":
                await self._wait_idle(wire)
                head_at = loop.time() + self._limits.head_s
            until = head_at if reader.phase in {"idle", "head"} else loop.time() + self._limits.body_s
            try:
                async with asyncio.timeout_at(until):
                    reader.receive(await wire.read())
            except TimeoutError:
                return RequestRefusal("request_timeout", "The request did not arrive in time.")

    async def _wait_idle(self, wire: Wire) -> None:
        self._idle[wire] = None
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await wire.wait_readable()
        finally:
            self._idle.pop(wire, None)

    async def _answer(self, request: Request) -> None:
        try:
            await self._handler(request)
            if request.stage not in {"ended", "cut"}:
                raise RuntimeError(f"the handler left its answer {request.stage}")  # noqa: TRY301 - logged as any other
            await self._settle(request)
        except AgentGone:
            request.abort()
        except asyncio.CancelledError:
            request.abort()
            raise
        except Exception:  # noqa: BLE001 - whatever the handler raises, the agent gets an answer
            _log.exception("action=answer_failed method=%s", request.head.method.decode("latin-1"))
            await request.fail("segue_internal_error", "The sidecar failed. Its log says why.")

    async def _settle(self, request: Request) -> None:
        try:
            async with asyncio.timeout(self._limits.linger_s):
                await request.settle()
        except TimeoutError:
            pass  # it had its time to answer our close frame
