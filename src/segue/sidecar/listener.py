"""The sidecar's local HTTP/1.1 server: it behaves like the provider, and passes every request to one handler.

It limits how many connections there are, how long they may take, and how much their requests hold in memory. It answers
the requests of one connection in order. A *stranger* is a connection that has not proved yet that it may use the
sidecar: it takes the place of no other, and gives way to the next stranger. Not here: who may (`agent_access`), parsing
requests (`request_reader`), writing answers (`agent_request`), and what the answer is, which the handler decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from segue.http.error_replies import failure_reply
from segue.http.head_writing import encode_reply_head
from segue.http.heads import Line, ReplyHead
from segue.http.origins import OriginPolicy
from segue.http.request_rules import RequestRefusal
from segue.listening import stop_listening
from segue.sidecar.agent_access import AgentAccess
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone, AgentTransport
from segue.sidecar.request_reader import ContinueAwaited, ParsedRequest, RequestReader

_log = logging.getLogger("segue.sidecar")

_MIB = 1024 * 1024
_BACKLOG = 512
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: Phases in which the head of a request has arrived, and been admitted.
_ADMITTED = frozenset({"body", "answer"})


class ListenerLimits(msgspec.Struct, frozen=True):
    """The limits of one listener. Times run from the first byte of a head, or between two pieces of a body."""

    max_body_bytes: int = 64 * _MIB
    max_head_bytes: int = 64 * 1024
    max_message_bytes: int = 64 * _MIB
    max_held_bytes: int = 512 * _MIB  # bodies of all requests at once
    max_connections: int = 512
    max_strangers: int = 32  # beside them
    head_s: float = 30.0
    body_s: float = 60.0
    idle_s: float = 900.0
    linger_s: float = 2.0


class BodyBudget:
    """How many bytes of bodies all requests together may hold in memory."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    @contextmanager
    def reserve(self) -> Iterator[BodyReservation]:
        """Open a reservation for as long as one request is in memory."""
        reservation = BodyReservation(self)
        try:
            yield reservation
        finally:
            reservation.hold(0)


class BodyReservation:
    """The part of a budget that one request holds."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._held = 0

    def hold(self, count: int) -> bool:
        """Hold this many bytes from now on; return False, and change nothing, if the budget does not have them."""
        more = count - self._held
        if more > max(0, self._budget.left):
            return False
        self._budget.left -= more
        self._held = count
        return True


class Listener:
    """A server from `start` to `aclose`. The handler ends or aborts each request before it returns."""

    def __init__(
        self,
        handler: Callable[[AgentRequest], Awaitable[None]],
        *,
        access: AgentAccess,
        host: str = "127.0.0.1",
        port: int = 0,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        limits: ListenerLimits | None = None,
    ) -> None:
        self._handler = handler
        self._access = access
        self._host = host
        self._port = port
        self._origins = OriginPolicy((host, *hosts), origins)
        self._limits = ListenerLimits() if limits is None else limits
        self._server: asyncio.Server | None = None
        self._closing = False
        self._serving: dict[AgentTransport, asyncio.Task[None]] = {}
        self._admitted: set[AgentTransport] = set()
        self._strangers: dict[AgentTransport, None] = {}  # the oldest first
        self._idle: dict[AgentTransport, None] = {}  # in the order in which they became idle
        self._budget = BodyBudget(self._limits.max_held_bytes)

    async def start(self) -> str:
        """Listen; return the URL."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: AgentTransport(self._accept), self._host, self._port, backlog=_BACKLOG
        )
        port: int = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    async def aclose(self) -> None:
        """Stop listening, cancel what is being answered, and cut all connections."""
        if self._server is None:
            return
        self._closing = True
        await stop_listening(self._server)
        serving = dict(self._serving)
        for transport, task in serving.items():
            task.cancel()
            transport.abort()  # a task that is cancelled before its first step does not
        await asyncio.gather(*serving.values(), return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    # ---------------------------------------------------------------------------------------------------- connections

    def _accept(self, transport: AgentTransport) -> None:
        work = None if self._closing else self._work_for(transport)  # closing: accepted before, connected after
        if work is None:
            transport.abort()
        else:
            self._serving[transport] = asyncio.get_running_loop().create_task(work)

    def _work_for(self, transport: AgentTransport) -> Coroutine[None, None, None] | None:
        """Return what is done with a new connection; None: nothing, there are too many."""
        if not self._access.trusts(transport.connection):
            return self._work_for_stranger(transport)
        limit, count = self._limits.max_connections, len(self._admitted)
        idle = None if count < limit else next((idle for idle in self._idle if not idle.gone.is_set()), None)
        if idle is not None:  # its agent has no request under way, and can connect again
            del self._idle[idle]
            idle.cut()
        elif count >= 2 * limit:
            return None
        self._admitted.add(transport)
        if count >= limit and idle is None:
            return self._turn_away(transport, _too_many())
        return self._serve(transport, trusted=True)

    def _work_for_stranger(self, transport: AgentTransport) -> Coroutine[None, None, None]:
        """Hear a connection for its token, in the place of the oldest one that is heard for so long already."""
        while len(self._strangers) >= self._limits.max_strangers:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()
        self._strangers[transport] = None
        if self._access.token is None:
            return self._turn_away(transport, self._access.refusal())
        return self._serve(transport, trusted=False)

    async def _serve(self, transport: AgentTransport, *, trusted: bool) -> None:
        reader = RequestReader(
            self._origins,
            max_head=self._limits.max_head_bytes,
            max_body=self._limits.max_body_bytes,
            peer=transport.peer,
            admit=partial(self._access.admit, trusted=trusted),
        )
        try:
            while await self._exchange(transport, reader):
                reader.next_cycle()
            await transport.aclose(self._limits.linger_s)
        except (AgentGone, TimeoutError):
            await transport.aclose(0)
        finally:
            self._forget(transport)

    async def _turn_away(self, transport: AgentTransport, refusal: RequestRefusal) -> None:
        try:
            await self._refuse(transport, refusal)
            await transport.aclose(self._limits.linger_s)
        except AgentGone:
            await transport.aclose(0)
        finally:
            self._forget(transport)

    def _forget(self, transport: AgentTransport) -> None:
        transport.abort()
        self._idle.pop(transport, None)
        self._strangers.pop(transport, None)
        self._admitted.discard(transport)
        del self._serving[transport]

    async def _refuse(self, transport: AgentTransport, refusal: RequestRefusal) -> None:
        head, body = failure_reply(refusal.code, refusal.message)
        lines = (*head.lines, Line(b"Connection", b"close"))
        await transport.write((encode_reply_head(ReplyHead(head.status, head.reason, lines)) or b"") + body)

    # ------------------------------------------------------------------------------------------------------- requests

    async def _exchange(self, transport: AgentTransport, reader: RequestReader) -> bool:
        """Read a request and have it answered; return whether another may follow on this connection."""
        with self._budget.reserve() as reservation:
            received = await self._read_request(transport, reader, reservation=reservation)
            if isinstance(received, RequestRefusal):
                await self._refuse(transport, received)
                return False
            request = AgentRequest(received, transport, max_message=self._limits.max_message_bytes, ahead=reader.rest)
            del received
            await self._answer(request)
        return request.may_be_followed

    async def _read_request(
        self, transport: AgentTransport, reader: RequestReader, *, reservation: BodyReservation
    ) -> ParsedRequest | RequestRefusal:
        loop = asyncio.get_running_loop()
        head_at = loop.time() + self._limits.head_s
        while True:
            event = reader.next_event()
            if reader.phase in _ADMITTED and transport in self._strangers:
                del self._strangers[transport]
                self._admitted.add(transport)
            if not reservation.hold(reader.held):
                return RequestRefusal("segue_overloaded", "Too many large requests are in memory.")
            match event:
                case ParsedRequest() | RequestRefusal():
                    return event
                case ContinueAwaited():
                    await transport.write(_CONTINUE)
                    continue
                case None:
                    pass
            if reader.phase == "idle":
                await self._wait_idle(transport)
                head_at = loop.time() + self._limits.head_s
            until = head_at if reader.phase in {"idle", "head"} else loop.time() + self._limits.body_s
            try:
                async with asyncio.timeout_at(until):
                    reader.receive(await transport.read())
            except TimeoutError:
                return RequestRefusal("request_timeout", "The request did not arrive in time.")

    async def _wait_idle(self, transport: AgentTransport) -> None:
        self._idle[transport] = None
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await transport.wait_readable()
        finally:
            self._idle.pop(transport, None)

    async def _answer(self, request: AgentRequest) -> None:
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

    async def _settle(self, request: AgentRequest) -> None:
        try:
            async with asyncio.timeout(self._limits.linger_s):
                await request.settle()
        except TimeoutError:
            pass  # the agent had its time to answer our close frame


def _too_many() -> RequestRefusal:
    return RequestRefusal("segue_overloaded", "There are too many connections.")
