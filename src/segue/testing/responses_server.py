"""A double of a Responses server on a real port, which goes wrong where you say. For tests of clients.

    async with responding(OPENAI, model=playing([called("look", call_id="call_1")], [said("Done.")])) as server:
        server.plan(None, Cut(at="events", events=3))        the second create is cut before its fourth event
        ...a client talks to server.base_url, by HTTP or WebSocket...
        server.executions                                    each time that the model ran, and for which history
        server.creates                                       each create that arrived, as it came
        server.restart(keeps_stored=False)                    reset all connections and forget everything

`responses_rules` says what each kind of server takes, keeps and refuses, `responses_faults` what can go wrong.
Everything follows from what arrives: ids are counted, nothing is random, nothing waits for time. This module uses none
of segue's own protocol, client or gateway code. Not here: a double of a provider that keeps requests byte for byte
(`provider`), and slow or lossy links (`link`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import WSMsgType, web

from segue.testing.response_events import Json
from segue.testing.responses_faults import AgeLimit, Cut, ErrorAt, Fault, Unreadable, UpgradeFault
from segue.testing.responses_player import (
    Outlet,
    SocketOutlet,
    StreamOutlet,
    TurnPlayer,
    WholeOutlet,
    error_response,
    reset,
    reset_now,
)
from segue.testing.responses_rules import (
    ConnectionMemory,
    CreateRefusal,
    CreateTransport,
    Execution,
    Model,
    PlannedTurn,
    ServerMemory,
    ServerRules,
    counting,
)

_HOST = "127.0.0.1"
_PATH = "/v1/responses"
_GOING_AWAY = 1001
_UNSUPPORTED_DATA = 1003
_UPGRADE_REQUIRED = 426
_NOT_FOUND = 404
_BAD_REQUEST = 400
_LIMIT = CreateRefusal(
    status=_BAD_REQUEST,
    code="websocket_connection_limit_reached",
    message="Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue.",
)
_NO_MESSAGE = CreateRefusal(
    status=_BAD_REQUEST, code="invalid_json", message="A message must be a JSON object with a known type."
)


class ReceivedCreate(msgspec.Struct, frozen=True, kw_only=True):
    """A create as it arrived. `connection` is the number of its WebSocket."""

    transport: CreateTransport
    connection: int | None
    body: bytes
    create: Json
    headers: dict[str, str]


class ScriptedResponsesServer:
    """The running server: its address, its faults, what it was asked, and what it ran."""

    def __init__(self, rules: ServerRules, model: Model, clock: Callable[[], float]) -> None:
        self.rules = rules
        self.memory = ServerMemory(rules, model)
        self.port = 0
        self.creates: list[ReceivedCreate] = []
        self.upgrades: list[dict[str, str]] = []
        """The headers of each upgrade that was asked for, refused ones too."""
        self.retrieved: list[str] = []
        """The ids of the responses that were asked for with GET."""
        self._clock = clock
        self._faults: deque[Fault | None] = deque()
        self._upgrade_faults: deque[UpgradeFault | None] = deque()
        self._clients: list[_SocketClient] = []
        self._changed = asyncio.Condition()
        application = web.Application(client_max_size=rules.message_bytes)
        application.router.add_post(_PATH, self._post)
        application.router.add_get(_PATH, self._upgrade)
        if rules.retrieves:
            application.router.add_get(_PATH + "/{id}", self._retrieve)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)

    @property
    def executions(self) -> list[Execution]:
        """Each run of the model, oldest first."""
        return self.memory.executions

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{_HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """The address that clients of the API are given."""
        return f"{self.url}/v1"

    @property
    def open_sockets(self) -> int:
        """How many WebSockets are open."""
        return len(self._clients)

    # --- faults ------------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a fault has been planned and not been met."""
        return any(fault is not None for fault in (*self._faults, *self._upgrade_faults))

    def plan(self, *faults: Fault | None) -> None:
        """Give each of the next creates its fault; None is for a create that goes well."""
        self._faults.extend(faults)

    def plan_upgrades(self, *faults: UpgradeFault | None) -> None:
        """Give each of the next upgrades its fault: an answer that is no upgrade, or a reset."""
        self._upgrade_faults.extend(faults)

    def forget(self, response_id: str) -> None:
        """Evict one response, from connections and from what is stored."""
        self.memory.forget(response_id, (client.memory for client in self._clients))

    def cut(self) -> None:
        """Reset all connections, idle ones too."""
        for handler in tuple(self._runner.server.connections if self._runner.server else ()):
            reset_now(handler.transport)

    def restart(self, *, keeps_stored: bool = True) -> None:
        """Reset all connections, and forget stored responses too if told. The address stays."""
        self.cut()
        if not keeps_stored:
            self.memory.stored.clear()

    async def age_out(self) -> None:
        """Tell every open WebSocket that it is too old, and close it."""
        for client in tuple(self._clients):
            await client.tell_limit()

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def seen(self, count: int) -> None:
        """Wait until so many creates have arrived."""
        await self._until(lambda: len(self.creates) >= count)

    async def abandoned(self, count: int = 1) -> None:
        """Wait until the clients of so many running turns have gone away."""
        await self._until(lambda: sum(run.state == "abandoned" for run in self.executions) >= count)

    async def left(self) -> None:
        """Wait until no WebSocket is open."""
        await self._until(lambda: not self._clients)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(reached)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Listen on a free port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, _HOST, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def aclose(self) -> None:
        """Reset all connections and stop listening."""
        self.cut()
        await self._runner.cleanup()

    # --- HTTP --------------------------------------------------------------------------------------------------------

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._faults.popleft() if self._faults else None
        if isinstance(fault, Cut) and fault.at == "create":
            await reset(request.transport)
            return web.Response()
        create = _parsed(body)
        if create is None:
            return error_response(_NO_MESSAGE)
        await self._note(create, body, request, connection=None)
        match fault:
            case Unreadable():
                return web.Response(status=fault.status, body=fault.body, content_type=fault.content_type)
            case ErrorAt(events=None):
                return error_response(fault.refusal)
            case _:
                planned = self.memory.begin(create, None, transport="http")
        if isinstance(planned, CreateRefusal):
            return error_response(planned)
        streamed = create.get("stream")
        outlet = StreamOutlet(request, ids=self.rules.sse_ids) if streamed else WholeOutlet(request)
        whole = await self._play(planned, None, outlet, fault=fault)
        return await outlet.finish(whole=whole)

    async def _retrieve(self, request: web.Request) -> web.Response:
        response_id = request.match_info["id"]
        self.retrieved.append(response_id)
        kept = self.memory.stored.get(response_id)
        if kept is None:
            text = f"Response with id '{response_id}' not found."
            return error_response(CreateRefusal(status=_NOT_FOUND, code="not_found", message=text))
        if request.query.get("stream") == "true":
            text = "Only responses that were created in the background can be streamed again."
            return error_response(CreateRefusal(status=_BAD_REQUEST, code="unsupported_value", message=text))
        return web.Response(body=msgspec.json.encode(kept.response), content_type="application/json")

    # --- WebSocket ---------------------------------------------------------------------------------------------------

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        self.upgrades.append({name.lower(): value for name, value in request.headers.items()})
        fault = self._upgrade_faults.popleft() if self._upgrade_faults else None
        if isinstance(fault, Unreadable):
            return web.Response(status=fault.status, body=fault.body, content_type=fault.content_type)
        if fault is not None:
            await reset(request.transport)
            return web.Response()
        websocket = web.WebSocketResponse(max_msg_size=self.rules.message_bytes)
        if not self.rules.upgrades or not websocket.can_prepare(request).ok:
            return web.Response(status=_UPGRADE_REQUIRED, text="There is no WebSocket mode here.")
        await websocket.prepare(request)
        memory = ConnectionMemory(len(self.upgrades) - 1)
        in_flight, now = self.rules.in_flight, self._clock()
        client = _SocketClient(request, websocket, memory, in_flight=in_flight, opened_at=now)
        self._clients.append(client)
        try:
            await self._read(client)
        finally:
            self._clients.remove(client)
            await self._notify()
        return websocket

    async def _read(self, client: _SocketClient) -> None:
        """Run each message as a task; when the client has left, nothing of it runs on."""
        turns: set[asyncio.Task[None]] = set()
        try:
            async for message in client.websocket:
                if message.type is not WSMsgType.TEXT:
                    await client.websocket.close(code=_UNSUPPORTED_DATA)
                    return
                fault = self._faults.popleft() if self._faults else None
                task = asyncio.create_task(self._take(client, message.data.encode(), fault))
                turns.add(task)
                task.add_done_callback(turns.discard)
        finally:
            for task in turns:
                task.cancel()
            await asyncio.gather(*turns, return_exceptions=True)

    async def _take(self, client: _SocketClient, body: bytes, fault: Fault | None) -> None:
        """Answer one message, unless the client leaves."""
        with contextlib.suppress(ConnectionError):
            await self._respond(client, body, fault)

    async def _respond(self, client: _SocketClient, body: bytes, fault: Fault | None) -> None:
        if isinstance(fault, Cut) and fault.at == "create":
            await reset(client.request.transport)
            return
        create = _parsed(body)
        if create is None or create.get("type") != "response.create":
            await client.outlet(None).send_error(_NO_MESSAGE, flat=False, number=0)
            return
        await self._note(create, body, client.request, connection=client.memory)
        if isinstance(fault, AgeLimit) or self._clock() - client.opened_at >= self.rules.connection_age_s:
            await client.tell_limit()
            return
        refusal = self.memory.check_lane(create, client.memory)
        if refusal is not None:
            await client.outlet(None).send_error(refusal, flat=False, number=0)
            return
        async with client.lanes[create.get("stream_id")], client.slots:
            await self._answer(client, create, fault)

    async def _answer(self, client: _SocketClient, create: Json, fault: Fault | None) -> None:
        outlet = client.outlet(create.get("stream_id"))
        match fault:
            case Unreadable():
                await client.websocket.send_str(fault.body.decode())
                return
            case ErrorAt(events=None):
                self.memory.refuse(create, client.memory)
                await outlet.send_error(fault.refusal, flat=fault.flat, number=0)
                return
            case _:
                planned = self.memory.begin(create, client.memory, transport="websocket")
        if isinstance(planned, CreateRefusal):
            await outlet.send_error(planned, flat=False, number=0)
            return
        await self._play(planned, client.memory, outlet, fault=fault)

    # --- both --------------------------------------------------------------------------------------------------------

    async def _play(
        self, turn: PlannedTurn, connection: ConnectionMemory | None, outlet: Outlet, *, fault: Fault | None
    ) -> bool:
        player = TurnPlayer(self.memory, turn, connection=connection, restart=self.restart)
        try:
            return await player.play(outlet, fault)
        finally:
            if not player.ended:
                self.memory.abandon(turn)
            await self._notify()

    async def _note(
        self, create: Json, body: bytes, request: web.Request, *, connection: ConnectionMemory | None
    ) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        number = None if connection is None else connection.number
        transport: CreateTransport = "http" if connection is None else "websocket"
        received = ReceivedCreate(transport=transport, connection=number, body=body, create=create, headers=headers)
        self.creates.append(received)
        await self._notify()


class _SocketClient:
    """One WebSocket: each lane runs in order, and so many lanes at once as the rules say."""

    def __init__(
        self,
        request: web.Request,
        websocket: web.WebSocketResponse,
        memory: ConnectionMemory,
        *,
        in_flight: int,
        opened_at: float,
    ) -> None:
        self.request = request
        self.websocket = websocket
        self.memory = memory
        self.opened_at = opened_at
        self.lanes: defaultdict[str | None, asyncio.Lock] = defaultdict(asyncio.Lock)  # serves who waits in order
        self.slots = asyncio.Semaphore(in_flight)

    def outlet(self, lane: str | None) -> SocketOutlet:
        """Return where the events of a lane go."""
        return SocketOutlet(self.request, self.websocket, lane)

    async def tell_limit(self) -> None:
        """Say that the connection is too old, and close it."""
        await self.outlet(None).send_error(_LIMIT, flat=False, number=0)
        await self.websocket.close(code=_GOING_AWAY)


def _parsed(body: bytes) -> Json | None:
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) else None


@asynccontextmanager
async def responding(
    rules: ServerRules, *, model: Model = counting, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[ScriptedResponsesServer]:
    """Run a server around a block."""
    server = ScriptedResponsesServer(rules, model, clock)
    await server.open()
    try:
        yield server
    finally:
        await server.aclose()
