"""How a model thinks in a turn: as asked for, unless a tool loop that has begun says otherwise."""

from __future__ import annotations

import pytest

from segue.dialects.messages.thinking import (
    LEAST_BUDGET,
    AskedThinking,
    ChosenThinking,
    ToolLoop,
    can_be_forced,
    choose_thinking,
)

BUDGET, ADAPTIVE, LATER = "claude-sonnet-4-5", "claude-sonnet-4-6", "claude-opus-4-8"
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


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (BUDGET, {"forced": True}),
        (BUDGET, {"room": LEAST_BUDGET - 1}),
        (ADAPTIVE, {"forced": True}),
        ("claude-opus-4-6", {"forced": True}),
        ("claude-opus-4.7", {"forced": True}),
        ("claude-opus-4-7-20260416", {"forced": True}),
        ("kimi-k2-thinking", {"forced": True}),
    ],
)
def test_a_model_does_not_think_without_room_or_where_a_tool_is_forced(model: str, fields: dict[str, bool]) -> None:
    assert choose(model, "low", FRESH, **fields) == ChosenThinking(on=False, unmet=UNMET)
    assert choose(model, None, FRESH, **fields) == OFF
    assert choose(model, "none", FRESH, **fields) == OFF
    assert choose(model, "low", THINKING, **fields) == ChosenThinking(on=False, bare=True, unmet=UNMET)
    assert choose(model, None, THINKING, **fields) == ChosenThinking(on=False, bare=True)
    assert choose(model, "none", THINKING, **fields) == ChosenThinking(on=False, bare=True)
    assert choose(model, "low", LATE, **fields) == ChosenThinking(on=False, bare=True, unmet=UNMET)
    assert choose(model, "low", SILENT, **fields) == ChosenThinking(on=False, unmet=UNMET)


@pytest.mark.parametrize(
    "model",
    [
        LATER,
        "claude-opus-4.8",
        "anthropic.claude-opus-4-8-v1:0",
        "claude-opus-4-8@20260528",
        "claude-sonnet-5",
        "claude-sonnet-5-20260701",
        "claude-opus-5",
        "claude-fable-5",
    ],
)
def test_some_models_think_where_a_tool_is_forced_too(model: str) -> None:
    assert choose(model, "low", FRESH, forced=True) == ChosenThinking(on=True, effort="low")
    assert choose(model, None, FRESH, forced=True) == OFF
    assert choose(model, "low", THINKING, forced=True) == ChosenThinking(on=True, effort="low")
    assert choose(model, None, THINKING, forced=True) == ChosenThinking(on=True, effort="high")


ALWAYS = [
    "claude-opus-5-5",
    "us.anthropic.claude-opus-5-5-v1:0",
    "claude-sonnet-5.5",
    "claude-fable-5",
    "claude-mythos-5-1",
]


@pytest.mark.parametrize("model", ALWAYS)
def test_a_model_that_always_thinks_thinks_as_little_as_it_can_where_it_shall_not(model: str) -> None:
    """It refuses to be told not to."""
    for loop in (FRESH, SILENT, THINKING, LATE):
        assert choose(model, "none", loop) == ChosenThinking(on=True, effort="low", unmet=UNMET)
        assert choose(model, "high", loop) == ChosenThinking(on=True, effort="high")
    assert choose(model, None, FRESH) == OFF, "there is nothing to say"
    assert choose("claude-opus-5", "none", FRESH) == OFF


@pytest.mark.parametrize(
    ("model", "forced"),
    [
        ("claude-opus-5-5", False),
        ("us.anthropic.claude-sonnet-5-5-v1:0", False),
        ("claude-fable-5.1-20260801", False),
        ("claude-mythos-5-1", False),
        ("claude-opus-5", True),
        ("claude-sonnet-5-20260701", True),
        ("claude-fable-5", True),  # at Amazon; elsewhere it is learned
        ("claude-opus-4-8", True),
        ("kimi-k2", True),
    ],
)
def test_some_models_cannot_be_forced_to_call_a_tool(model: str, forced: bool) -> None:
    assert can_be_forced(model) is forced


def test_adaptive_thinking_needs_no_room() -> None:
    assert choose(ADAPTIVE, "low", FRESH, room=1) == ChosenThinking(on=True, effort="low")


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
