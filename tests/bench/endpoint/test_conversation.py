"""A conversation sends everything or what is new, and ends where a turn does not go well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segue.bench.endpoint.conversation import EndpointRound, converse
from segue.bench.endpoint.plan import ENDPOINT_ARMS, CodeWords, EndpointPlan
from segue.bench.meters.responses_turns import TurnReply
from segue.client.recovery import TurnFault

WORDS = CodeWords("amber-1", "cedar-2")
PLAN = EndpointPlan(model="m", turns=4, turn_bytes=10)
BROKEN = TurnFault(kind="connection_lost", transport="http")
REPLAY, BY_ID = ENDPOINT_ARMS[:2]


class Runner:
    """Answers with what it was given."""

    def __init__(self, replies: Sequence[TurnReply]) -> None:
        self.creates: list[Mapping[str, Any]] = []
        self._replies = list(replies)

    async def turn(self, create: Mapping[str, Any]) -> TurnReply:
        self.creates.append(create)
        return self._replies.pop(0)


def replies(count: int = 4, text: str = "OK.") -> list[TurnReply]:
    return [TurnReply(ended="completed", response_id=f"resp_{at}", text=text, input_tokens=at) for at in range(count)]


async def hold(runner: Runner, one: int, spends: int = 99) -> EndpointRound:
    left = iter(range(spends, -1, -1))
    return await converse(runner, ENDPOINT_ARMS[one], PLAN, words=WORDS, may_spend=lambda _: next(left) > 0)


async def test_a_replay_sends_everything_again_with_the_answers() -> None:
    runner = Runner(replies())
    held = await hold(runner, 0)
    assert [len(create["input"]) for create in runner.creates] == [1, 3, 5, 7]
    assert [item["role"] for item in runner.creates[-1]["input"]] == ["user", "assistant"] * 3 + ["user"]
    assert all("previous_response_id" not in create for create in runner.creates)
    assert (held.fault, held.last_id) == (None, "resp_3")
    assert [(answer.asked, answer.word, answer.input_tokens) for answer in held.answers] == [
        ("near", "amber-1", 1),
        ("far", "cedar-2", 3),
    ]
    assert held.answer("far") == held.answers[1]


async def test_an_empty_answer_is_not_sent_again() -> None:
    runner = Runner(replies(text=""))
    await hold(runner, 0)
    assert [len(create["input"]) for create in runner.creates] == [1, 2, 3, 4]


async def test_an_id_sends_what_is_new() -> None:
    runner = Runner(replies())
    await hold(runner, 1)
    assert [len(create["input"]) for create in runner.creates] == [1] * 4
    parents = [create.get("previous_response_id") for create in runner.creates]
    assert parents == [None, "resp_0", "resp_1", "resp_2"]


async def test_it_ends_with_the_first_fault() -> None:
    held = await hold(Runner([*replies(1), TurnReply(ended="fault", fault=BROKEN)]), 1)
    assert (held.fault, held.last_id, len(held.turns), held.answers) == (BROKEN, None, 2, ())
    assert held.answer("near") is None


async def test_a_response_without_an_id_cannot_be_continued() -> None:
    nameless = TurnReply(ended="completed", text="OK.")
    held = await hold(Runner([nameless]), 1)
    assert held.fault is not None
    assert held.fault.message == "The response has no id."
    assert (await hold(Runner([nameless] * 4), 0)).fault is None


async def test_it_ends_when_the_budget_is_used_up() -> None:
    held = await hold(Runner(replies()), 1, spends=1)
    assert len(held.turns) == 2
    assert held.fault is not None
    assert "budget" in (held.fault.message or "")
    assert (await hold(Runner(replies()), 1, spends=3)).fault is None
