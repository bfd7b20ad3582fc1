"""Holds one conversation with a server, in one of the ways that the endpoint benchmark compares, and notes every turn.

It ends at the first turn that was not answered. Not here: what is said (`plan`), turns on the wire
(`segue.bench.meters.responses_turns`), and what the answers prove (`verdicts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from segue.bench.endpoint.plan import (
    Asked,
    CodeWords,
    EndpointArm,
    EndpointPlan,
    Json,
    asked_in,
    make_create,
    said_by,
    user_text,
    word_of,
)
from segue.bench.endpoint.verdicts import RecallAnswer
from segue.bench.meters.responses_turns import TurnReply
from segue.client.recovery import TurnFault


class TurnRunner(Protocol):
    """Runs turns on one connection, or over HTTP."""

    async def turn(self, create: Mapping[str, Any]) -> TurnReply:
        """Run one turn."""
        ...


class EndpointRound(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation as it went. `set_up_s` and the bytes are those of opening the connection."""

    words: CodeWords
    turns: tuple[TurnReply, ...]
    answers: tuple[RecallAnswer, ...]
    fault: TurnFault | None = None
    set_up_s: float | None = None
    set_up_up_bytes: int = 0
    set_up_down_bytes: int = 0

    @property
    def last_id(self) -> str | None:
        """The id of the last response, if the conversation came to its end."""
        return self.turns[-1].response_id if self.turns and self.fault is None else None

    def answer(self, asked: Asked) -> RecallAnswer | None:
        """Return the answer to one of the questions."""
        return next((answer for answer in self.answers if answer.asked == asked), None)


async def converse(
    runner: TurnRunner,
    arm: EndpointArm,
    plan: EndpointPlan,
    *,
    words: CodeWords,
    may_spend: Callable[[TurnReply], bool],
) -> EndpointRound:
    """Hold the conversation; `may_spend` counts each reply and says whether the next turn may be asked."""
    turns: list[TurnReply] = []
    answers: list[RecallAnswer] = []
    items: list[Json] = []
    previous: str | None = None
    fault: TurnFault | None = None
    for number in range(1, plan.turns + 1):
        new = said_by("user", user_text(number, words, plan))
        items = [*items, new] if arm.history == "replay" else [new]
        reply = await runner.turn(make_create(plan, items, store=arm.store, previous=previous))
        turns.append(reply)
        fault = fault_of_turn(reply, arm)
        if fault is not None:
            break
        asked = asked_in(number, plan)
        if asked is not None:
            answers.append(answer_of(reply, asked=asked, words=words))
        if arm.history == "id":
            previous = reply.response_id
        elif reply.text:
            items.append(said_by("assistant", reply.text))
        if not may_spend(reply) and number < plan.turns:
            fault = TurnFault(kind="failed", transport=arm.transport, message="The budget of tokens is used up.")
            break
    return EndpointRound(words=words, turns=tuple(turns), answers=tuple(answers), fault=fault)


def answer_of(reply: TurnReply, *, asked: Asked, words: CodeWords) -> RecallAnswer:
    """Return what a reply says to the question for a word."""
    return RecallAnswer(asked=asked, word=word_of(asked, words), text=reply.text, input_tokens=reply.input_tokens)


def fault_of_turn(reply: TurnReply, arm: EndpointArm) -> TurnFault | None:
    """Return why the conversation cannot go on after this turn."""
    if not reply.answered:
        return reply.fault
    if arm.history == "id" and reply.response_id is None:
        return TurnFault(kind="unreadable", transport=arm.transport, message="The response has no id.")
    return None
