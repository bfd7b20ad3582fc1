"""Message threads at an upstream as a model: its model reads the client's own history, or the client gets an error.

Conversations begin, go on from any of their turns, also at once, wait, and change their settings; the double loses
threads, refuses them in every way, breaks off at every place, and answers without the history.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from segue.history.chains import History, Turn, path
from segue.protocol.problems import Refused
from tests.strategies import examples
from tests.thread_service import CUTS, OTHERS, REFUSALS, ThreadService, read, said
from tests.upstreams.threaded_turns import INSTRUCTIONS, bench, result, speak, told_by, told_by_item, user

Json = dict[str, Any]

FAULTS = st.sampled_from(["", "", *REFUSALS, *CUTS, *OTHERS])
WORDS = st.sampled_from(["a", "call", "think", "blank"])
CHANGES = st.sampled_from(
    [{}, {}, {}, {"tool_choice": "none"}, {"max_output_tokens": 99}, {"reasoning": {"effort": "low"}}]
)


class Conversations(RuleBasedStateMachine):
    """Whatever goes wrong: the model reads the client's own history, or the client gets an error."""

    trusted = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.turns: list[Turn] = []
        self.asked = 0

    @initialize(bare=st.booleans())
    def begin(self, *, bare: bool) -> None:
        """With instructions and tools, or with prompts so short that each is as long as the others."""
        self.settings: Json = {"instructions": None, "tools": []} if bare else {}
        self.instructions = "" if bare else INSTRUCTIONS
        self.service = ThreadService(speak)
        self.one = self.runner.run(self.stack.enter_async_context(bench(self.service, trusted=self.trusted)))

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    @rule(word=WORDS, fault=FAULTS, later=FAULTS, changes=CHANGES)
    def start(self, word: str, fault: str, later: str, changes: Json) -> None:
        self.service.faults += [fault, later]
        self.runner.run(self.say(None, word, changes))

    @rule(word=WORDS, fault=FAULTS, later=FAULTS, changes=CHANGES, back=st.integers(0, 2), whole=st.booleans())
    def go_on(self, word: str, fault: str, later: str, changes: Json, back: int, *, whole: bool) -> None:
        """Go on from one of the last turns, by its id or with the whole history."""
        self.service.faults += [fault, later]
        parent = self.turns[-1 - back % len(self.turns)] if self.turns else None
        self.runner.run(self.say(parent, word, changes, whole=whole))

    @rule(words=st.lists(WORDS, min_size=2, max_size=3))
    def at_once(self, words: list[str]) -> None:
        parent = self.turns[-1] if self.turns else None

        async def all_of_them() -> None:
            await asyncio.gather(*(self.say(parent, word, {}) for word in words))

        self.runner.run(all_of_them())

    @rule(seconds=st.sampled_from([1, 200, 290, 400]))
    def wait(self, seconds: int) -> None:
        self.service.now += seconds

    async def say(self, parent: Turn | None, word: str, changes: Json, *, whole: bool = False) -> None:
        self.asked += 1
        asked = f"{word}{self.asked}"
        calls = [] if parent is None else sorted(parent.calls)
        new, known = (*map(result, calls), user(asked)), list(History(parent, ()).items()) if whole else []
        named = None if whole else parent
        request = self.one.ask(named, *known, *new, **{**self.settings, **changes, "held": not whole})
        try:
            turn, _ = await self.one.run(request)
        except Refused:
            turn = None
        self.service.faults.clear()
        if turn is None:
            return
        self.turns.append(turn)
        reply = next(text for item in turn.output for _, text in told_by_item(item) if text.startswith("r"))
        prompt = self.service.prompts[int(reply[1:]) - 1]
        expected = [one for before in path(parent) for one in told_by(before)]
        assert said(prompt) == [*expected, *(("user", call) for call in calls), ("user", asked)]
        assert read(prompt) == self.instructions


class Untrusted(Conversations):
    """The same at a server that must prove itself."""

    trusted = False


@pytest.mark.untraced
@pytest.mark.parametrize("machine", [Conversations, Untrusted])
def test_no_answer_is_given_without_the_history(machine: type[Conversations]) -> None:
    run_state_machine_as_test(
        machine, settings=hypothesis_settings(max_examples=examples(300), stateful_step_count=20, deadline=None)
    )
