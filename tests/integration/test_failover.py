"""Two servers of one group, of which one is killed while turns run: what had not begun its output is not lost, and the
other server is sent whole histories.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import msgspec
import pytest

from segue.config import Config, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.gateway.bootstrap import build_router
from segue.testing.response_events import said as answer
from segue.testing.responses_rules import OPENAI
from segue.testing.responses_server import ScriptedResponsesServer
from segue.upstreams.group import GroupState
from tests.faults.clients import Http, http, output_text
from tests.faults.gateways import until
from tests.integration.providers import model_server, says
from tests.thread_service import ThreadService, said
from tests.upstreams.provider import Exchange, Play, Provider, providing, refuses

Json = dict[str, Any]
#: What a model read: who said what.
Prompt = list[tuple[str, str]]


class Host:
    """A server that plays, and that can be killed and started again."""

    def __init__(self, play: Play) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._provider = Provider(play)
        self._connections: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Refuse connections, and break all that there are."""
        assert self._server is not None
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await asyncio.gather(*(closed.wait() for closed in self._connections.values()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed = self._connections[writer] = asyncio.Event()
        try:
            await self._provider.serve(reader, writer)
        finally:
            closed.set()
            del self._connections[writer]


class ModelHost(Host):
    """A server of the Chat Completions API, which answers "re " and the last message.

    A message with "slow" stops in the middle of its answer, one with "silent" before it.
    """

    def __init__(self) -> None:
        super().__init__(self._play)
        self.asked: list[Json] = []
        self.unfinished: set[str] = set()

    def texts(self) -> list[str]:
        """The last messages of its requests."""
        return [body["messages"][-1]["content"] for body in self.asked]

    async def _play(self, exchange: Exchange) -> None:
        body = json.loads(exchange.got.body)
        self.asked.append(body)
        text = body["messages"][-1]["content"]
        self.unfinished.add(text)
        if "silent" in text:
            await exchange.gone.wait()
        await exchange.head()
        await exchange.chunk(_chunk({"role": "assistant", "content": "re "}))
        if "slow" in text:
            await exchange.gone.wait()
        await exchange.chunk(_chunk({"content": text}) + _chunk({}, "stop") + b"data: [DONE]\n\n")
        await exchange.end()
        self.unfinished.discard(text)


def _chunk(delta: Json, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode()


class ThreadHost(Host):
    """A server of the Messages API with message threads, which answers "re " and the last message."""

    settings: ClassVar[Json] = {"dialect": "messages", "message_threads": True}

    def __init__(self) -> None:
        self.service = ThreadService(lambda prompt: [{"type": "text", "text": f"re {said(prompt)[-1][1]}"}])
        super().__init__(self.service.play)

    @property
    def prompts(self) -> list[Prompt]:
        """What its model read."""
        return [said(prompt) for prompt in self.service.prompts]

    @property
    def continued(self) -> int:
        """How many turns were sent only what was new."""
        return sum(kept.continued for kept in self.service.kept.values())


class SocketHost:
    """A server of the Responses API in WebSocket mode, likewise."""

    settings: ClassVar[Json] = {"dialect": "responses", "transport": "websocket"}

    def __init__(self) -> None:
        self.server = ScriptedResponsesServer(
            OPENAI, lambda history: [answer(f"re {_words(history[-1])}")], time.monotonic
        )

    async def start(self) -> None:
        await self.server.open()

    async def kill(self) -> None:
        """Refuse connections, and break all that there are."""
        await self.server.aclose()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    @property
    def prompts(self) -> list[Prompt]:
        """What its model read."""
        return [[(item["role"], _words(item)) for item in run.history] for run in self.server.executions]

    @property
    def continued(self) -> int:
        """How many turns were sent only what was new."""
        return sum(one.create.get("previous_response_id") is not None for one in self.server.creates)


def _words(item: Json) -> str:
    content: str | list[Json] = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


class Conversation:
    """A client's conversation, each turn with the id of the one before."""

    def __init__(self, client: Http, name: str) -> None:
        self.name = name
        self.said: list[str] = []
        self._client = client
        self._previous: str | None = None

    async def say(self, what: str = "go on") -> tuple[int, Json]:
        """Take a turn; one that was not completed changes nothing."""
        text = f"{self.name} {len(self.said)} {what}"
        status, body = await self._client.send(
            "POST", "/v1/responses", {"model": "m", "input": text, "previous_response_id": self._previous}
        )
        if status == 200 and body["status"] == "completed":
            assert output_text(body) == f"re {text}"
            self._previous = body["id"]
            self.said.append(text)
        return status, body

    async def go_on(self, turns: int) -> list[str]:
        """Take turns, each again if it fails; return the texts of those that failed."""
        failed = []
        while turns:
            before = len(self.said)
            await self.say(f"load {turns}")
            if len(self.said) == before:
                failed.append(f"{self.name} {before} load {turns}")
            turns -= len(self.said) - before
        return failed

    def is_whole_in(self, messages: list[Json]) -> bool:
        """Say whether a request had exactly what was said before its last message."""
        return self.is_whole([(message["role"], message["content"]) for message in messages])

    def is_whole(self, prompt: Prompt) -> bool:
        """Say the same of what a model read."""
        texts = self.said[: len(prompt) // 2]
        return prompt[:-1] == [one for text in texts for one in (("user", text), ("assistant", f"re {text}"))]


def _is_hit(host: ModelHost, asked: int, load: Sequence[asyncio.Task[list[str]]]) -> bool:
    return len(host.asked) > asked or all(task.done() for task in load)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def gateway(
    *hosts: ModelHost | ThreadHost | SocketHost,
    clock: Clock,
    **settings: object,
) -> AsyncIterator[str]:
    ups = [
        msgspec.convert(
            {
                "name": name,
                "dialect": "chat",
                "models": ["m"],
                "base_url": f"http://127.0.0.1:{host.port}/v1",
                "group": "hosts",
                **settings,
            },
            UpstreamConfig,
        )
        for name, host in zip("ab", hosts, strict=True)
    ]
    config = Config(server=ServerConfig(port=0, store="memory:"), upstream=ups)
    router = build_router(config)
    router.state = GroupState(clock)
    async with serving(config, router) as (_, url):
        yield url


async def meet(client: Http, count: int, prefix: str) -> list[Conversation]:
    conversations = [Conversation(client, f"{prefix}{number}") for number in range(count)]
    await asyncio.gather(*(one.say() for one in conversations))
    return conversations


@pytest.mark.parametrize("rerun", [False, True])
async def test_one_of_two_servers_is_killed_under_load(monkeypatch: pytest.MonkeyPatch, *, rerun: bool) -> None:
    """A turn that the dead one had got, and not answered, has an unknown outcome: it is run again only if it may be."""
    monkeypatch.setattr(
        "segue.http_client.connector._IDLE_CLOSE_S", 0.0
    )  # else it looks like a connection closed as idle
    a, b, clock = ModelHost(), ModelHost(), Clock()
    await a.start()
    await b.start()
    async with gateway(a, b, clock=clock, rerun=rerun) as url, http(url) as client:
        conversations = await meet(client, 24, "early")
        at_a = [one for one in conversations if one.said[0] in a.texts()]
        assert 2 <= len(at_a) < 24
        slow, silent, *others = [*at_a, *(one for one in conversations if one not in at_a)]
        stopped = [asyncio.create_task(slow.say("slow")), asyncio.create_task(silent.say("silent"))]
        await until(lambda: len(a.unfinished) == 2)
        load = [asyncio.create_task(one.go_on(4)) for one in others]
        await until(lambda: len(a.asked) > 16)
        await a.kill()
        got = set(a.unfinished)
        _, cut = await stopped[0]
        assert cut["error"]["code"] == "upstream_error", "its output had begun"
        if rerun:
            await until(lambda: any("silent" in text for text in b.texts()))
            stopped[1].cancel()  # there it is silent, too
        else:
            status, unanswered = await stopped[1]
            assert (status, unanswered["error"]["code"]) == (400, "upstream_unreachable")
            assert not any("silent" in text for text in b.texts())
        failed = [text for texts in await asyncio.gather(*load) for text in texts]
        assert set(failed) <= got, "nothing failed but what the dead server had got"
        for one in (slow, silent):
            await one.say("after all")
        by_name = {one.name: one for one in conversations}
        for body in (*a.asked, *b.asked):
            assert by_name[body["messages"][-1]["content"].split()[0]].is_whole_in(body["messages"])
        assert {len(one.said) for one in others} == {5}

        await a.start()
        clock.now += 100.0
        count = len(a.asked)
        while len(a.asked) == count:  # one turn tries it
            await meet(client, 1, "trial")
        count = len(a.asked)
        await meet(client, 24, "late")
        assert 1 < len(a.asked) - count < 24, "it gets its share again"
        assert (await at_a[0].say())[0] == 200
        assert at_a[0].said[-1] in b.texts(), "and what has moved stays where its prompt is cached"
    await a.kill()
    await b.kill()


@pytest.mark.parametrize("kind", [ThreadHost, SocketHost])
async def test_what_a_killed_server_held_is_sent_whole_to_the_other(
    monkeypatch: pytest.MonkeyPatch, kind: type[ThreadHost | SocketHost]
) -> None:
    """Each conversation goes on whole, with only what is new again after that; and no turn is paid for twice."""
    monkeypatch.setattr("segue.http_client.connector._IDLE_CLOSE_S", 0.0)
    a, b = kind(), kind()
    await a.start()
    await b.start()
    async with gateway(a, b, clock=Clock(), **kind.settings) as url, http(url) as client:
        conversations = await meet(client, 12, "talk")
        assert await asyncio.gather(*(one.go_on(1) for one in conversations)) == [[]] * 12
        assert (a.continued + b.continued, len(a.prompts) not in {0, 24}) == (12, True)
        asked = len(a.prompts)
        load = [asyncio.create_task(one.go_on(4)) for one in conversations]
        await until(lambda: len(a.prompts) > asked + 2)
        await a.kill()
        before = b.continued
        failed = Counter(text for texts in await asyncio.gather(*load) for text in texts)
        await asyncio.gather(*(one.go_on(2) for one in conversations))
        assert b.continued >= before + 24, "what has moved is held there, too"
    await b.kill()
    by_name = {one.name: one for one in conversations}
    read = [*a.prompts, *b.prompts]
    assert all(by_name[prompt[-1][1].split()[0]].is_whole(prompt) for prompt in read)
    assert {len(one.said) for one in conversations} == {8}
    runs = Counter(prompt[-1][1] for prompt in read)
    assert all(count <= 1 + failed[text] for text, count in runs.items())
    assert set(failed) <= {prompt[-1][1] for prompt in a.prompts}, "nothing failed but what the dead server had got"


async def test_what_passes_through_is_sent_to_the_other_under_its_own_name() -> None:
    """A request of the Messages API, which nothing translates; whichever of the two had it first."""
    overloaded = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    async with providing(refuses(529, overloaded)) as busy, model_server("messages", says("messages", "Hi.")) as free:
        ups = [
            UpstreamConfig(name="busy", dialect="messages", models=["m"], base_url=f"{busy.url}/v1", group="g"),
            UpstreamConfig(
                name="free",
                dialect="messages",
                models=["m"],
                model_as="other",
                base_url=free.url,
                group="g",
                backup=True,
            ),
        ]
        config = Config(server=ServerConfig(port=0, store="memory:"), upstream=ups)
        async with serving(config) as (_, url), http(url) as client:
            asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi", "x_odd": 1}]}
            status, answer = await client.send("POST", "/v1/messages", {**asked, "stream": False})
        assert (status, answer["content"][0]["text"]) == (200, "Hi.")
        assert [busy.got[0].json["model"], free.asked[0]["model"]] == ["m", "other"]
        assert busy.got[0].json["messages"] == free.asked[0]["messages"] == asked["messages"]


@pytest.mark.deep
@pytest.mark.parametrize("rerun", [False, True])
async def test_servers_that_come_and_go_break_no_conversation(monkeypatch: pytest.MonkeyPatch, *, rerun: bool) -> None:
    """One of them is always there. What fails is what a dead one had got, and with `rerun` only what had begun."""
    monkeypatch.setattr("segue.http_client.connector._IDLE_CLOSE_S", 0.0)
    a, b, clock = ModelHost(), ModelHost(), Clock()
    await a.start()
    await b.start()
    async with gateway(a, b, clock=clock, rerun=rerun) as url, http(url) as client:
        conversations = await meet(client, 24, "talk")
        for number in range(20):
            victim = (a, b)[number % 2]
            load = [asyncio.create_task(one.go_on(4)) for one in conversations]
            await until(partial(_is_hit, victim, len(victim.asked), load))
            await victim.kill()
            got = set(victim.unfinished)
            failed = [text for texts in await asyncio.gather(*load) for text in texts]
            assert set(failed) <= got
            victim.unfinished.clear()
            await victim.start()
            clock.now += 100.0
        assert {len(one.said) for one in conversations} == {1 + 20 * 4}
        by_name = {one.name: one for one in conversations}
        for body in (*a.asked, *b.asked):
            assert by_name[body["messages"][-1]["content"].split()[0]].is_whole_in(body["messages"])
    await a.kill()
    await b.kill()
