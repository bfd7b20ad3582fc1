"""Which way to send a conversation, for a workload that somebody describes: a table of rules, the first that fits.

The rules use two figures. *Saved bytes* come from the sizes of the turns (`capacity`). *Saved time* is what the link
needs longer for the larger requests (`links.transfer_time`, without loss), as a part of the time of a task: sending
and writing the answer. A connection is kept from turn to turn, and idle before each. Times of a provider's queue, of
tools and of prefill are not in it. Not here: measuring; billed tokens, which no way changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from segue.bench.capacity import FleetWorkload, arms, saving
from segue.bench.links.profiles import NamedLink
from segue.bench.links.transfer_time import transfer_time_s
from segue.bench.reports.report import Figure

AgentApi = Literal["responses", "other"]
Way = Literal["plain HTTP", "id over HTTP, stored", "id over WebSocket", "sidecar"]

_FEW_TURNS = 2
_SMALL_PART = 0.05


class AgentWorkload(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's task: its requests, its link, its model, and how it can talk."""

    sizes: FleetWorkload
    link: NamedLink
    tokens_s: float
    output_tokens: int
    api: AgentApi
    short_lived: bool
    """No process lives from one turn to the next, as in a serverless function."""


class TaskTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What a task takes: sending everything, sending what is new, and writing the answers."""

    replay_s: float
    delta_s: float
    model_s: float

    @property
    def saved(self) -> float:
        """The part of the task's time that smaller requests save."""
        return (self.replay_s - self.delta_s) / (self.replay_s + self.model_s)


class AdviceRule(NamedTuple):
    """A rule: when it fits, what it advises, and why. `condition` is the words of `fits`."""

    condition: str
    advice: Way
    reason: str
    source: str
    fits: Callable[[AgentWorkload, TaskTimes], bool]


_ARTICLE = 'the article, "When HTTP is still the right choice"'
_NANOCODEX = "nanocodex, RESPONSE_TRANSPORT_BENCH.md (2026-07-23)"

#: The first that fits is the advice.
RULES: Sequence[AdviceRule] = (
    AdviceRule(
        f"at most {_FEW_TURNS} turns",
        "plain HTTP",
        "There is hardly anything to send again, and a new WebSocket costs more than it saves.",
        f"{_ARTICLE}; a cold WebSocket is slower: {_NANOCODEX}",
        lambda workload, _: workload.sizes.turns <= _FEW_TURNS,
    ),
    AdviceRule(
        "no process lives between turns, the agent speaks the Responses API",
        "id over HTTP, stored",
        "Nobody can hold a connection. The id alone saves the bytes, on HTTP as on WebSocket.",
        f"-88 % of the bytes on both: {_NANOCODEX}",
        lambda workload, _: workload.short_lived and workload.api == "responses",
    ),
    AdviceRule(
        "no process lives between turns, another API",
        "plain HTTP",
        "Nobody can hold a connection or run a sidecar, and the API has no ids.",
        _ARTICLE,
        lambda workload, _: workload.short_lived,
    ),
    AdviceRule(
        f"smaller requests save less than {_SMALL_PART:.0%} of the time",
        "plain HTTP",
        "The model takes nearly all of the time. Continuation still saves bytes, if somebody pays for them.",
        f"bytes saved, time hardly: {_NANOCODEX}; the formula of the link",
        lambda _, times: times.saved < _SMALL_PART,
    ),
    AdviceRule(
        "the agent speaks the Responses API",
        "id over WebSocket",
        "Each turn sends only what is new, on a connection that is open.",
        "the article, its measurement: -82 % of the bytes",
        lambda workload, _: workload.api == "responses",
    ),
    AdviceRule(
        "any other API",
        "sidecar",
        "The agent cannot continue by id. The tunnel sends the difference of each request from the last.",
        "`segue bench table`: see the measured results",
        lambda _workload, _times: True,
    ),
)


def problem_of_agent(workload: AgentWorkload) -> str | None:
    """Return what is wrong with the model's numbers, or None."""
    if not 0 < workload.tokens_s < float("inf"):
        return "--tokens-s must be more than 0"
    return None if workload.output_tokens > 0 else "--output-tokens must be more than 0"


def task_times(workload: AgentWorkload) -> TaskTimes:
    """Compute the times of a task."""
    profile = workload.link.profile
    rate = profile.up_bytes_s
    assert rate is not None, "every named link has a rate"
    replay_s, delta_s = (
        sum(transfer_time_s(profile, rate, turn.bytes_up_payload or 1, age="idle") for turn in way.turns)
        for way in arms(workload.sizes)
    )
    model_s = workload.sizes.turns * workload.output_tokens / workload.tokens_s
    return TaskTimes(replay_s=replay_s, delta_s=delta_s, model_s=model_s)


def advise(workload: AgentWorkload, times: TaskTimes) -> AdviceRule:
    """Return the first rule that fits; the last one always does."""
    return next(rule for rule in RULES if rule.fits(workload, times))


def advice_figures(workload: AgentWorkload, times: TaskTimes) -> list[Figure]:
    """Return what the advice rests on."""
    replay, delta = (way.totals.bytes_up_payload or 0 for way in arms(workload.sizes))
    rows = [
        ("a task sends: replay", replay / 1e3, "KB"),
        ("a task sends: delta", delta / 1e3, "KB"),
        ("bytes saved", 100 * saving(workload.sizes), "%"),
        ("sending takes: replay", times.replay_s, "s"),
        ("sending takes: delta", times.delta_s, "s"),
        ("the model writes for", times.model_s, "s"),
        ("time saved", 100 * times.saved, "%"),
    ]
    return [Figure(name=name, value=value, unit=unit) for name, value, unit in rows]
