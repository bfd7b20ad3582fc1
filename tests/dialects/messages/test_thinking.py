"""How a model thinks in a turn: as asked for, unless a tool loop that has begun says otherwise."""

from __future__ import annotations

import pytest

from segue.dialects.messages.thinking import (
    LEAST_BUDGET,
    AskedThinking,
    ChosenThinking,
    ToolLoop,
    choose_thinking,
)

BUDGET, ADAPTIVE = "claude-sonnet-4-5", "claude-sonnet-4-6"
FRESH = ToolLoop()
SILENT = ToolLoop(begun=True)
THINKING = ToolLoop(begun=True, thoughts_first=True, thoughts=True, effort="high")
OF_UNKNOWN_EFFORT = ToolLoop(begun=True, thoughts_first=True, thoughts=True)
LATE = ToolLoop(begun=True, thoughts=True)
OFF = ChosenThinking(on=False)
UNMET = "(any)"


def choose(model: str, effort: str | None, loop: ToolLoop, *, forced: bool = False, room: int = 9999) -> ChosenThinking:
    chosen = choose_thinking(AskedThinking(model, effort, forced=forced, room=room), loop)
    return ChosenThinking(chosen.on, chosen.effort, chosen.bare, None if chosen.unmet is None else UNMET)


@pytest.mark.parametrize("model", [BUDGET, ADAPTIVE])
@pytest.mark.parametrize(
    ("effort", "chosen"), [(None, OFF), ("none", OFF), ("low", ChosenThinking(on=True, effort="low"))]
)
def test_a_new_turn_is_as_asked_for(model: str, effort: str | None, chosen: ChosenThinking) -> None:
    assert choose(model, effort, FRESH) == chosen


@pytest.mark.parametrize("fields", [{"forced": True}, {"room": LEAST_BUDGET - 1}])
def test_a_budget_needs_room_and_a_free_choice_of_tools(fields: dict[str, bool]) -> None:
    assert choose(BUDGET, "low", FRESH, **fields) == ChosenThinking(on=False, unmet=UNMET)
    assert choose(BUDGET, None, FRESH, **fields) == OFF
    assert choose(BUDGET, "low", THINKING, **fields) == ChosenThinking(on=False, bare=True, unmet=UNMET)
    assert choose(BUDGET, None, THINKING, **fields) == ChosenThinking(on=False, bare=True)
    assert choose(ADAPTIVE, "low", FRESH, **fields) == ChosenThinking(on=True, effort="low")


@pytest.mark.parametrize("loop", [FRESH, THINKING])
def test_the_least_budget_is_enough(loop: ToolLoop) -> None:
    assert choose(BUDGET, "high", loop, room=LEAST_BUDGET) == ChosenThinking(on=True, effort="high")


@pytest.mark.parametrize(
    ("effort", "loop", "chosen"),
    [
        # It began without thoughts, and goes on so.
        (None, SILENT, OFF),
        ("none", SILENT, OFF),
        ("high", SILENT, ChosenThinking(on=False, unmet=UNMET)),
        # It began with thoughts, and goes on as it began.
        (None, THINKING, ChosenThinking(on=True, effort="high")),
        ("high", THINKING, ChosenThinking(on=True, effort="high")),
        ("low", THINKING, ChosenThinking(on=True, effort="high", unmet=UNMET)),
        ("none", THINKING, ChosenThinking(on=True, effort="high", unmet=UNMET)),
        (None, OF_UNKNOWN_EFFORT, ChosenThinking(on=True, effort="medium")),
        ("low", OF_UNKNOWN_EFFORT, ChosenThinking(on=True, effort="low")),
        ("none", OF_UNKNOWN_EFFORT, ChosenThinking(on=True, effort="medium", unmet=UNMET)),
        # Another model thought in the middle of it.
        (None, LATE, ChosenThinking(on=False, bare=True)),
        ("low", LATE, ChosenThinking(on=False, bare=True, unmet=UNMET)),
    ],
)
def test_a_loop_of_a_model_with_a_budget_goes_on_as_it_began(
    effort: str | None, loop: ToolLoop, chosen: ChosenThinking
) -> None:
    assert choose(BUDGET, effort, loop) == chosen


@pytest.mark.parametrize(
    ("effort", "loop", "chosen"),
    [
        (None, SILENT, OFF),
        ("low", SILENT, ChosenThinking(on=True, effort="low")),
        ("low", THINKING, ChosenThinking(on=True, effort="low")),
        (None, THINKING, ChosenThinking(on=True, effort="high")),
        (None, LATE, ChosenThinking(on=True)),
        ("none", THINKING, ChosenThinking(on=True, effort="high", unmet=UNMET)),
    ],
)
def test_adaptive_thinking_may_begin_within_a_loop_but_not_end(
    effort: str | None, loop: ToolLoop, chosen: ChosenThinking
) -> None:
    assert choose(ADAPTIVE, effort, loop) == chosen


def test_a_loop_is_what_was_said() -> None:
    assert FRESH.continued(thoughts=False, effort="low") == SILENT
    assert FRESH.continued(thoughts=True, effort="high") == THINKING
    assert SILENT.continued(thoughts=False, effort="low") == SILENT
    assert SILENT.continued(thoughts=True, effort="low") == ToolLoop(begun=True, thoughts=True, effort="low")
    assert THINKING.continued(thoughts=True, effort="low") == THINKING
    assert THINKING.continued(thoughts=False, effort=None) == THINKING
