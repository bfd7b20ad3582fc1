"""Whatever happens between an upstream and its provider, the model reads the client's history, and no turn runs twice.

The provider is a double of a Responses server that goes wrong as each step says: sockets cut at any phase, responses
that are not known any more, limits of age, restarts, refusals and failures; beside them forks, turns at once and turns
that are cancelled.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from segue.protocol.items import user_message
from segue.protocol.problems import Refused
from segue.testing.responses_faults import AgeLimit, Cut, ErrorAt, FailAt, Fault, HoldAt, RestartAt
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, CreateRefusal, ServerRules, counting
from segue.testing.responses_server import responding
from segue.upstreams.socket_lanes import IdleLimits
from segue.upstreams.websocket_trust import WebSocketTrust
from tests.strategies import examples
from tests.upstreams.socket_turns import Conversation, Json, connected, known

T = TypeVar("T")

#: How long a step may take that takes milliseconds. Only a failing test waits that long.
PATIENCE_S = 20.0

NOT_FOUND = CreateRefusal(
    status=400, code="previous_response_not_found", message="Not found.", param="previous_response_id"
)
BUSY = CreateRefusal(status=429, code="rate_limit_exceeded", message="Wait.", retry_after_s=0)
BAD = CreateRefusal(status=400, code="invalid_value", message="No.", param="input")
BROKEN = CreateRefusal(status=500, code="server_error", message="Oh.")

phases = st.sampled_from([0, 1, 2, 4, 6])
close_codes = st.sampled_from([None, 1000, 1001, 1009, 1011, 4402])
faults: st.SearchStrategy[Fault | None] = st.one_of(
    st.none(),
    st.just(Cut(at="create")),
    st.builds(lambda at, code: Cut(at="events", events=at, close_code=code), phases, close_codes),
    st.builds(lambda at, code: Cut(at=at, close_code=code), st.sampled_from(["terminal", "end"]), close_codes),
    st.builds(lambda at, stored: RestartAt(events=at, keeps_stored=stored), phases, st.booleans()),
    st.builds(
        lambda refusal, flat: ErrorAt(refusal=refusal, flat=flat),
        st.sampled_from([NOT_FOUND, BUSY, BAD, BROKEN]),
        st.booleans(),
    ),
    st.builds(lambda at: ErrorAt(refusal=BROKEN, events=at), st.sampled_from([4, 6])),
    st.builds(lambda at: FailAt(events=at), st.sampled_from([4, 6])),
    st.just(AgeLimit()),
)


class Faults(RuleBasedStateMachine):
    """Conversations at one upstream; what each of their turns must ask the model is noted by the turn's own text."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.asked: dict[str, list[Json]] = {}
        self.chains: list[Conversation] = []

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(step, PATIENCE_S))

    @initialize(rules=st.sampled_from([(OPENAI, 1), (OPENAI, 2), (OPENAI, 8), (OPEN_RESPONSES, 1)]))
    def begin(self, rules: tuple[ServerRules, int]) -> None:
        """Each with so many lanes on a socket."""
        self.lanes = rules[1]
        self.server = self.run(self.stack.enter_async_context(responding(rules[0], model=counting)))
        limits = IdleLimits(lanes=self.lanes)
        self.one = self.run(self.stack.enter_async_context(connected(self.server, limits=limits)))
        self.chains = [Conversation(self.one), Conversation(self.one, "bob")]

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    def chain(self, place: int) -> Conversation:
        return self.chains[place % len(self.chains)]

    def message(self, chain: Conversation) -> bytes:
        """The next turn's only item, by which its run is known; what the model must be asked is noted."""
        text = f"turn {len(self.asked)}"
        item = user_message(text)
        self.asked[text] = [*chain.items, *known([item])]
        return item

    async def turn(self, chain: Conversation) -> str:
        """Run a turn; return how it ended. Any other error than a refusal is a mistake."""
        try:
            return (await chain.run(self.message(chain))).status
        except Refused:
            return "refused"

    @rule(place=st.integers(0, 5), fault=faults)
    def turn_with_fault(self, place: int, fault: Fault | None) -> None:
        """After the fault, the conversation goes on as if there had been none."""
        chain = self.chain(place)
        self.server.plan(fault)
        self.run(self.turn(chain))
        while self.server.waits:  # what the turn did not meet, others need not either
            self.server._faults.clear()  # noqa: SLF001 - the double forgets only what it was asked

        self.run(self.go_on(chain))

    async def go_on(self, chain: Conversation) -> None:
        assert await self.turn(chain) == "completed"

    @rule(place=st.integers(0, 5))
    def fork(self, place: int) -> None:
        if len(self.chains) < 6:
            self.chains.append(self.chain(place).fork())

    @rule(places=st.lists(st.integers(0, 5), min_size=2, max_size=3))
    def turns_at_once(self, places: Sequence[int]) -> None:
        """Also of one conversation: then one of them is a fork."""
        chains = [self.chain(place).fork() for place in places]

        async def run_all() -> list[str]:
            return await asyncio.gather(*(self.turn(chain) for chain in chains))

        assert set(self.run(run_all())) == {"completed"}
        for place, chain in zip(places, chains, strict=True):
            self.chains[place % len(self.chains)] = chain

    @rule(place=st.integers(0, 5), events=phases)
    def cancelled_turn(self, place: int, events: int) -> None:
        """Without lanes it is stopped with its socket; in a lane it runs to its end, and nobody reads it."""
        chain = self.chain(place)

        async def leave() -> None:
            begun, gate = len(self.server.creates), asyncio.Event()
            self.server.plan(HoldAt(gate=gate, events=events))
            running = asyncio.create_task(self.turn(chain))
            await self.server.seen(begun + 1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if self.lanes > 1:
                await self.go_on(chain)
                gate.set()
                return
            await self.server.abandoned(sum(run.state == "abandoned" for run in self.server.executions))

        self.run(leave())
        self.run(self.go_on(chain))

    @rule(how=st.sampled_from(["cut", "age", "restart"]))
    def between_turns(self, how: str) -> None:
        """Idle sockets end, and the upstream may or may not have seen it when the next turn comes."""

        async def happen() -> None:
            if how == "age":
                await self.server.age_out()
            elif how == "cut":
                self.server.cut()
            else:
                self.server.restart(keeps_stored=False)
            while self.one.sockets.idle:  # noqa: ASYNC110 - the end of a socket tells nobody
                await asyncio.sleep(0)

        self.run(happen())

    @rule(place=st.integers(0, 5))
    def the_provider_forgets(self, place: int) -> None:
        """It evicts whatever it holds of the chain: the upstream is told so in the next turn, and replays."""
        chain = self.chain(place)
        for kept in self.server.executions[-3:]:
            self.server.forget(kept.response_id)
        self.run(self.go_on(chain))

    @rule()
    def time_passes(self) -> None:
        """Sockets that broke again and again are tried again."""
        self.one._trust = WebSocketTrust()  # noqa: SLF001 - it would take minutes

    @invariant()
    def the_model_reads_the_history_of_its_client_and_once(self) -> None:
        if not self.chains:
            return
        runs: Counter[str] = Counter()
        for execution in self.server.executions:
            text = execution.history[-1]["content"][0]["text"]
            assert list(execution.history) == self.asked[text]
            runs[text] += execution.state != "failed"
        assert all(count <= 1 for count in runs.values())


TestFaults = pytest.mark.untraced(Faults.TestCase)
TestFaults.settings = settings(max_examples=examples(150), stateful_step_count=12, deadline=None)
