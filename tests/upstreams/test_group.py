"""A group sends a turn to one of its upstreams, and to another one only if nothing was generated."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from itertools import count

import pytest
from msgspec.structs import replace

from segue.history.chains import History, Turn
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, chain_tag, new_response_id
from segue.protocol.problems import Code, Problem, Refused, not_counted
from segue.protocol.responses import Failure, Usage, usage
from segue.upstreams.circuit_breaker import BreakerPolicy
from segue.upstreams.group import GroupState, Member, UpstreamGroup
from segue.upstreams.instance_health import InstanceHealth
from segue.upstreams.interface import Batch, UpstreamFailed, UpstreamRequest
from segue.upstreams.retries import FailedAttempt
from tests.upstreams.http_turns import HI, request

SAID = Event("response.output_text.delta", b"{}", 3)
DONE = Ended("completed")
BROKEN = Ended("failed", error=Failure("upstream_timeout", "silent"))
OK: Sequence[Batch] = ((), (SAID,), (DONE,))


def refused(code: Code = "upstream_error", *, elsewhere: bool = True, retry_after_s: float | None = None) -> Refused:
    problem = Problem(code, code, retry_after_s=retry_after_s)
    return UpstreamFailed(FailedAttempt(problem, elsewhere=elsewhere, unhealthy=True))


class Played:
    """An upstream that plays batches and errors, the last play for ever, and keeps what it was asked."""

    models = ("m",)

    def __init__(self, *plays: Sequence[Batch | Refused]) -> None:
        self.plays = list(plays)
        self.asked: list[UpstreamRequest] = []
        self.closed = 0

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        self.asked.append(request)
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        try:
            for step in play:
                if isinstance(step, Refused):
                    raise step
                yield step
        finally:
            self.closed += 1


class Counted(Played):
    """One that counts and prefills, or refuses to."""

    def __init__(self, *, tokens: int | Refused = 7, place: bool = True) -> None:
        super().__init__(OK)
        self._tokens, self._place = tokens, place

    def has_place(self) -> bool:
        return self._place

    async def count_input(self, request: UpstreamRequest) -> int:
        self.asked.append(request)
        if isinstance(self._tokens, Refused):
            raise self._tokens
        return self._tokens

    async def prefill(self, request: UpstreamRequest) -> Usage:
        return usage(await self.count_input(request), 0)


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def group(*upstreams: Played, clock: Clock | None = None) -> UpstreamGroup:
    """Return a group of a, b, …, of which all but the first are backups, so that the order is known."""
    state = GroupState(clock or Clock(), InstanceHealth(BreakerPolicy(failures=2, first_open_s=10.0)))
    names = "abc"[: len(upstreams)]
    return UpstreamGroup("g", [Member(n, one, backup=n != "a") for n, one in zip(names, upstreams, strict=True)], state)


async def run(of: UpstreamGroup, asked: UpstreamRequest | None = None) -> list[Event | Ended]:
    return [one async for batch in of.stream(asked or request()) for one in batch]


async def problem_of(of: UpstreamGroup) -> Problem:
    with pytest.raises(Refused) as caught:
        await run(of)
    return caught.value.problem


async def test_the_first_that_can_runs_a_turn() -> None:
    a, b = Played(OK), Played(OK)
    assert await run(group(a, b)) == [SAID, DONE]
    assert ([one.standby for one in a.asked], b.asked, a.closed) == ([True], [], 1)


@pytest.mark.parametrize("begun", [(), ((),)], ids=["before the head", "after the head"])
async def test_a_turn_that_fails_before_its_output_is_run_by_the_next(
    begun: Sequence[Batch], caplog: pytest.LogCaptureFixture
) -> None:
    """Which is the last, and so makes more attempts itself; each is given its own name for the model."""
    a, b = Played((*begun, refused())), Played(OK)
    one = group(a, b)
    one.members = (one.members[0], replace(one.members[1], model_as="other"))
    with caplog.at_level(logging.WARNING, "segue.upstreams"):
        assert await run(one) == [SAID, DONE]
    assert [(asked.model, asked.standby) for asked in (*a.asked, *b.asked)] == [("m", True), ("other", False)]
    assert b.asked[0].notes.tried == ["a", "b"]
    assert (a.closed, b.closed) == (1, 1)
    assert [record.getMessage().split(" response_id")[0] for record in caplog.records] == [
        "action=failover group=g upstream=a"
    ]


async def test_a_turn_whose_outcome_is_unknown_is_not_sent_to_another() -> None:
    a, b = Played((refused("upstream_timeout", elsewhere=False),)), Played(OK)
    assert (await problem_of(group(a, b))).code == "upstream_timeout"
    assert b.asked == []


async def test_a_turn_that_fails_after_its_output_is_not_sent_to_another() -> None:
    for end in ((BROKEN,), refused()):
        a, b = Played(((), (SAID,), end)), Played(OK)
        try:
            assert (await run(group(a, b)))[-1] == BROKEN
        except Refused as error:
            assert error.problem.code == "upstream_error"  # noqa: PT017 - one of two ways
        assert b.asked == []


@pytest.mark.parametrize(("code", "asked"), [("server_overloaded", 1), ("invalid_value", 0)])
async def test_a_queue_of_ours_that_is_full_is_no_reason_to_refuse_a_turn(code: Code, asked: int) -> None:
    """What no upstream would take is."""
    b = Played(OK)
    one = group(Played((Refused(Problem(code, "no")),)), b)
    if asked:
        await run(one)
    else:
        assert (await problem_of(one)).code == code
    assert len(b.asked) == asked


async def test_the_last_failure_is_told_if_all_fail() -> None:
    assert (await problem_of(group(Played((refused(),)), Played((refused("upstream_unreachable"),))))).code == (
        "upstream_unreachable"
    )


async def test_an_upstream_that_is_out_is_asked_again_when_its_time_is_over() -> None:
    """By one turn. Its conversations come back with the next of their turns, unless they have moved."""
    clock = Clock()
    a, b = Played((refused(),)), Played(OK)
    one = group(a, b, clock=clock)
    for _ in range(4):
        await run(one, new())
    assert (len(a.asked), len(b.asked)) == (2, 4)
    a.plays, clock.now = [OK], 10.0
    for _ in range(3):
        await run(one, new())
    assert (len(a.asked), len(b.asked)) == (5, 4)


async def test_an_upstream_that_breaks_answers_off_is_taken_out() -> None:
    """Whether the answer has begun or not; a failure of the request alone is none of it."""
    for end, times in (((SAID,), (BROKEN,)), 2), (((BROKEN,),), 2), (((Ended("incomplete"),),), 4):
        a, b = Played(((), *end)), Played(OK)
        one = group(a, b)
        for _ in range(4):
            await run(one, new())
        assert (len(a.asked), len(b.asked)) == (times, 4 - times)
    rejected = Ended("failed", error=Failure("upstream_rejected", "no"))
    a = Played(((), (rejected,)))
    one = group(a, Played(OK))
    for _ in range(4):
        await run(one, new())
    assert len(a.asked) == 4


async def test_the_only_one_in_use_makes_its_own_attempts_before_what_is_out_is_asked() -> None:
    a, b = Played((refused(),)), Played(OK)
    one = group(a, b)
    for _ in range(2):
        await run(one, new())
    a.plays, b.plays = [OK], [(refused(),)]
    assert await run(one, new()) == [SAID, DONE]
    assert [asked.standby for asked in (b.asked[-1], a.asked[-1])] == [False, False]


async def test_all_that_are_out_are_asked_all_the_same() -> None:
    """Nothing is lost by it."""
    a, b = Played((refused(),)), Played((refused(),))
    one = group(a, b)
    for _ in range(4):
        await problem_of(one)
    assert (len(a.asked), len(b.asked)) == (4, 4)


async def test_an_upstream_that_asked_for_time_gets_it() -> None:
    """If all have, clients are told how long the shortest is."""
    clock = Clock()
    a, b = Played((refused(retry_after_s=20.0),)), Played(OK, (refused(retry_after_s=9.0),), OK)
    one = group(a, b, clock=clock)
    await run(one)
    assert (await problem_of(one)).retry_after_s == 9.0
    clock.now = 8.0
    problem = await problem_of(one)
    assert (problem.code, problem.retry_after_s) == ("server_overloaded", 1.0)
    assert (len(a.asked), len(b.asked)) == (1, 2)
    clock.now = 9.0
    await run(one)
    assert (len(a.asked), len(b.asked)) == (1, 3)


_NUMBERS = count()


def new() -> UpstreamRequest:
    """Return the first turn of a conversation of its own."""
    entropy = next(_NUMBERS).to_bytes(4, "big") + bytes(ENTROPY_BYTES - 4)
    return replace(request(), response_id=new_response_id(entropy))


def next_turn(before: UpstreamRequest) -> UpstreamRequest:
    """Return the turn that continues one."""
    parent = Turn(
        id=before.response_id,
        parent=before.history.parent,
        input=before.history.input,
        output=(),
        calls=frozenset(),
        stored=True,
    )
    ident = new_response_id(bytes(ENTROPY_BYTES), before.response_id)
    return replace(before, response_id=ident, history=History(parent, (HI,)))


def equals(*upstreams: Played, clock: Clock | None = None) -> UpstreamGroup:
    """Return a group of which each has the same share."""
    one = group(*upstreams, clock=clock)
    one.members = tuple(replace(member, backup=False) for member in one.members)
    return one


async def test_a_conversation_stays_where_it_is() -> None:
    """And conversations are shared."""
    upstreams = Played(OK), Played(OK), Played(OK)
    one = equals(*upstreams)
    for _ in range(30):
        turn = new()
        for _ in range(3):
            await run(one, turn)
            turn = next_turn(turn)
    chains = [[chain_tag(asked.response_id) for asked in upstream.asked] for upstream in upstreams]
    assert all(set(Counter(tags).values()) == {3} for tags in chains)
    assert all(len(tags) > 9 for tags in chains)


async def test_one_failure_does_not_move_a_conversation_and_an_outage_does() -> None:
    """It stays where it has moved to, when the other is back: that one has its prompt in the cache."""
    clock, a, b = Clock(), Played(OK), Played(OK)
    one = equals(a, b, clock=clock)
    turn = new()
    while not a.asked:
        turn = new()
        await run(one, turn)
    b.asked.clear()
    a.plays = [(refused(),), OK]
    for _ in range(2):
        await run(one, turn := next_turn(turn))
    assert (len(a.asked), len(b.asked)) == (3, 1)
    a.plays = [(refused(),)]
    for _ in range(3):
        await run(one, turn := next_turn(turn))
    assert (len(a.asked), len(b.asked)) == (5, 4)
    a.plays, clock.now = [OK], 100.0
    others = [new() for _ in range(20)]
    for other in others:
        await run(one, other)
    assert len(a.asked) > 8, "new conversations come back"
    b.asked.clear()
    await run(one, next_turn(turn))
    assert len(b.asked) == 1


async def test_a_new_conversation_goes_where_there_is_a_place() -> None:
    """And stays there."""
    full, free = Counted(place=False), Counted()
    one = equals(full, free)
    turns = [new() for _ in range(10)]
    for turn in turns:
        await run(one, turn)
        await run(one, next_turn(turn))
    assert (len(full.asked), len(free.asked)) == (0, 20)


async def test_a_turn_that_is_cancelled_stops_its_upstream() -> None:
    """And says nothing about it."""
    a, b = Played(((), (SAID,), (DONE,))), Played(OK)
    one = group(a, b)
    stream = one.stream(request())
    assert [await anext(stream), await anext(stream)] == [(), (SAID,)]
    await stream.aclose()
    assert (a.closed, b.asked) == (1, [])


async def test_tokens_are_counted_by_the_first_that_can() -> None:
    a, b, c = Played(OK), Counted(tokens=refused()), Counted(tokens=9)
    assert await group(a, b, c).count_input(request()) == 9
    with pytest.raises(Refused) as caught:
        await group(a, a).count_input(request())
    assert caught.value.problem == not_counted("m")
    with pytest.raises(Refused):
        await group(Counted(tokens=refused(elsewhere=False)), c).count_input(request())


async def test_a_prompt_is_prefilled_where_its_turns_will_run() -> None:
    assert await group(Counted(), Played(OK)).prefill(request()) == usage(7, 0)
    assert await group(Played(OK), Counted()).prefill(request()) == usage(0, 0)
