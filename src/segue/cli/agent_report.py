"""The JSON report of agent runs: an arm for each, in the shape and with the names that the benchmarks write.

Not here: measuring, which the loop and the client do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from segue import __version__
from segue.agent.progress import AgentTurn, RunResult
from segue.agent.tasks import TaskCheck
from segue.bench.reports.report import this_commit, this_machine
from segue.client.settings import SessionSettings


class FinishedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `check` is what the task's own check says; None: it has none."""

    name: str
    settings: SessionSettings
    result: RunResult
    reconnects: int
    check: TaskCheck | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the run came to its end, and what it did passed the check."""
        return self.result.ending == "completed" and (self.check is None or self.check.passed)


def write_agent_report(path: Path, runs: Sequence[FinishedRun]) -> None:
    """Write the report as one JSON object."""
    report = {
        "machine": this_machine(),
        "version": __version__,
        "commit": this_commit(),
        "settings": {name: getattr(runs[0].settings, name) for name in _SETTINGS},
        "arms": [_arm(run) for run in runs],
    }
    path.write_bytes(msgspec.json.encode(report) + b"\n")


def _arm(run: FinishedRun) -> dict[str, Any]:
    turns = [_figures(turn) for turn in run.result.turns]
    return {
        "name": run.name,
        "status": "completed" if run.succeeded else "failed",
        "ending": run.result.ending,
        "reason": run.result.reason,
        "check": run.check,
        "reconnects": run.reconnects,
        "run_time_s": run.result.time_s,
        "turns": turns,
        "totals": {name: _sum([turn[name] for turn in turns]) for name in _NAMES},
    }


def _figures(turn: AgentTurn) -> dict[str, Any]:
    own = msgspec.structs.asdict(turn)
    read = {"tokens_reused": turn.cached_tokens, "tokens_processed": turn.input_tokens - turn.cached_tokens}
    return {name: (own | read).get(name) for name in _NAMES}


def _sum(values: list[Any]) -> Any:  # noqa: ANN401 - whole numbers or seconds
    """Add up; what one turn lacks, the total lacks too."""
    return sum(values) if values and None not in values else None


_SETTINGS = ("model", "transport", "store", "history")
#: Those of `TurnFigures` that an agent can know (and the server's CPU, which it cannot) first, then its own.
_NAMES = (
    "bytes_up_payload",
    "bytes_up_wire",
    "bytes_down_wire",
    "ttft_s",
    "time_s",
    "server_cpu_s",
    "tokens_reused",
    "tokens_processed",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "tool_calls",
)
