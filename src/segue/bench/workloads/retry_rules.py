"""How agent programs retry: which failed request they send again, after how long, and when they give up.

Pure: the caller passes what is random in. A request that fails draws on a budget; `FailedRequests` is the state of one
turn. Every number is the default of the agent, and `PRACTICES` names what published it. What nobody published is not
here. Not here: sending requests (`segue.bench.arms.retrying_player`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

#: An agent whose rules are known.
RetryingAgent = Literal["claude-code", "codex"]

#: How a request fails: no connection; a certificate that is not trusted; the connection is lost; nothing comes in time
#: before the reply begins; or within it; an answer with a status that may change; or with one that will not.
Failure = Literal["unreachable", "untrusted", "lost", "timed out", "stalled", "server error", "refused"]

#: How much of the reply has come: nothing whole; the model's whole thinking, and nothing after it; some of the answer.
Progress = Literal["nothing", "thought", "answer"]

#: What is drawn on.
BudgetName = Literal["usual", "quick", "once", "resume", "turn"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """So many retries, each after twice the wait of the one before. What is random stretches a wait by `jitter`."""

    retries: int
    first_wait_s: float = 0.0
    longest_wait_s: float = float("inf")
    jitter: tuple[float, float] = (1.0, 1.0)
    then: BudgetName | None = None
    """What the next failure draws on when this is used up; then this one begins anew. None: the agent gives up."""

    def wait_s(self, retry: int, draw: float) -> float:
        """Return the wait before a retry, the first being 1; `draw` is from 0 to 1."""
        low, high = self.jitter
        return min(self.first_wait_s * 2.0 ** (retry - 1), self.longest_wait_s) * (low + (high - low) * draw)


class RetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one agent."""

    agent: RetryingAgent
    timeout_s: float
    """How long it waits for a reply to begin."""
    idle_s: float
    """How long it waits within a reply."""
    keeps_connection: bool
    """Whether the next turn goes over the same connection."""
    budgets: Mapping[BudgetName, Budget]
    draws: Mapping[tuple[Failure, Progress], BudgetName | None]
    """What a failure draws on, where it is not `usual`; None: the agent gives up at once."""


class Practice(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in words, with what published it."""

    agent: RetryingAgent
    rule: str
    source: str


_ERRORS = "https://code.claude.com/docs/en/errors"
_WATCHDOGS = "https://code.claude.com/docs/en/network-config"
_WAITS = "https://github.com/anthropics/claude-code/issues/6596"
_MEASURED = "measured with Claude Code 2.1.328 in November 2026"
_PROVIDER_INFO = "https://github.com/openai/codex/blob/main/codex-rs/model-provider-info/src/lib.rs"
_RETRY = "https://github.com/openai/codex/blob/main/codex-rs/codex-client/src/retry.rs"
_TURN = "https://github.com/openai/codex/blob/main/codex-rs/core/src/util.rs"


def _whatever_came(failure: Failure, draws: BudgetName | None) -> dict[tuple[Failure, Progress], BudgetName | None]:
    return {(failure, progress): draws for progress in get_args(Progress)}


#: What is known of each agent, as it was published in 2026.
PRACTICES = (
    Practice(agent="claude-code", rule="waits 600 s for a reply to begin (API_TIMEOUT_MS)", source=_ERRORS),
    Practice(agent="claude-code", rule="waits 180 s for the next bytes of a reply", source=_WATCHDOGS),
    Practice(
        agent="claude-code",
        rule="sends a request again up to 10 times if it could not connect, or the connection was lost before any part "
        "of the reply was complete, or the answer was a server error",
        source=_ERRORS,
    ),
    Practice(
        agent="claude-code",
        rule="waits 0.5, 1, 2, 4, 8, 16, 32, 32, 32 and 32 s before these, and up to a quarter longer: what users saw "
        "on their screens",
        source=f"{_WAITS}; the first four {_MEASURED}",
    ),
    Practice(
        agent="claude-code",
        rule="sends a request again at once, up to twice, if the connection was lost between thinking and answer",
        source=_ERRORS,
    ),
    Practice(agent="claude-code", rule="sends a request again once if a reply stalled that early", source=_ERRORS),
    Practice(
        agent="claude-code",
        rule="asks the model to go on, at once and up to 3 times, if the connection was lost after the answer had "
        "begun; by its documentation of August 2026 it gives up then",
        source=_MEASURED,
    ),
    Practice(
        agent="claude-code",
        rule="gives up at once if the certificate is not trusted",
        source=f"{_ERRORS}; {_MEASURED}",
    ),
    Practice(
        agent="codex", rule="waits 300 s for each part of a reply (stream_idle_timeout_ms)", source=_PROVIDER_INFO
    ),
    Practice(
        agent="codex",
        rule="sends a request again up to 4 times if no reply began or the answer was a server error "
        "(request_max_retries), after 0.2, 0.4, 0.8 and 1.6 s, give or take a tenth",
        source=_RETRY,
    ),
    Practice(
        agent="codex",
        rule="begins the turn anew up to 5 times if a reply broke off or these were used up (stream_max_retries), "
        "after 0.2, 0.4, 0.8, 1.6 and 3.2 s, give or take a tenth",
        source=_TURN,
    ),
)

RULES: Mapping[RetryingAgent, RetryRules] = {
    "claude-code": RetryRules(
        agent="claude-code",
        timeout_s=600.0,
        idle_s=180.0,
        keeps_connection=True,
        budgets={
            "usual": Budget(retries=10, first_wait_s=0.5, longest_wait_s=32.0, jitter=(1.0, 1.25)),
            "quick": Budget(retries=2),
            "once": Budget(retries=1),
            "resume": Budget(retries=3),
        },
        draws={
            **_whatever_came("untrusted", None),
            **_whatever_came("refused", None),
            ("lost", "answer"): "resume",
            ("stalled", "answer"): "resume",
            ("lost", "thought"): "quick",
            ("stalled", "thought"): "once",
            ("stalled", "nothing"): "once",
        },
    ),
    "codex": RetryRules(
        agent="codex",
        timeout_s=300.0,
        idle_s=300.0,
        keeps_connection=False,  # measured: a new connection for each request of the model
        budgets={
            "usual": Budget(retries=4, first_wait_s=0.2, jitter=(0.9, 1.1), then="turn"),
            "turn": Budget(retries=5, first_wait_s=0.2, jitter=(0.9, 1.1)),
        },
        draws={
            **_whatever_came("refused", None),
            **_whatever_came("stalled", "turn"),
            ("lost", "thought"): "turn",
            ("lost", "answer"): "turn",
        },
    ),
}


class Retry(msgspec.Struct, frozen=True):
    """The request is sent again, after this wait."""

    wait_s: float


class StopTrying(msgspec.Struct, frozen=True):
    """The agent stops, and its user reads why."""

    reason: str


class FailedRequests:
    """The failures of one turn so far."""

    def __init__(self, rules: RetryRules) -> None:
        self._rules = rules
        self._used: dict[BudgetName, int] = {}

    def note(self, failure: Failure, progress: Progress, draw: float) -> Retry | StopTrying:
        """Return what the agent does after a failure. `draw` is random, from 0 to 1."""
        name = self._rules.draws.get((failure, progress), "usual")
        if name is None:
            return StopTrying(_REASONS[failure])
        while name is not None:
            budget = self._rules.budgets[name]
            used = self._used.get(name, 0)
            if used < budget.retries:
                self._used[name] = used + 1
                return Retry(budget.wait_s(used + 1, draw))
            if budget.then is not None:
                self._used[name] = 0
            name = budget.then
        return StopTrying("retries used up")


#: Why an agent does not even try again.
_REASONS: Mapping[Failure, str] = {"untrusted": "certificate not trusted", "refused": "request refused"}
