"""Everything that can happen to conversations, at random, against a real gateway and beside a naive model: creates,
forks, steers, compactions, failures, lost connections, resumes and deletions, in conversations with an id and without,
over many lanes, connections and tenants. After
every step each turn that ended must have seen exactly the history that the model says: no item lost, doubled or
somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from segue.config import CompactionConfig
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Failure, usage
from segue.protocol.steering import MOST_STEERS
from segue.testing.protocol_checker import Json, parse_json
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import MODEL
from tests.integration.clients import Cut, Http, Socket
from tests.integration.gateway import key, listening
from tests.strategies import examples

T = TypeVar("T")

TENANTS = ("alice", "bob")
LANES = ("", "a", "b", "c")
#: How a turn goes, said in its own input; on a socket most are held, so that there is something to interrupt.
WAYS = ("ok", "fail", "refuse", "cut", "compact")
HELD = ("hold", *WAYS, "hold", "hold", "hold")
UNKNOWN = f"resp_{'0' * 40}"
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")


class Oracle:
    """A model that does what a turn's input says, and remembers what each turn saw."""

    models: Sequence[str] = (MODEL,)
    stops_between_items = True

    def __init__(self) -> None:
        self.seen: dict[str, list[str]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.stopped: set[str] = set()

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Play one turn."""
        texts = [_text(parse_json(item.decode())) for item in request.history.items()]
        if texts[-1] == CompactionConfig().prompt:
            texts.pop()
        name = texts[-1]
        assert name not in self.seen, f"the turn {name} was run twice"
        self.seen[name] = texts
        way = name.partition("-")[0]
        if way == "refuse":
            raise Refused(Problem("upstream_error", "The model says no."))
        writer = OutputWriter(request.response_id)
        ended = False
        try:
            yield writer.text(f"re:{name}")
            if way == "hold":
                await self.gates.setdefault(name, asyncio.Event()).wait()
            ends = {"fail": Ended("failed", error=Failure("server_error", "It fails."))}
            ends["cut"] = Ended("incomplete", usage(1, 1), incomplete_reason="max_output_tokens")
            ended = True
            yield [
                *writer.end_item("completed" if way in ("ok", "hold", "compact") else "incomplete"),
                ends.get(way, Ended("completed", usage(1, 1))),
            ]
        finally:
            if not ended:
                self.stopped.add(name)


def _text(item: Json) -> str:
    """What a message says; of another item, its type."""
    content = item.get("content", [{"text": item["type"]}] if "type" in item else "")
    return str(content if isinstance(content, str) else content[0]["text"])


def _compacted(seen: list[str], name: str) -> list[str]:
    """What a model sees of a history once a turn has compacted it: what users said, and the model's summary."""
    users = [text for text in seen if text.partition("-")[0] in (*WAYS, "hold", "note")]
    return [*users, f"{CompactionConfig().lead}\n\nre:{name}"]


class Turn:
    """A turn as the model knows it."""

    def __init__(
        self, tenant: str, name: str, parent: Turn | None, *, unknown: bool, store: bool, kept: bool = False
    ) -> None:
        self.tenant = tenant
        self.name = name
        self.parent = parent
        self.unknown = unknown  # its parent is an id that nobody ever had
        self.store = store
        self.kept = kept  # it may be resumed
        self.given = [name]  # what its input says
        self.steers: list[str] = []  # what was said to it while it ran
        self.held = False  # its parent is held for it
        self.frames: list[Json] = []  # what its clients have received
        self.logged = False  # all of its events can be had again
        self.parked = False  # it can be continued on every connection of its tenant
        self.id = ""
        self.stored = False  # it can be found by its id
        self.history: list[str] = []  # itself included, with what it said
        self.seen: list[str] = []  # what of it a model sees

    @property
    def way(self) -> str:
        return self.name.partition("-")[0]

    def fields(self) -> Json:
        fields: Json = {"model": MODEL, "input": self.name, "store": self.store}
        if self.way == "compact":
            fields["input"] = [{"role": "user", "content": self.name}, {"type": "compaction_trigger"}]
        if self.kept:
            fields["segue"] = {"resume": True, "idempotency_key": self.name}
        if self.unknown or self.parent is not None:
            fields["previous_response_id"] = UNKNOWN if self.parent is None else self.parent.id
        return fields


class Talk:
    """A conversation of the API as the model knows it."""

    def __init__(self, tenant: str, ident: str) -> None:
        self.tenant = tenant
        self.id = ident
        self.texts: list[str] = []


class Lane:
    """A lane as the model knows it."""

    def __init__(self) -> None:
        self.latest: Turn | None = None
        self.running: Turn | None = None
        self.queue: list[Turn] = []


class Connection:
    """A connection as the model knows it, and the real one."""

    def __init__(self, tenant: str, socket: Socket) -> None:
        self.tenant = tenant
        self.socket = socket
        self.lanes = {name: Lane() for name in LANES}

    async def frame(self, lane: str, *kinds: str, turn: Turn | None = None) -> Json:
        """Receive up to a frame of these kinds; nothing else may come, since all other lanes wait."""
        while True:
            frame = await self.socket.frame()
            assert frame.get("stream_id", "") == lane, f"{frame['type']} in another lane"
            if turn is not None:
                turn.frames.append({key: value for key, value in frame.items() if key != "stream_id"})
            if frame["type"] in kinds:
                return frame
            assert frame["type"] not in ENDS, f"the turn is over: {frame}"


class Conversations(RuleBasedStateMachine):
    """One gateway, its clients, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.connections: list[Connection] = []
        self.turns: list[Turn] = []  # all that ended well, ever
        self.talks: list[Talk] = []
        self.kept: list[Turn] = []  # those that began and may be resumed
        self.away: list[Turn] = []  # those that run, and that nobody follows
        self.count = 0

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.oracle = Oracle()
            keys = [key(tenant) for tenant in TENANTS]
            self.gateway, self.url = await self.stack.enter_async_context(listening(self.oracle, keys=keys))
            self.https = {
                tenant: await self.stack.enter_async_context(Http(self.url, f"sk-{tenant}")) for tenant in TENANTS
            }

        self.run(begin())

    def teardown(self) -> None:
        if hasattr(self, "oracle"):
            self.run(self.finish())
        self.runner.close()

    async def finish(self) -> None:
        for connection in self.connections:
            for name, lane in connection.lanes.items():
                while lane.running is not None:
                    await self.let_go(connection, name)
        for turn in self.away:
            self.oracle.gates.setdefault(turn.name, asyncio.Event()).set()
        await self.stack.aclose()

    async def let_go(self, connection: Connection, name: str) -> None:
        """Let the turn that a lane holds end, and follow the lane."""
        turn = connection.lanes[name].running
        assert turn is not None
        self.oracle.gates.setdefault(turn.name, asyncio.Event()).set()
        await self.conclude(connection, name)
        await self.settle(connection, name)

    # --- what the model says -----------------------------------------------------------------------------------------

    def verdict(self, turn: Turn, connection: Connection | None, lane: str = "") -> str | None:
        """The code that a turn is refused with as it begins, or None."""
        parent = turn.parent
        if parent is None:
            found = not turn.unknown
        else:
            there = connection is not None and any(one.latest is parent for one in connection.lanes.values())
            parked = connection is not None and parent.parked
            found = turn.held or there or ((parent.stored or parked) and parent.tenant == turn.tenant)
        if not found:
            return "previous_response_not_found"
        if parent is not None and turn.store and not parent.store:
            return "store_mismatch"
        return "upstream_error" if turn.way == "refuse" else None

    def ended_well(self, turn: Turn, response: Json) -> None:
        """Check what a turn saw and said, and make it a parent."""
        before = [] if turn.parent is None else turn.parent.history
        seen = [*([] if turn.parent is None else turn.parent.seen), *turn.given]
        assert self.oracle.seen[turn.name] == seen
        assert response["previous_response_id"] == (None if turn.parent is None else turn.parent.id)
        said = [*turn.given, "compaction" if turn.way == "compact" else f"re:{turn.name}"]
        assert [_text(item) for item in response["output"]] == said[-1:]
        assert response["id"] not in {other.id for other in self.turns}
        turn.id = response["id"]
        turn.stored = turn.store
        turn.logged = turn.kept
        turn.parked = turn.kept and not turn.store
        turn.history = [*before, *said]
        turn.seen = _compacted(seen, turn.name) if turn.way == "compact" else [*seen, said[-1]]
        self.turns.append(turn)

    async def settle(self, connection: Connection, name: str) -> None:
        """Follow a lane until it waits for us."""
        lane = connection.lanes[name]
        while lane.queue and lane.running is None:
            turn = lane.queue.pop(0)
            code = self.verdict(turn, connection, name)
            if code is not None:
                frame = await connection.frame(name, *ENDS)
                assert frame["error"]["code"] == code
                self.failed(turn, lane)
                continue
            turn.id = (await connection.frame(name, "response.created", turn=turn))["response"]["id"]
            lane.running = turn
            if turn.kept:
                self.kept.append(turn)
            if turn.way == "hold":
                await connection.frame(name, "response.output_text.delta", turn=turn)
            else:
                await self.conclude(connection, name)

    async def conclude(self, connection: Connection, name: str) -> None:
        """Receive the end of the turn that runs in a lane."""
        lane = connection.lanes[name]
        turn, lane.running = lane.running, None
        assert turn is not None
        response = (await connection.frame(name, *ENDS, turn=turn))["response"]
        assert response["id"] == turn.id
        turn.logged = turn.kept
        if turn.way == "fail":
            assert response["status"] == "failed"
            self.failed(turn, lane)
        else:
            self.ended_well(turn, response)
            lane.latest = turn
            if turn.steers:
                await self.succeed(connection, name, turn)

    async def succeed(self, connection: Connection, name: str, turn: Turn) -> None:
        """Follow the response that goes on from one that was steered; nobody has asked for it by a create."""
        lane, successor = (
            connection.lanes[name],
            Turn(turn.tenant, turn.steers[-1], turn, unknown=False, store=turn.store),
        )
        successor.given = turn.steers
        if successor.way == "refuse":
            for text in turn.steers:
                failed = await connection.frame(name, "response.steer.failed")
                assert (failed["error"]["code"], failed["steer"]["input"]) == ("successor_creation_failed", text)
            self.failed(successor, lane)
            return
        successor.id = (await connection.frame(name, "response.created"))["response"]["id"]
        lane.running = successor
        await self.conclude(connection, name)

    def failed(self, turn: Turn, lane: Lane) -> None:
        if turn.parent is not None and lane.latest is turn.parent:
            lane.latest = None
            turn.parent.parked = False

    def busy(self) -> list[Connection]:
        """The connections on which something runs."""
        return [one for one in self.connections if any(lane.running for lane in one.lanes.values())]

    def make(self, data: st.DataObject, tenant: str, ways: Sequence[str], likely: Sequence[Turn] = ()) -> Turn:
        """Make up a turn: a new chain, a continuation of any response there ever was, or of none that was."""
        self.count += 1
        way = data.draw(st.sampled_from(ways), "way")
        recent = [*likely, *likely, *(turn for turn in self.turns if turn.tenant == tenant)][-8:]
        foreign = [turn for turn in self.turns if turn.tenant != tenant][-1:]
        parents: list[Turn | None] = [*recent, *likely, None, None, None, *foreign]
        parent = data.draw(st.sampled_from(parents), "parent")
        unknown = parent is None and data.draw(st.integers(0, 7), "unknown") == 7
        store = data.draw(st.booleans() if parent is None else st.sampled_from((parent.store,) * 5 + (True, False)))
        kept = data.draw(st.sampled_from((True, True, False)), "kept")
        return Turn(tenant, f"{way}-{self.count}", parent, unknown=unknown, store=store, kept=kept)

    # --- what happens ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.connections) < 3)
    @rule(tenant=st.sampled_from(TENANTS))
    def connect(self, tenant: str) -> None:
        async def connect() -> None:
            socket = await self.stack.enter_async_context(Socket(self.url, f"sk-{tenant}", lanes=[*LANES[1:], "echo"]))
            self.connections.append(Connection(tenant, socket))

        self.run(connect())

    @precondition(lambda self: self.connections)
    @rule(data=st.data(), lane=st.sampled_from(LANES))
    def create(self, data: st.DataObject, lane: str) -> None:
        """Send a request, and see to it that it was accepted before anything else happens."""

        async def create() -> None:
            await connection.socket.create(**turn.fields(), **({"stream_id": lane} if lane else {}))
            await self.settle(connection, lane)
            await connection.socket.create(input=7, stream_id="echo")
            await connection.frame("echo", "error")

        connection = data.draw(st.sampled_from(self.connections), "connection")
        latest = [one.latest for one in connection.lanes.values() if one.latest is not None]
        turn = self.make(data, connection.tenant, HELD, latest)
        own = connection.lanes[lane]
        others = [one.latest for name, one in connection.lanes.items() if name != lane]
        turn.held = turn.parent is not None and turn.parent in others and not turn.parent.store
        own.queue.append(turn)
        self.run(create())

    @precondition(lambda self: sum(lane.running is not None for one in self.busy() for lane in one.lanes.values()) > 2)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Let a turn that was held go on, and what waits behind it."""
        held = [
            (connection, name)
            for connection in self.connections
            for name, lane in connection.lanes.items()
            if lane.running is not None
        ]
        connection, name = data.draw(st.sampled_from(held), "lane")

        self.run(self.let_go(connection, name))

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), way=st.sampled_from(("ok", "fail", "refuse", "cut")))
    def steer(self, data: st.DataObject, way: str) -> None:
        """Say more to a turn that is held. One that outlives its connection takes nothing."""
        connection = data.draw(st.sampled_from(self.busy()), "connection")
        running = [(name, lane.running) for name, lane in connection.lanes.items() if lane.running is not None]
        name, turn = data.draw(st.sampled_from(running), "lane")
        self.count += 1
        text = f"{way}-{self.count}"

        async def steer() -> Json:
            await connection.socket.send({"type": "response.steer", "previous_response_id": turn.id, "input": text})
            return await connection.frame(name, "response.steer.accepted", "response.steer.failed")

        frame = self.run(steer())
        if turn.kept:
            assert frame["error"]["code"] == "steering_not_supported"
        elif len(turn.steers) < MOST_STEERS:
            assert frame["type"] == "response.steer.accepted"
            turn.steers.append(text)

    @precondition(lambda self: len(self.busy()) > 1 or (self.count > 30 and self.connections))
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        """Lose a connection: its turns are stopped, but for those that may be resumed; what only it held is gone."""
        connection = data.draw(st.sampled_from(self.busy() or self.connections), "connection")
        self.connections.remove(connection)

        async def vanish() -> None:
            connection.socket.vanish()
            drain = self.gateway.services.drain
            while drain.connections > len(self.connections):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)

        self.run(vanish())
        running = [lane.running for lane in connection.lanes.values() if lane.running is not None]
        assert {turn.name for turn in running if not turn.kept} <= self.oracle.stopped
        assert self.oracle.stopped.isdisjoint(turn.name for turn in running if turn.kept)
        self.away += [turn for turn in running if turn.kept]

    @precondition(lambda self: len(self.away) > 1)
    @rule(data=st.data())
    def end_away(self, data: st.DataObject) -> None:
        """Let a turn end while nobody follows it."""
        turn = data.draw(st.sampled_from(self.away), "turn")
        self.away.remove(turn)
        self.oracle.gates.setdefault(turn.name, asyncio.Event()).set()
        rest = self.run(self.https[turn.tenant].rest(turn.id, turn.frames[-1]["sequence_number"]))
        turn.frames += rest
        turn.logged = True
        self.ended_well(turn, Cut(turn.frames).whole([]).response or {})

    def choose(self, data: st.DataObject) -> tuple[Connection, str, Turn] | None:
        """A kept turn whose events can be had, those that nobody follows first, and an idle lane for it."""
        turns = [*self.away, *(turn for turn in self.kept[-6:] if turn.logged)]
        lanes = [
            (connection, name)
            for connection in self.connections
            for name, lane in connection.lanes.items()
            if lane.running is None
        ]
        if not turns or not lanes:
            return None
        connection, name = data.draw(st.sampled_from(lanes), "lane")
        return connection, name, data.draw(st.sampled_from(turns), "turn")

    @precondition(lambda self: self.connections and self.kept)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """Go on with a turn on another connection, from the last frame or from an earlier one, or try to."""
        chosen = self.choose(data)
        if chosen is None:
            return
        connection, lane, turn = chosen
        seen = data.draw(st.integers(1, len(turn.frames)), "seen")
        gone = turn.tenant != connection.tenant or (turn.logged and seen == len(turn.frames))

        async def resume() -> None:
            message = {"type": "segue.resume", "response_id": turn.id, "starting_after": seen - 1}
            if not gone:
                connection.socket.expect(turn.frames[:seen], lane or None)
            await connection.socket.send({**message, **({"stream_id": lane} if lane else {})})
            if gone:
                assert (await connection.frame(lane, *ENDS))["error"]["code"] == "response_events_gone"
            else:
                await self.take_over(connection, lane, turn, seen)

        self.run(resume())

    @precondition(lambda self: self.connections and self.kept)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Send a create with its key again: it is answered from its first event, and no model is called."""
        chosen = self.choose(data)
        if chosen is None:
            return
        connection, lane, turn = chosen
        if turn.tenant != connection.tenant or not (turn in self.away or turn in self.turns):
            return  # for others, or after a failure, it would be a create like any other

        async def repeat() -> None:
            connection.socket.expect([], lane or None)
            await connection.socket.create(**turn.fields(), **({"stream_id": lane} if lane else {}))
            await self.take_over(connection, lane, turn, 0)

        self.run(repeat())

    async def take_over(self, connection: Connection, name: str, turn: Turn, seen: int) -> None:
        """Receive what a client that has seen so many frames lacks; a turn that still runs is now this lane's."""
        lane, before = connection.lanes[name], turn.frames
        turn.frames = before[:seen]
        if turn in self.away:
            if seen < len(before):
                await connection.frame(name, before[-1]["type"], turn=turn)
            assert turn.frames == before
            self.away.remove(turn)
            lane.running = turn
            return
        await connection.frame(name, *ENDS, turn=turn)
        assert turn.frames == before
        if turn.way not in ("fail", "refuse"):
            lane.latest = turn if turn.stored or turn.parked else None

    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def post(self, data: st.DataObject, tenant: str) -> None:
        """The same over HTTP, where nothing but stored responses can be continued."""
        turn = self.make(data, tenant, WAYS)
        reply = self.run(self.https[tenant].request("POST", "/v1/responses", data=turn.fields()))
        code = self.verdict(turn, None) or ("server_error" if turn.way == "fail" else None)
        if code is None:
            self.ended_well(turn, reply.body)
        else:
            assert reply.error["code"] == code

    @rule(data=st.data(), tenant=st.sampled_from(TENANTS), way=st.sampled_from(WAYS[:-1]))
    def converse(self, data: st.DataObject, tenant: str, way: str) -> None:
        """Run a turn in a conversation: a new one, any there was, or somebody else's. Its response can be forked."""
        talk = self.talk(data, tenant, most=3)
        self.count += 1
        turn = Turn(tenant, f"{way}-{self.count}", None, unknown=False, store=True)
        fields = {**turn.fields(), "conversation": talk.id}
        reply = self.run(self.https[tenant].request("POST", "/v1/responses", data=fields))
        if talk.tenant != tenant:
            assert (reply.status, reply.error["code"]) == (404, "conversation_not_found")
            return
        if way in ("fail", "refuse"):
            assert reply.error["code"] == ("server_error" if way == "fail" else "upstream_error")
            return
        turn.given = [*talk.texts, turn.name]
        self.ended_well(turn, reply.body)
        assert reply.body["conversation"] == {"id": talk.id}
        talk.texts = turn.history

    def talk(self, data: st.DataObject, tenant: str, most: int) -> Talk:
        """Return a conversation, a new one as long as there are few."""
        if len(self.talks) < most:
            made = self.run(self.https[tenant].request("POST", "/v1/conversations", data="{}"))
            self.talks.append(Talk(tenant, made.body["id"]))
        return data.draw(st.sampled_from(self.talks), "conversation")

    @precondition(lambda self: self.talks)
    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def edit(self, data: st.DataObject, tenant: str) -> None:
        """Add an item to a conversation, or take one out, and look at what is there."""
        talk, http = self.talk(data, tenant, most=0), self.https[tenant]
        path = f"/v1/conversations/{talk.id}/items"
        listed = self.run(http.request("GET", f"{path}?order=asc&limit=100"))
        if talk.tenant != tenant:
            assert (listed.status, listed.error["code"]) == (404, "conversation_not_found")
            return
        assert [_text(item) for item in listed.body["data"]] == talk.texts[:100]
        gone = data.draw(st.none() | st.sampled_from(range(len(talk.texts))) if talk.texts else st.none(), "item")
        if gone is None or gone >= len(listed.body["data"]):
            self.count += 1
            item = {"role": "user", "content": f"note-{self.count}"}
            self.run(http.request("POST", path, data={"items": [item]}))
            talk.texts = [*talk.texts, f"note-{self.count}"]
        else:
            reply = self.run(http.request("DELETE", f"{path}/{listed.body['data'][gone]['id']}"))
            assert reply.body["id"] == talk.id
            talk.texts = [*talk.texts[:gone], *talk.texts[gone + 1 :]]

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def delete(self, data: st.DataObject, tenant: str) -> None:
        """Delete a response, or try to: it is gone from everywhere at once, and what continues it lives on."""
        lanes = [lane for connection in self.connections for lane in connection.lanes.values()]
        waiting = [turn for lane in lanes for turn in lane.queue]
        wanted = [turn.parent for turn in waiting if turn.parent is not None]
        turn = data.draw(st.sampled_from([*self.turns[-8:], *wanted]), "response")
        reply = self.run(self.https[tenant].request("DELETE", f"/v1/responses/{turn.id}"))
        there = (turn.stored or turn.logged) and turn.tenant == tenant
        assert reply.status == (200 if there else 404)
        if there:
            turn.stored = turn.logged = turn.parked = False
            for lane in lanes:
                if lane.latest is turn:
                    lane.latest = None
            for fork in waiting:  # what was held for a fork is gone too: decision 0013
                if fork.parent is turn:
                    fork.held = False

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), tenant=st.sampled_from(TENANTS))
    def look(self, data: st.DataObject, tenant: str) -> None:
        """Read what a stored response saw."""
        turn = data.draw(st.sampled_from(self.turns[-8:]), "response")
        reply = self.run(self.https[tenant].request("GET", f"/v1/responses/{turn.id}/input_items?order=asc&limit=100"))
        assert reply.status == (200 if turn.stored and turn.tenant == tenant else 404)
        if reply.status == 200:
            assert [_text(item) for item in reply.body["data"]] == turn.history[:-1][-100:]


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=examples(150), stateful_step_count=50)  # up to 7,500 steps
