"""Delta ≡ replay, end to end: whatever the sequence of turns, over whatever transport, the upstream gets the same bytes
whether the client sent only what was new or everything each time, and whether it read whole streams or lean ones.

Conversations are generated, with forks from any response that may be continued, tool calls, warm-ups, and turns that
are cut short or fail. Three things must be equal, byte for byte: what the model saw when deltas were sent, what it saw
when everything was sent, and what the client wrote down for itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.items import join, user_message
from segue.upstreams.scripted import MODEL, CallTool, Fail, Say, ScriptedTurn, Step, Truncate
from tests.integration.clients import Http, Socket
from tests.integration.gateway import running
from tests.strategies import examples

Via: TypeAlias = Literal["json", "sse", "socket", "lean socket"]
Items: TypeAlias = tuple[bytes, ...]


class Planned(NamedTuple):
    """One turn of a generated conversation. `parent` is the index of the turn it continues."""

    via: Via
    store: bool
    parent: int | None
    text: str | None  # given instead of items
    items: Items
    steps: tuple[Step, ...]  # none: a warm-up

    @property
    def fails(self) -> bool:
        return Fail() in self.steps


# ---------------------------------------------------------------------------------------------------------- generation

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
#: One value can be written in many ways, and an item must stay as it was written.
writers: st.SearchStrategy[Callable[[object], str]] = st.sampled_from(
    [
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        lambda value: json.dumps(value, indent=1),
    ]
)
#: `%d` is another number in each turn, since what a model said is in a history once.
odd_items = st.sampled_from(
    [
        b'{"type":"weather_report","degrees":4.0e+0,"at":100000000000000000000000001,"id":"x%d"}',
        b'{"role":"user","content":"a","content":"b"}',
        b'{ "role" : "developer" , "content" : [ ] , "n" : -0.0 }',
        b'{"type":"reasoning","summary":[],"encrypted_content":"\\u0000\\/\\ud83d\\ude00%d"}',
        b'{"type":"function_call","call_id":"own%d","name":"f","arguments":"{"}',
    ]
)


@st.composite
def messages(draw: st.DrawFn, number: int) -> bytes:
    role = draw(st.sampled_from(["user", "developer", "system", "assistant"]))
    kind = "output_text" if role == "assistant" else "input_text"
    said = words.map(lambda text: f"{number}. {text}") if role == "assistant" else words
    content = draw(said | st.lists(said.map(lambda text: {"type": kind, "text": text}), min_size=1, max_size=2))
    return draw(writers)({"type": "message", "role": role, "content": content}).encode()


@st.composite
def performances(draw: st.DrawFn, number: int) -> tuple[Step, ...]:
    """What the model does in a turn: texts and calls, and how it stops."""
    steps: list[Step] = [Say(tuple(pieces)) for pieces in draw(st.lists(st.lists(words, min_size=1), max_size=1))]
    steps += [CallTool(f"call_{number}_{index}", "look", '{"at":1}') for index in range(draw(st.integers(0, 2)))]
    ending: tuple[Step, ...] = draw(st.sampled_from([(), (), (), (Truncate(),), (Fail(),)]))
    return (*draw(st.permutations(steps)), *ending)


def open_calls(turns: Sequence[Planned], parent: int | None) -> list[str]:
    """The calls that the model made in the chain and that have no output there."""
    made: list[str] = []
    said = b""
    while parent is not None:
        made += [step.call_id for step in turns[parent].steps if isinstance(step, CallTool)]
        said += b"".join(turns[parent].items)
        parent = turns[parent].parent
    return [call_id for call_id in made if f'"{call_id}"'.encode() not in said]


@st.composite
def inputs(draw: st.DrawFn, number: int, calls: list[str]) -> tuple[str | None, Items]:
    """The input of a turn: a text, or items, the outputs of some calls among them."""
    if not calls and draw(st.booleans()):
        return draw(words), ()
    answered = draw(st.lists(st.sampled_from(calls), max_size=2, unique=True)) if calls else []
    outputs = [{"type": "function_call_output", "call_id": call_id, "output": draw(words)} for call_id in answered]
    items = [draw(writers)(output).encode() for output in outputs]
    odd = odd_items.map(lambda item: item.replace(b"%d", b"%d" % number))
    others = st.lists(messages(number) | odd, min_size=not items, max_size=2, unique=True)
    return None, (*items, *draw(others))


@st.composite
def conversations(draw: st.DrawFn) -> list[Planned]:
    """Up to ten turns, each with a parent that it may have."""
    everything_is_stored = draw(st.booleans())
    turns: list[Planned] = []
    latest: dict[str, int | None] = {}  # what each socket holds
    for number in range(draw(st.integers(4, 10))):
        via: Via = draw(st.sampled_from(["socket", "socket", "json", "sse", "lean socket", "lean socket"]))
        held = latest.get(via)
        stored = [index for index, turn in enumerate(turns) if turn.store and not turn.fails]
        likely = [*stored[-1:], *([] if held is None else [held])]  # so that chains grow
        parent = draw(st.sampled_from([*likely * 3, *stored, None]))
        may_be_stored = parent is None or turns[parent].store
        store = may_be_stored and (everything_is_stored or draw(st.booleans()))
        warm_up = draw(st.integers(0, 4)) == 0
        steps = () if warm_up else draw(performances(number).filter(bool))
        turns.append(Planned(via, store, parent, *draw(inputs(number, open_calls(turns, parent))), steps))
        if via.endswith("socket") and not turns[-1].fails:
            latest[via] = number
        elif held is not None and parent == held:
            latest[via] = None  # a continuation that failed in its own lane
    return turns


# ------------------------------------------------------------------------------------------------------------- playing


class _Response(msgspec.Struct):
    id: str
    output: list[msgspec.Raw]


class _Terminal(msgspec.Struct):
    response: _Response


class _ItemDone(msgspec.Struct):
    item: msgspec.Raw


class Player:
    """A client with all its connections, that sends and receives bytes."""

    def __init__(self, json_client: Http, sse_client: Http, sockets: dict[str, Socket]) -> None:
        self._json = json_client
        self._sse = sse_client
        self._sockets = sockets

    async def ask(self, turn: Planned, raw_input: bytes, *, store: bool, parent: str | None) -> _Response | None:
        """Ask for a response, and return it; None if it failed before anything was sent."""
        fields = {
            "type": "response.create",
            "model": MODEL,
            "stream": turn.via == "sse",
            "store": store,
            "generate": bool(turn.steps),
            "previous_response_id": parent,
        }
        body = b'%b,"input":%b}' % (json.dumps(fields).encode()[:-1], raw_input)
        if turn.via == "json":
            reply = await self._json.request("POST", "/v1/responses", data=body)
            assert reply.status == (400 if turn.fails else 200)
            return None if turn.fails else msgspec.json.decode(self._json.last, type=_Response)
        if turn.via == "sse":
            await self._sse.follow(body)
            return msgspec.json.decode(self._sse.last, type=_Terminal).response
        socket = self._sockets[turn.via]
        if turn.via == "lean socket":
            await socket.send((body[:-1] + b',"segue":{"lean":true}}').decode())
            return await read_lean(socket)
        await socket.send(body.decode())
        await socket.turn()
        return msgspec.json.decode(socket.last, type=_Terminal).response


async def read_lean(socket: Socket) -> _Response:
    """Receive a lean turn; its items come one by one."""
    output: list[msgspec.Raw] = []
    while "response" not in (frame := await socket.frame()) or frame["type"] == "response.created":
        if frame["type"] == "response.output_item.done":
            output.append(msgspec.json.decode(socket.last, type=_ItemDone).item)
    return _Response(frame["response"]["id"], output)


@asynccontextmanager
async def playing(turns: list[Planned], server: dict[str, object]) -> AsyncIterator[tuple[Player, list[list[bytes]]]]:
    """A client of a gateway with the script of these turns; the list is what the model saw, filled in at the end."""
    seen: list[list[bytes]] = []
    script = [ScriptedTurn(turn.steps) for turn in turns if turn.steps]
    async with running(script, server=server) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Http(gateway.url)) for _ in range(2)]
        sockets = {
            "socket": await stack.enter_async_context(Socket(gateway.url)),
            "lean socket": await stack.enter_async_context(Socket(gateway.url, lean=True)),
        }
        yield Player(clients[0], clients[1], sockets), seen
        seen += [list(request.history.items()) for request in gateway.upstream.requests]


async def compare(turns: list[Planned], server: dict[str, object]) -> None:
    """Play a conversation both ways, and compare all three histories of each turn."""
    told: list[list[bytes]] = []  # the whole input of each turn
    made: list[tuple[str, list[bytes]]] = []  # the id and the output of each turn
    async with playing(turns, server) as (player, seen_with_deltas):
        for turn in turns:
            items = [user_message(turn.text)] if turn.text is not None else list(turn.items)
            raw_input = join(items) if turn.text is None else json.dumps(turn.text).encode()
            parent, before = (None, []) if turn.parent is None else (made[turn.parent][0], told[turn.parent])
            before = before if turn.parent is None else [*before, *made[turn.parent][1]]
            told.append([*before, *items])
            response = await player.ask(turn, raw_input, store=turn.store, parent=parent)
            made.append(("", []) if response is None else (response.id, list(map(bytes, response.output))))
    async with playing(turns, {}) as (player, seen_with_replay):
        for turn, everything in zip(turns, told, strict=True):
            await player.ask(turn, join(everything), store=False, parent=None)
    expected = [everything for turn, everything in zip(turns, told, strict=True) if turn.steps]
    assert seen_with_deltas == expected
    assert seen_with_replay == expected


@settings(max_examples=examples(40))
@given(conversations())
def test_the_model_sees_the_same_whether_deltas_or_everything_was_sent(turns: list[Planned]) -> None:
    asyncio.run(compare(turns, {}))


@settings(max_examples=examples(20))
@given(conversations().filter(lambda turns: all(turn.store for turn in turns)))
def test_so_it_does_when_every_chain_has_to_be_read_from_the_store(turns: list[Planned]) -> None:
    with TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'segue.db'}"
        asyncio.run(compare(turns, {"store": store, "memory_budget_bytes": 1}))
