"""What an agent does after each kind of failure, request by request, until it gives up."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import get_args

import pytest

from segue.bench.workloads.retry_rules import (
    PRACTICES,
    RULES,
    FailedRequests,
    Failure,
    Progress,
    Retry,
    RetryingAgent,
    StopTrying,
)

AGENTS: tuple[RetryingAgent, ...] = get_args(RetryingAgent)


def waits(agent: RetryingAgent, failed: Iterable[tuple[Failure, Progress]], draw: float = 0.0) -> list[float | str]:
    """Return the wait after each failure, up to the reason for which the agent gives up."""
    state, seen = FailedRequests(RULES[agent]), list[float | str]()
    for failure, progress in failed:
        match state.note(failure, progress, draw):
            case Retry(wait_s):
                seen.append(wait_s)
            case StopTrying(reason):
                return [*seen, reason]
    return seen


@pytest.mark.parametrize(
    ("failure", "progress", "expected"),
    [
        ("unreachable", "nothing", [0.5, 1, 2, 4, 8, 16, 32, 32, 32, 32, "retries used up"]),
        ("lost", "nothing", [0.5, 1, 2, 4, 8, 16, 32, 32, 32, 32, "retries used up"]),
        ("timed out", "nothing", [0.5, 1, 2, 4, 8, 16, 32, 32, 32, 32, "retries used up"]),
        ("server error", "nothing", [0.5, 1, 2, 4, 8, 16, 32, 32, 32, 32, "retries used up"]),
        ("untrusted", "nothing", ["certificate not trusted"]),
        ("refused", "nothing", ["request refused"]),
        ("lost", "thought", [0, 0, "retries used up"]),
        ("lost", "answer", [0, 0, 0, "retries used up"]),
        ("stalled", "nothing", [0, "retries used up"]),
        ("stalled", "thought", [0, "retries used up"]),
        ("stalled", "answer", [0, 0, 0, "retries used up"]),
    ],
)
def test_claude_code(failure: Failure, progress: Progress, expected: list[float | str]) -> None:
    assert waits("claude-code", repeat((failure, progress), 20)) == expected


def test_what_users_saw_lies_within_the_waits() -> None:
    """The countdowns of https://github.com/anthropics/claude-code/issues/6596, in whole seconds."""
    seen = [1, 1, 2, 5, 10, 18, 40, 33, 39, 40]
    shortest = waits("claude-code", repeat(("unreachable", "nothing"), 10))
    longest = waits("claude-code", repeat(("unreachable", "nothing"), 10), draw=1.0)
    for low, shown, high in zip(shortest, seen, longest, strict=True):
        assert isinstance(low, float)
        assert isinstance(high, float)
        assert round(low - 0.01) <= shown <= round(high + 0.5)


def test_budgets_are_apart() -> None:
    failed: list[tuple[Failure, Progress]] = [("lost", "nothing"), ("lost", "thought"), ("lost", "nothing")]
    assert waits("claude-code", [*failed, ("lost", "thought"), ("lost", "thought")]) == [
        0.5,
        0,
        1,
        0,
        "retries used up",
    ]


TRIES = [0.2, 0.4, 0.8, 1.6]


@pytest.mark.parametrize(
    ("failure", "progress", "expected"),
    [
        ("lost", "answer", [*TRIES, 3.2, "retries used up"]),
        ("stalled", "nothing", [*TRIES, 3.2, "retries used up"]),
        (
            "unreachable",
            "nothing",
            [*TRIES, 0.2, *TRIES, 0.4, *TRIES, 0.8, *TRIES, 1.6, *TRIES, 3.2, *TRIES, "retries used up"],
        ),
        ("refused", "nothing", ["request refused"]),
    ],
)
def test_codex_has_retries_of_the_request_within_those_of_the_turn(
    failure: Failure, progress: Progress, expected: list[float | str]
) -> None:
    assert waits("codex", repeat((failure, progress), 50), draw=0.5) == pytest.approx(expected)


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("failure", get_args(Failure))
@pytest.mark.parametrize("progress", get_args(Progress))
def test_every_agent_gives_up_at_last(agent: RetryingAgent, failure: Failure, progress: Progress) -> None:
    assert isinstance(waits(agent, repeat((failure, progress), 100))[-1], str)


def test_every_practice_has_a_source() -> None:
    assert {practice.agent for practice in PRACTICES} == set(AGENTS) == set(RULES)
    assert all(practice.source.startswith(("https://", "measured with ")) for practice in PRACTICES)
    assert {"600 s", "180 s", "300 s"} <= {" ".join(one.rule.split()[1:3]) for one in PRACTICES}
    assert (RULES["claude-code"].timeout_s, RULES["claude-code"].idle_s, RULES["codex"].idle_s) == (600, 180, 300)
