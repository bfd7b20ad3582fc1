"""Whatever happens to responses, in whatever order: of those that are gone nothing is kept, and no answer is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.model import LoadedModel
from segue.engine.upstream import LocalUpstream
from segue.engine.worker import Worker
from segue.history.chains import Turn
from segue.protocol.ids import ResponseId
from segue.upstreams.interface import UpstreamRequest
from tests.engine.kept import Clock, look, prompts
from tests.engine.turns import Answer, ask, ask_alone, begin, cell_bytes, first_text, request, tiny
from tests.strategies import examples

pytestmark = [pytest.mark.local_engine, pytest.mark.untraced]

#: What happens next: a turn, one that is cancelled, responses that go, time, and an eviction.
Step: TypeAlias = Literal["turn", "cancelled", "gone", "time", "host", "disk"]
kinds: list[Step] = ["turn", "turn", "turn", "cancelled", "gone", "gone", "time", "host", "disk"]
steps = st.lists(
    st.tuples(
        st.sampled_from(kinds),
        st.integers(0, 5),
        st.sampled_from(["one", "two words", "many words " * 12]),
        st.sampled_from(["stored", "held", "unheld"]),
    ),
    min_size=1,
    max_size=9,
)


class Life:
    """Some responses of one tenant, as the gateway would know them, and what an engine may keep of them."""

    def __init__(self, upstream: LocalUpstream, clock: Clock, tenant: str) -> None:
        self.upstream = upstream
        self.clock = clock
        self.tenant = tenant
        self.answers: list[Answer] = []
        self.alive: dict[ResponseId, Turn] = {}
        self.expiring: dict[ResponseId, float] = {}  # and when they were last seen
        self.tokens: dict[ResponseId, tuple[int, ...]] = {}

    async def step(self, what: Step, pick: int, text: str, kind: str) -> None:
        match what:
            case "turn":
                await self.turn(self.request(pick, text, kind))
            case "cancelled":
                asked = self.request(pick, text, kind, max_output_tokens=None)
                stream = await begin(self.upstream, asked)
                await first_text(stream)
                await stream.aclose()
                self.expiring[asked.response_id] = self.clock.now
            case "gone":
                gone = [ident for at, ident in enumerate([*self.alive, *self.expiring]) if at % 3 == pick % 3]
                for ident in gone:
                    self.alive.pop(ident, None)
                    self.expiring.pop(ident, None)
                self.upstream.forget(self.tenant, gone)
            case "time":
                self.clock.now += 25
            case "host" | "disk":
                await self.upstream.evict(what)

    def request(self, pick: int, text: str, kind: str, **fields: Any) -> UpstreamRequest:  # noqa: ANN401 - as `request`
        parents = [turn for turn in self.alive.values() if turn.stored or kind != "stored"]
        parent = parents[pick % len(parents)] if parents and pick else None
        return request(text, parent, tenant=self.tenant, store=kind == "stored", held=kind != "unheld", **fields)

    async def turn(self, asked: UpstreamRequest) -> None:
        got = await ask(self.upstream, asked)
        self.answers.append(got)
        if asked.held:
            self.alive[got.turn.id] = got.turn
        else:
            self.expiring[got.turn.id] = self.clock.now

    def left(self, ident: ResponseId, tokens: Sequence[int]) -> None:
        self.tokens[ident] = tuple(tokens)

    async def go_on(self) -> None:
        """Whatever lives can be continued without being read again."""
        for got in list(self.answers):
            if got.turn.id in self.alive:
                asked = request("more", got.turn, tenant=self.tenant)
                await self.turn(asked)
                assert self.answers[-1].cached >= got.input_tokens

    async def check(self) -> None:
        """All that is kept is the beginning of what a living response, or one of a short while ago, has left."""
        everything = await look(self.upstream)
        self.expiring = {ident: at for ident, at in self.expiring.items() if self.clock.now < at + 60}
        allowed = [self.tokens[ident] for ident in (*self.alive, *self.expiring) if ident in self.tokens]
        for kept in everything:
            if kept.tenant == self.tenant:
                assert any(kept.tokens == tokens[: len(kept.tokens)] for tokens in allowed)
        assert prompts(self.upstream) & {got.turn.id for got in self.answers} == set(self.alive)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("roomy", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_what_is_kept_is_what_living_responses_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roomy: bool
) -> None:
    """For any turns, forks, deletions, evictions and pauses; and each answer is that of its conversation alone.

    Nothing else is kept; and where there is room for everything, and nothing is evicted, nothing of it is missing.
    """
    clock = Clock()
    current: list[Life] = []

    class Noting(Worker):
        def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - as it is
            super().__init__(*given, **{**named, "clock": clock})

        def _end(self, turn: Any, outcome: Any, *, broken: bool = False) -> None:  # noqa: ANN401 - as it is
            if current and turn.job.request.tenant == current[0].tenant:
                current[0].left(turn.job.request.response_id, turn.tokens)
            super()._end(turn, outcome, broken=broken)

    async def play(upstream: LocalUpstream, tenant: str, plan: list[tuple[Step, int, str, str]]) -> None:
        life = Life(upstream, clock, tenant)
        current[:] = [life]
        for step in plan:
            if not roomy or step[0] not in {"host", "disk"}:
                await life.step(*step)
                await life.check()
        if roomy:
            await life.go_on()
        for got in life.answers:
            alone = await ask_alone(upstream, got.turn, request("").settings)
            assert got.text == alone.text
        upstream.forget(tenant, list(life.alive))
        clock.now += 60
        assert await look(upstream) == [], "nothing of anybody is left"

    monkeypatch.setattr("segue.engine.engine.Worker", Noting)
    # or an answer could end before it is cancelled
    monkeypatch.setattr(LoadedModel, "is_end_of_answer", lambda model, token: False)
    with asyncio.Runner() as runner:
        place: dict[str, Any] = {"disk_bytes": 2**26, "spill_directory": tmp_path}
        room: dict[str, Any] = {"kv_bytes": 8192 * cell_bytes()} if roomy else {"host_bytes": 60_000, "slots": 6}
        model = tiny(context=512, idle_s=60, **place, **room)
        upstream = runner.run(model.__aenter__())
        numbers = iter(range(10**6))

        @settings(max_examples=examples(50))
        @given(steps)
        def hold(plan: list[tuple[Step, int, str, str]]) -> None:
            runner.run(play(upstream, f"tenant {next(numbers)}", plan))

        try:
            hold()
        finally:
            runner.run(model.__aexit__(None, None, None))
