"""Message threads as a model: whatever clients do, the model reads what they have said and heard, or they are refused.

Clients of two tenants begin threads, continue any message of theirs, again and at once, lose replies, wait, ask through
another door, and meet a gateway that was started anew. What must happen follows from their own histories alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from segue.config import KeyConfig
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import Failure, usage
from segue.upstreams.interface import Batch, UpstreamRequest
from tests.faults.gateways import Local, listening
from tests.strategies import examples

Json = dict[str, Any]
Said = tuple[tuple[str, str], ...]
TENANTS = ("ann", "bob")
HELD_S = 300
ANCHORS = st.integers(0, 1_000)
WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=2)


class Model:
    """It answers `r1`, `r2`, … and notes what it read. A turn whose last word is `cut` breaks off after half of it."""

    models: Sequence[str] = ("*",)

    def __init__(self) -> None:
        self.read: list[Said] = []
        self.instructions: list[str] = []
        self.gate: asyncio.Event | None = None

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        items = [json.loads(item) for item in request.history.items()]
        said = tuple((item["role"], item["content"][0]["text"]) for item in items)
        self.read.append(said)
        self.instructions.append(request.settings.instructions_text)
        reply = f"r{len(self.read)}"
        writer = OutputWriter(request.response_id)
        yield writer.text(reply[:1])
        if said[-1:] == (("user", "cut"),):
            yield (Ended("failed", error=Failure("bored", "No.")),)
            return
        if self.gate is not None:
            await self.gate.wait()
        yield (*writer.text(reply[1:]), *writer.end_item(), Ended("completed", usage(1, 1)))


class Message:
    """A message that a client got: whose it is, what was said up to it, and how long it can be continued."""

    def __init__(self, tenant: str, ident: str, said: Said, *, until: float, life: int) -> None:
        self.tenant = tenant
        self.ident = ident
        self.said = said
        self.until = until
        self.life = life
        self.continued = False


class Threads(RuleBasedStateMachine):
    """The machine; subclasses set how threads are kept."""

    durable = False
    forks = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_000_000.0
        self.model = Model()
        self.messages: list[Message] = []
        self.life = 0

    @initialize()
    def begin(self) -> None:
        self.runner.run(self._open())

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()

    async def _open(self) -> None:
        keys = [KeyConfig(name, name, hashlib.sha256(name.encode()).hexdigest()) for name in TENANTS]
        server: Mapping[str, Any] = {
            "threads": "durable" if self.durable else "memory",
            "thread_forks": self.forks,
            "thread_s": HELD_S,
        }
        store = f"sqlite:///{self.folder.name}/segue.db" if self.durable else "memory:"
        self.local: Local = await self.stack.enter_async_context(
            listening(self.model, store=store, clock=lambda: self.now, keys=keys, **server)
        )
        self.session = await self.stack.enter_async_context(aiohttp.ClientSession(self.local.url))

    # --- what clients do ---------------------------------------------------------------------------------------------

    @rule(tenant=st.sampled_from(TENANTS), words=WORDS)
    def create(self, tenant: str, words: list[str]) -> None:
        said = tuple(("user", word) for word in words)
        self._expect_reply(tenant, said, self._ask(tenant, {"type": "create"}, said))

    @precondition(lambda self: self.messages)
    @rule(number=ANCHORS, words=WORDS, repeated=st.booleans())
    def go_on(self, number: int, words: list[str], *, repeated: bool) -> None:
        """Continue any message, the newest or one that has a successor."""
        message = self._message(number)
        new = tuple(("user", word) for word in words)
        status, reply = self._continue(message, new, repeated=repeated)
        if self._refused(message, status, reply):
            return
        self._expect_reply(message.tenant, message.said + new, (status, reply), after=message)

    @precondition(lambda self: self.messages)
    @rule(number=ANCHORS, streamed=st.booleans())
    def lose_a_reply(self, number: int, *, streamed: bool) -> None:
        """The model breaks off: nothing is kept, and the message stays free."""
        message = self._message(number)
        status, reply = self._continue(message, (("user", "cut"),), stream=streamed)
        if self._refused(message, status, reply):
            return
        assert (status == 200 and b"message_stop" not in reply) if streamed else status == 424
        self._use(message)

    @precondition(lambda self: self.messages)
    @rule(number=ANCHORS)
    def go_on_twice_at_once(self, number: int) -> None:
        message = self._message(number)
        new = (("user", "x"),)
        answers = self.runner.run(self._both(message, new))
        if any(self._refused(message, status, reply) for status, reply in answers):
            return
        statuses = sorted(status for status, _ in answers)
        assert statuses == [200, 400]
        (refused,) = (reply for status, reply in answers if status == 400)
        assert _code(refused) == "thread_continue_in_flight"
        (kept,) = (answer for answer in answers if answer[0] == 200)
        self._expect_reply(message.tenant, message.said + new, kept, after=message)

    @precondition(lambda self: self.messages)
    @rule(number=ANCHORS)
    def ask_for_what_is_anothers(self, number: int) -> None:
        message = self._message(number)
        (other,) = (tenant for tenant in TENANTS if tenant != message.tenant)
        for ident in (message.ident, "msg_" + message.ident[4:][::-1]):
            thread = {"type": "continue", "previous_message_id": ident}
            status, reply = self._ask(other, thread, (("user", "x"),))
            assert (status, _code(reply)) == (404, "thread_not_found")

    @precondition(lambda self: self.messages)
    @rule(number=ANCHORS)
    def change_what_the_thread_keeps(self, number: int) -> None:
        message = self._message(number)
        status, reply = self._continue(message, (("user", "x"),), system="other")
        if not self._refused(message, status, reply):
            assert (status, _code(reply)) == (400, "thread_fingerprint_mismatch")
            self._use(message)

    @precondition(lambda self: self.messages)
    @rule(number=ANCHORS)
    def go_on_through_another_door(self, number: int) -> None:
        message = self._message(number)
        body = {"model": "m", "input": "y", "previous_response_id": message.ident, "store": self.durable}
        status, reply = self.runner.run(self._post("/v1/responses", message.tenant, body))
        if not self._is_alive(message):
            assert (status, json.loads(reply)["error"]["code"]) == (400, "previous_response_not_found")
            return
        assert status == 200, reply
        assert self.model.read[-1] == (*message.said, ("user", "y"))
        message.continued = message.continued or self.durable  # the store tells: a thread may not fork from there
        if self.durable:  # what came of it is a message too, which keeps no system prompt
            ident = json.loads(reply)["id"]
            said = (*message.said, ("user", "y"), ("assistant", f"r{len(self.model.read)}"))
            thread = {"type": "continue", "previous_message_id": ident}
            status, reply = self._ask(message.tenant, thread, (("user", "z"),), system=None)
            assert status == 200, reply
            assert self.model.read[-1] == (*said, ("user", "z"))

    @rule(seconds=st.sampled_from([1, HELD_S - 1, HELD_S + 1]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def start_anew(self) -> None:
        async def restart() -> None:
            await self.stack.aclose()
            self.stack = AsyncExitStack()
            await self._open()

        self.runner.run(restart())
        self.life += 1

    # --- what must come of it ----------------------------------------------------------------------------------------

    def _message(self, number: int) -> Message:
        return self.messages[-1 - number % len(self.messages)]

    def _is_alive(self, message: Message) -> bool:
        return self.durable or (message.life == self.life and self.now < message.until)

    def _use(self, message: Message) -> None:
        message.until = self.now + HELD_S

    def _refused(self, message: Message, status: int, reply: bytes) -> bool:
        """Tell whether a message could not be continued, and check that it was told so."""
        if not self._is_alive(message):
            assert (status, _code(reply)) == (404, "thread_not_found")
            return True
        if message.continued and not self.forks:
            assert (status, _code(reply)) == (400, "thread_already_continued")
            return True
        return False

    def _expect_reply(
        self, tenant: str, said: Said, answer: tuple[int, bytes], *, after: Message | None = None
    ) -> None:
        status, reply = answer
        assert status == 200, reply
        assert (self.model.read[-1], self.model.instructions[-1]) == (said, "S")
        message = json.loads(reply)
        text = f"r{len(self.model.read)}"
        assert message["content"][0]["text"] == text
        if after is not None:
            self._use(after)
            after.continued, after.life = True, self.life
        kept = Message(tenant, message["id"], (*said, ("assistant", text)), until=self.now + HELD_S, life=self.life)
        self.messages.append(kept)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _continue(self, message: Message, new: Said, *, repeated: bool = False, **fields: object) -> tuple[int, bytes]:
        more = {"system": "S"} if repeated else {}
        thread = {"type": "continue", "previous_message_id": message.ident}
        return self._ask(message.tenant, thread, new, **{"system": None, **more, **fields})

    def _ask(self, tenant: str, thread: Json, said: Said, **fields: object) -> tuple[int, bytes]:
        return self.runner.run(self._post("/v1/messages", tenant, _body(thread, said, fields)))

    async def _both(self, message: Message, new: Said) -> list[tuple[int, bytes]]:
        self.model.gate = asyncio.Event()
        before = len(self.model.read)
        thread = {"type": "continue", "previous_message_id": message.ident}
        body = _body(thread, new, {"system": None})
        asked = [asyncio.create_task(self._post("/v1/messages", message.tenant, body)) for _ in range(2)]
        done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert len(self.model.read) <= before + 1
        assert done
        self.model.gate.set()
        self.model.gate = None
        return list(await asyncio.gather(*asked))

    async def _post(self, path: str, tenant: str, body: Json) -> tuple[int, bytes]:
        async with self.session.post(path, json=body, headers={"x-api-key": tenant}) as reply:
            return reply.status, await reply.read()


def _body(thread: Json, said: Said, fields: Mapping[str, object]) -> Json:
    messages = [{"role": role, "content": text} for role, text in said]
    return {"model": "m", "max_tokens": 9, "system": "S", "messages": messages, "thread": thread, **fields}


def _code(reply: bytes) -> str | None:
    error = json.loads(reply)["error"]
    return None if "details" not in error else str(error["details"]["error_code"])


class DurableThreads(Threads):
    durable = True


class StrictThreads(Threads):
    forks = False


class StrictDurableThreads(DurableThreads):
    forks = False


@pytest.mark.parametrize(
    "machine",
    [
        Threads,
        DurableThreads,
        pytest.param(StrictThreads, marks=pytest.mark.deep),
        pytest.param(StrictDurableThreads, marks=pytest.mark.deep),
    ],
)
def test_the_model_reads_what_its_clients_have_said_and_heard(machine: type[Threads]) -> None:
    """And whatever cannot be continued is answered with the code on which clients begin anew."""
    run_state_machine_as_test(machine, settings=settings(max_examples=examples(100), stateful_step_count=10))


@pytest.mark.deep
def test_no_message_that_is_not_held_is_ever_continued() -> None:
    """Of ten thousand."""

    async def ask() -> None:
        async with listening(Model()) as local, aiohttp.ClientSession(local.url) as session:
            for number in range(10_000):
                ident = "msg_" + hashlib.sha256(b"%d" % number).hexdigest()[:40]
                body = _body({"type": "continue", "previous_message_id": ident}, (("user", "x"),), {})
                async with session.post("/v1/messages", json=body) as reply:
                    assert (reply.status, _code(await reply.read())) == (404, "thread_not_found")

    asyncio.run(ask())
