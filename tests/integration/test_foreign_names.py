"""Nobody learns from an answer, nor from its time, whether somebody else has what a name stands for.

A name of another tenant's and one that nobody has take the same way through the gateway, line by line, ask the store
the same, and are answered with the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean, median
from types import FrameType
from typing import Any, NamedTuple, Self

import aiohttp
import pytest

import segue
from segue.config import KeyConfig
from segue.stores.interface import Store
from segue.stores.memory import MemoryStore
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.faults.gateways import listening

Json = dict[str, Any]

SOURCES = str(Path(segue.__file__).parent)
OWNER, STRANGER = "ann", "bob"
TURN: Json = {"model": MODEL, "input": "Hello."}
MESSAGE: Json = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello."}]}
#: Where time is compared: how often each name is asked for, how near medians are, and how often noise may exceed that.
ROUNDS, NOISE, TRIES = 100, 0.1, 5
#: Everything that the store may be asked for a name.
LOOK_UPS = (
    *("chain", "record", "find_item", "is_continued", "delete", "conversation", "conversation_chain"),
    "list_responses",
    *("move_conversation", "describe_conversation", "delete_conversation", "append", "append_to_conversation"),
)


class Names(NamedTuple):
    """The owner's: a stored response, one that is kept, an item, messages of two threads, and a conversation."""

    response: str
    kept: str
    item: str
    durable: str
    held: str
    conversation: str


class Asked(NamedTuple):
    """What a stranger asks for by a name: method, path, and body."""

    method: str
    path: str
    body: Json | None = None


ITEM: Json = {"type": "message", "role": "user", "content": "x"}
RESPONSES: Mapping[str, Callable[[str], Asked]] = {
    "retrieve": lambda name: Asked("GET", f"/v1/responses/{name}"),
    "resume": lambda name: Asked("GET", f"/v1/responses/{name}?stream=true"),
    "delete": lambda name: Asked("DELETE", f"/v1/responses/{name}"),
    "cancel": lambda name: Asked("POST", f"/v1/responses/{name}/cancel"),
    "list the items of": lambda name: Asked("GET", f"/v1/responses/{name}/input_items"),
    "list behind": lambda name: Asked("GET", f"/v1/responses?after={name}"),
    "list before": lambda name: Asked("GET", f"/v1/responses?before={name}&order=asc"),
    "continue": lambda name: Asked("POST", "/v1/responses", {**TURN, "previous_response_id": name}),
    "continue unstored": lambda name: Asked(
        "POST", "/v1/responses", {**TURN, "previous_response_id": name, "store": False}
    ),
    "continue a stream from": lambda name: Asked(
        "POST", "/v1/responses", {**TURN, "previous_response_id": name, "stream": True}
    ),
    "continue in the background": lambda name: Asked(
        "POST", "/v1/responses", {**TURN, "previous_response_id": name, "background": True}
    ),
    "count behind": lambda name: Asked("POST", "/v1/responses/input_tokens", {**TURN, "previous_response_id": name}),
    "compact": lambda name: Asked("POST", "/v1/responses/compact", {"model": MODEL, "previous_response_id": name}),
    "export": lambda name: Asked("GET", f"/segue/conversations/{name}"),
    "export as a request": lambda name: Asked("GET", f"/segue/conversations/{name}?as=chat"),
}
THREADS: Mapping[str, Callable[[str], Asked]] = {
    "continue the thread of": lambda name: Asked("POST", "/v1/messages", _thread(name)),
    "stream the thread of": lambda name: Asked("POST", "/v1/messages", {**_thread(name), "stream": True}),
    "count the thread of": lambda name: Asked("POST", "/v1/messages/count_tokens", _thread(name)),
}
CONVERSATIONS: Mapping[str, Callable[[str], Asked]] = {
    "retrieve": lambda name: Asked("GET", f"/v1/conversations/{name}"),
    "describe": lambda name: Asked("POST", f"/v1/conversations/{name}", {"metadata": {}}),
    "delete": lambda name: Asked("DELETE", f"/v1/conversations/{name}"),
    "list": lambda name: Asked("GET", f"/v1/conversations/{name}/items"),
    "add to": lambda name: Asked("POST", f"/v1/conversations/{name}/items", {"items": [ITEM]}),
    "look at an item of": lambda name: Asked("GET", f"/v1/conversations/{name}/items/msg_1"),
    "take an item out of": lambda name: Asked("DELETE", f"/v1/conversations/{name}/items/msg_1"),
    "take a turn in": lambda name: Asked("POST", "/v1/responses", {**TURN, "conversation": name}),
    "stream a turn in": lambda name: Asked("POST", "/v1/responses", {**TURN, "conversation": name, "stream": True}),
    "count in": lambda name: Asked("POST", "/v1/responses/input_tokens", {**TURN, "conversation": name}),
    "export": lambda name: Asked("GET", f"/segue/conversations/{name}"),
    "export as a request": lambda name: Asked("GET", f"/segue/conversations/{name}?as=messages"),
}
ITEMS: Mapping[str, Callable[[str], Asked]] = {
    "refer to": lambda name: Asked("POST", "/v1/responses", {**TURN, "input": [_reference(name)]}),
    "count with": lambda name: Asked("POST", "/v1/responses/input_tokens", {**TURN, "input": [_reference(name)]}),
    "compact with": lambda name: Asked("POST", "/v1/responses/compact", {**TURN, "input": [_reference(name)]}),
    "begin a conversation with": lambda name: Asked("POST", "/v1/conversations", {"items": [_reference(name)]}),
}
CASES: list[tuple[str, str, Callable[[str], Asked]]] = [
    *((kind, verb, ask) for kind in ("response", "kept", "durable", "held") for verb, ask in RESPONSES.items()),
    *((kind, verb, ask) for kind in ("durable", "held", "response") for verb, ask in THREADS.items()),
    *(("conversation", verb, ask) for verb, ask in CONVERSATIONS.items()),
    *(("item", verb, ask) for verb, ask in ITEMS.items()),
]


def _reference(name: str) -> Json:
    return {"type": "item_reference", "id": name}


def _thread(name: str) -> Json:
    return {**MESSAGE, "thread": {"type": "continue", "previous_message_id": name}}


class Way:
    """The lines of segue that run within a block, in order, but for those of tasks that a gateway always has."""

    def __init__(self, others: Collection[asyncio.Task[Any]]) -> None:
        self.lines: list[tuple[str, int]] = []
        self._others = others

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - a trace function
        own = frame.f_code.co_filename.startswith(SOURCES) and asyncio.current_task() not in self._others
        return self._step if own else None

    def _step(self, frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - as above
        if event == "line":
            self.lines.append((frame.f_code.co_qualname, frame.f_lineno))
        return self._step


class Stranger:
    """A client of another tenant, and what the store is asked meanwhile."""

    def __init__(self, session: aiohttp.ClientSession, calls: list[tuple[object, ...]]) -> None:
        self._session = session
        self._calls = calls

    async def ask(self, asked: Asked, name: str) -> tuple[object, ...]:
        """Ask, and return the status, the answer and the calls of the store, without the name."""
        self._calls.clear()
        async with self._session.request(asked.method, asked.path, json=asked.body) as reply:
            body, own = await reply.read(), {"Date", "request-id", "x-request-id"}
            headers = {key: value for key, value in reply.headers.items() if key not in own}
        text = body.decode().replace(reply.headers.get("request-id", "-"), "?")
        return reply.status, headers, nameless(text, name), self._noted()

    async def say(self, socket: aiohttp.ClientWebSocketResponse, message: Json, name: str) -> tuple[object, ...]:
        """Ask over a WebSocket, in the same way."""
        self._calls.clear()
        await socket.send_json(message)
        return nameless(await socket.receive_str(), name), self._noted()

    def _noted(self) -> list[tuple[object, ...]]:
        ids = ("resp_", "msg_", "conv_")
        return [
            tuple("?" if isinstance(part, str) and part.startswith(ids) else part for part in call)
            for call in self._calls
        ]


def nameless(text: str, name: str) -> str:
    """A text without a name, also as that of a response."""
    return text.replace(name, "?").replace(f"resp_{name[4:]}", "?")


def noted(store: MemoryStore, calls: list[tuple[object, ...]]) -> MemoryStore:
    """Note every look-up of a store."""

    def noting(name: str, inner: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def call(*given: object) -> object:
            calls.append((name, *(part if isinstance(part, str) else type(part) for part in given)))
            return await inner(*given)

        return call

    for name in LOOK_UPS:
        setattr(store, name, noting(name, getattr(store, name)))
    return store


class Standing(NamedTuple):
    """A gateway where the owner has something of everything, and the sessions of both."""

    names: Names
    stranger: Stranger
    sessions: Mapping[str, aiohttp.ClientSession]
    others: Collection[asyncio.Task[Any]]
    """The tasks that have nothing to do with a request."""

    async def same_way(self, ask: Callable[[str], Awaitable[tuple[object, ...]]], *names: str) -> tuple[object, ...]:
        """Ask for each name, and return the answer: it must be one for all, and they must have taken one way."""
        answers, ways = [], []
        for name in names:
            with Way(self.others) as way:
                answers.append(await ask(name))
            ways.append(way.lines)
        assert [answer for answer in answers if answer != answers[0]] == []
        assert len(ways[0]) > 50
        assert all(way == ways[0] for way in ways)
        return answers[0]


@asynccontextmanager
async def standing(store: Store | str | None = None) -> AsyncIterator[Standing]:
    calls: list[tuple[object, ...]] = []
    keys = [KeyConfig(name, name, hashlib.sha256(name.encode()).hexdigest()) for name in (OWNER, STRANGER)]
    async with (
        listening(ScriptedUpstream(), store=store or noted(MemoryStore(), calls), keys=keys) as local,
        aiohttp.ClientSession(local.url, headers={"Authorization": f"Bearer {OWNER}"}) as owner,
        aiohttp.ClientSession(local.url, headers={"Authorization": f"Bearer {STRANGER}"}) as stranger,
    ):
        others = asyncio.all_tasks()

        async def post(path: str, body: Json) -> Json:
            async with owner.post(path, json=body) as reply:
                assert reply.status == 200, await reply.text()
                return dict(json.loads(await reply.read()))

        stored = await post("/v1/responses", TURN)
        kept = await post("/v1/responses", {**TURN, "background": True})
        held = await post("/v1/messages", {**MESSAGE, "thread": {"type": "create"}})
        conversation = await post("/v1/conversations", {"items": [ITEM]})
        names = Names(
            stored["id"],
            kept["id"],
            stored["output"][0]["id"],
            f"msg_{stored['id'][5:]}",
            held["id"],
            conversation["id"],
        )
        yield Standing(names, Stranger(stranger, calls), {OWNER: owner, STRANGER: stranger}, others)


def unknown(name: str) -> str:
    """A name of the same form that nobody has."""
    head, _, digits = name.rpartition("_")
    return f"{head}_{digits.translate(str.maketrans('0123456789abcdef', '123456789abcdef0'))}"


async def test_a_name_of_anothers_takes_the_way_of_one_that_nobody_has() -> None:
    """Each is asked for before, since some lines run once for a connection."""
    async with standing() as here:
        stranger = here.stranger
        for kind, verb, ask in CASES:
            name = getattr(here.names, kind)
            for known in (name, unknown(name)):
                await stranger.ask(ask(known), known)

            async def asking(known: str, ask: Callable[[str], Asked] = ask) -> tuple[object, ...]:
                return await stranger.ask(ask(known), known)

            status, *_rest = await here.same_way(asking, name, unknown(name))
            assert status in {400, 404, 410}, (kind, verb)


async def test_over_a_websocket_likewise() -> None:
    async with standing() as here, here.sessions[STRANGER].ws_connect("/v1/responses") as socket:
        for fields in ({}, {"store": False}):
            for name in (here.names.response, here.names.durable, here.names.held):

                async def ask(known: str, fields: Json = fields) -> tuple[object, ...]:
                    message = {"type": "response.create", **TURN, **fields, "previous_response_id": known}
                    return await here.stranger.say(socket, message, known)

                await ask(name)
                answer, _ = await here.same_way(ask, name, unknown(name), name)
                assert "previous_response_not_found" in str(answer)


async def test_a_name_without_the_form_of_one_takes_another_way() -> None:
    """So a difference would be seen."""
    async with standing() as here:

        async def ask(name: str) -> tuple[object, ...]:
            return await here.stranger.ask(RESPONSES["retrieve"](name), name)

        with pytest.raises(AssertionError):
            await here.same_way(ask, here.names.response, "resp_0")


async def test_a_file_with_anothers_names_is_taken_in_like_any() -> None:
    async with standing() as here:
        names = here.names
        async with here.sessions[OWNER].get(f"/segue/conversations/{names.response}") as reply:
            file = await reply.text()
        assert names.response in file
        others = [names.response]
        for _ in range(3):
            others.append(unknown(others[-1]))
        foreign, *unheard = others

        async def take_in(name: str) -> tuple[object, ...]:
            body = json.loads(file.replace(names.response[5:], name[5:]))
            return await here.stranger.ask(Asked("POST", "/segue/conversations", body), name)

        await take_in(unheard.pop())
        status, *_rest = await here.same_way(take_in, *unheard, foreign)
        assert status == 200


async def relative_time(stranger: Stranger, ask: Callable[[str], Asked], names: Sequence[str]) -> float:
    """Return the median time of the first name by the mean of the others' medians; the order is drawn each time.

    It is time of the processor, of which other programs on the machine take nothing.
    """
    times_s: dict[str, list[float]] = {name: [] for name in names}
    drawn = random.Random(1)
    for _ in range(ROUNDS):
        for name in drawn.sample(names, len(names)):
            begun_s = time.process_time()
            await stranger.ask(ask(name), name)
            times_s[name].append(time.process_time() - begun_s)
    foreign_s, *unheard_s = map(median, times_s.values())
    return foreign_s / fmean(unheard_s)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("kind", "asks"),
    [("response", RESPONSES), ("durable", THREADS), ("held", THREADS), ("conversation", CONVERSATIONS)],
)
async def test_the_time_of_an_answer_tells_nothing(
    tmp_path: Path, kind: str, asks: Mapping[str, Callable[[str], Asked]]
) -> None:
    """From a file. What the machine does meanwhile differs each time; what the gateway does would not."""
    async with standing(f"sqlite:///{tmp_path}/segue.db") as here:
        name = getattr(here.names, kind)
        known = (name, unknown(name), unknown(unknown(name)))
        for verb, ask in asks.items():
            tried = [await relative_time(here.stranger, ask, known)]
            while len(tried) < TRIES and abs(tried[-1] - 1) > NOISE:
                tried.append(await relative_time(here.stranger, ask, known))
            assert abs(tried[-1] - 1) <= NOISE, (verb, tried)
