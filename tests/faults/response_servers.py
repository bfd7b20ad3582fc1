"""The servers that the client library is tested against, each behind a proxy that fails at the right byte.

`GatewayServer` is segue's gateway in this process, `DoubleServer` a double of another Responses server. Both play the
same conversation, whose answers follow from the history alone, and count how often the model ran. They are shared by
many tests: nothing of one session is in the way of the next.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from segue.config import Config, ServerConfig
from segue.gateway.access import LOCAL_TENANT
from segue.gateway.app import Gateway
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Code, Problem, Refused
from segue.protocol.responses import Failure, usage
from segue.stores.memory import MemoryStore
from segue.testing.response_events import Json, called, said
from segue.testing.responses_faults import AgeLimit, Cut, ErrorAt, FailAt, RestartAt
from segue.testing.responses_rules import CreateRefusal, ServerRules, playing, turns_before
from segue.testing.responses_server import ScriptedResponsesServer, responding
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.response_proxy import ProxyFault, ResponseProxy, proxied

#: What the model says, turn by turn.
TURNS: tuple[tuple[Json, ...], ...] = (
    (said("Let me look it up."), called("look", '{"at":"the sky"}', call_id="call_1")),
    (said("The sky is blue, as it says, and that is all there is to it."),),
    (said("You are welcome."),),
)
#: What the user sends, turn by turn.
INPUTS: tuple[Json | str, ...] = (
    "What colour is the sky?",
    {"type": "function_call_output", "call_id": "call_1", "output": "blue"},
    "Thank you.",
)
#: The number of an event in the middle of the second turn; a lean stream has few.
_MIDDLE, _MIDDLE_OF_LEAN = 6, 2
_TURNS_OF_THE_LOOP = 20
LOOK: Json = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}


class ResponsesTarget(Protocol):
    """A server that can be told what to do to the next create."""

    proxy: ResponseProxy

    @property
    def runs(self) -> int:
        """How often the model has run."""

    @property
    def waits(self) -> bool:
        """Whether a fault has been prepared and not been met."""

    def break_stream(self) -> None:
        """Cut the stream of the next turn in the middle."""

    def restart_in_stream(self) -> None:
        """Restart in the middle of the next turn."""

    def refuse(self, status: int, retry_after_s: int | None) -> None:
        """Refuse the next create before the model runs."""

    def fail(self) -> None:
        """Let the next turn fail in the middle."""

    def restart(self) -> None:
        """Lose what is in memory; what is stored stays."""

    async def evict(self, response_id: str) -> None:
        """Forget a response."""

    async def age(self) -> None:
        """Let the open connections reach their age limit."""


# --- the gateway -----------------------------------------------------------------------------------------------------

_PROBLEMS: dict[int, Code] = {429: "rate_limit_exceeded", 500: "server_error", 503: "server_overloaded"}


class Crash(NamedTuple):
    """The process dies in the middle of the turn: this is done then, and the turn goes no further."""

    then: Callable[[], None]


class HistoryModel(ScriptedUpstream):
    """A model whose answer follows from the history, unless the next is planned."""

    def __init__(self) -> None:
        super().__init__()
        self.planned: deque[Problem | Failure | Crash] = deque()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Play the turn that is next in the history."""
        planned = self.planned.popleft() if self.planned else None
        if isinstance(planned, Problem):
            raise Refused(planned)
        self.started += 1
        writer = OutputWriter(request.response_id)
        if planned is not None:
            yield writer.text("Let me")
            if isinstance(planned, Crash):
                for _ in range(_TURNS_OF_THE_LOOP):  # let what was said get to the client
                    await asyncio.sleep(0)
                planned.then()
                await asyncio.Event().wait()
            else:
                yield [*writer.end_item("incomplete"), Ended("failed", error=planned)]
            return
        items = TURNS[turns_before([json.loads(item) for item in request.history.items()])]
        for item in items:
            if item["type"] == "function_call":
                yield writer.call(item["call_id"], item["name"], item["arguments"])
                continue
            for word in item["content"][0]["text"].split(" "):
                yield writer.text(f"{word} ")
            yield writer.end_item()
        yield [Ended("completed", usage(1, 1))]


class GatewayServer:
    """Two gateways over one store: a restart goes from one to the other, which knows nothing but the store."""

    def __init__(self, model: HistoryModel, gateways: Sequence[Gateway], ports: Sequence[int]) -> None:
        self._model = model
        self._gateways = gateways
        self._ports = ports
        self._at = 0
        self.proxy: ResponseProxy

    @property
    def runs(self) -> int:
        return self._model.started

    @property
    def waits(self) -> bool:
        return self.proxy.waits or bool(self._model.planned)

    def break_stream(self) -> None:
        self.proxy.plan(ProxyFault(at="event", events=_MIDDLE_OF_LEAN))

    def restart_in_stream(self) -> None:
        self._model.planned.append(Crash(self.restart))

    def refuse(self, status: int, retry_after_s: int | None) -> None:
        problem = Problem(_PROBLEMS[status], "Not now.", retry_after_s=retry_after_s)
        self._model.planned.append(problem)

    def fail(self) -> None:
        self._model.planned.append(Failure("server_error", "The model went away."))

    def restart(self) -> None:
        self.proxy.cut()
        self._at = 1 - self._at
        self.proxy.target = ("127.0.0.1", self._ports[self._at])

    async def evict(self, response_id: str) -> None:
        ident = ResponseId(response_id)
        services = self._gateways[self._at].services
        await services.store.delete(LOCAL_TENANT, ident, time.time())
        services.cache.forget(LOCAL_TENANT, ident)

    async def age(self) -> None:
        """There is no clock to turn: the deadlines of the connections are moved."""
        for connection in vars(self._gateways[self._at].services.drain)["_connections"]:
            vars(vars(connection)["_session"])["_expires_at"] = 0.0
            connection._on_timer()  # noqa: SLF001 - only time calls it, and a test has none


@asynccontextmanager
async def gateway_server() -> AsyncIterator[GatewayServer]:
    model, store = HistoryModel(), MemoryStore()
    async with AsyncExitStack() as stack:
        gateways, ports = [], []
        for _ in range(2):
            config = Config(server=ServerConfig(port=0, store="memory:"))
            gateway = Gateway(config, Router([ModelRule(model, ("*",))]), store, time.time)
            stack.push_async_callback(gateway.aclose)
            gateways.append(gateway)
            ports.append(urlsplit(await gateway.listen()).port or 0)
        server = GatewayServer(model, gateways, ports)
        server.proxy = await stack.enter_async_context(proxied("127.0.0.1", ports[0]))
        yield server


# --- doubles ---------------------------------------------------------------------------------------------------------


class DoubleServer:
    """A double of a Responses server."""

    def __init__(self, double: ScriptedResponsesServer, proxy: ResponseProxy) -> None:
        self.double = double
        self.proxy = proxy

    @property
    def runs(self) -> int:
        return len(self.double.executions)

    @property
    def waits(self) -> bool:
        return self.proxy.waits or self.double.waits

    def break_stream(self) -> None:
        self.double.plan(Cut(at="events", events=_MIDDLE))

    def restart_in_stream(self) -> None:
        self.double.plan(RestartAt(events=_MIDDLE))

    def refuse(self, status: int, retry_after_s: int | None) -> None:
        refusal = CreateRefusal(status=status, code=_PROBLEMS[status], message="Not now.", retry_after_s=retry_after_s)
        self.double.plan(ErrorAt(refusal=refusal))

    def fail(self) -> None:
        self.double.plan(FailAt(events=5))

    def restart(self) -> None:
        self.proxy.cut()
        self.double.restart()

    async def evict(self, response_id: str) -> None:
        self.double.forget(response_id)

    async def age(self) -> None:
        self.double.plan(AgeLimit())


@asynccontextmanager
async def double_server(rules: ServerRules) -> AsyncIterator[DoubleServer]:
    async with responding(rules, model=playing(*TURNS)) as double, proxied("127.0.0.1", double.port) as proxy:
        yield DoubleServer(double, proxy)


def items_of(history: Sequence[bytes]) -> list[Json]:
    """Return the items of a history."""
    return [json.loads(item) for item in history]


def without_ids(history: Sequence[bytes]) -> list[Json]:
    """Return the items of a history without the ids that servers give them."""
    return [{name: value for name, value in item.items() if name != "id"} for item in items_of(history)]


async def noticed() -> None:
    """Let the client's side of the loop see what was done to its sockets: that takes a few turns of the loop."""
    for _ in range(_TURNS_OF_THE_LOOP):
        await asyncio.sleep(0)
