"""The arithmetic of a fleet: what continuation saves at a provider's front door, and what it costs there.

Nothing is measured. A task has turns; each turn adds the same number of bytes to the conversation. *Replay* sends the
whole conversation in every turn, *delta* only what is new. So a task's bytes grow with the square of its turns in the
one case and with their number in the other. Where the first request, the growth and the delta are equally large, the
saving is 1 - 2 / (turns + 1). KB and Gbit are decimal. Rates are means over a task. Not here: what continuation does
not change, such as the tokens that are billed; and how the result is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures, arm

_BITS = 8
_LARGEST_TURNS = 10_000

#: The figures of `segue bench gateway` that say what state costs.
CPU_FIGURE = "CPU per turn: gateway, paced, depth 1"
CONNECTION_FIGURE = "the same after a short turn: gateway"


class FleetWorkload(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet of agents does. The defaults are the assumptions of `ASSUMPTIONS`."""

    sessions: int = 1_000_000
    turns: int = 10
    first_bytes: int = 3_200
    growth_bytes: int = 3_200
    delta_bytes: int = 3_200
    task_s: float = 40.0
    replay_s: float = 40.8
    delta_s: float = 28.9
    cpu_ms: float | None = None
    connection_bytes: float | None = None


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """One assumption: the field of the workload, what it means, and where its default comes from."""

    field: str
    option: str
    meaning: str
    source: str


_MODEL = "article: gives its 176, 32 KB"
_GATEWAY = "measured: --results FILE"
ASSUMPTIONS: Sequence[Assumption] = (
    Assumption(field="sessions", option="--sessions", meaning="agents at work", source="article: its example"),
    Assumption(field="turns", option="--turns", meaning="turns per task", source="article: its example"),
    Assumption(field="first_bytes", option="--first-bytes", meaning="B, first request", source=_MODEL),
    Assumption(field="growth_bytes", option="--growth-bytes", meaning="B, growth per turn", source=_MODEL),
    Assumption(field="delta_bytes", option="--delta-bytes", meaning="B, later delta", source=_MODEL),
    Assumption(field="task_s", option="--task-s", meaning="s per task, both", source="article: its example"),
    Assumption(field="replay_s", option="--replay-s", meaning="s per task, replay", source="article: GPT-5.4, HTTP"),
    Assumption(field="delta_s", option="--delta-s", meaning="s per task, delta", source="article: GPT-5.4, WebSocket"),
    Assumption(field="cpu_ms", option="--cpu-ms", meaning="ms CPU per turn", source=_GATEWAY),
    Assumption(
        field="connection_bytes",
        option="--connection-bytes",
        meaning="B per connection",
        source=_GATEWAY,
    ),
)


def problem_of(workload: FleetWorkload) -> str | None:
    """Return what is wrong with a workload, or None."""
    for assumption in ASSUMPTIONS:
        value = getattr(workload, assumption.field)
        if value is not None and not 0 < value < float("inf"):
            return f"{assumption.option} must be more than 0"
    if workload.turns > _LARGEST_TURNS:
        return f"--turns must be at most {_LARGEST_TURNS}"
    return None


def replayed_bytes(workload: FleetWorkload) -> int:
    """Return what a task sends if every turn sends everything: turns x first + growth x turns x (turns - 1) / 2."""
    turns = workload.turns
    return turns * workload.first_bytes + workload.growth_bytes * turns * (turns - 1) // 2


def delta_bytes(workload: FleetWorkload) -> int:
    """Return what a task sends if later turns send only what is new."""
    return workload.first_bytes + workload.delta_bytes * (workload.turns - 1)


def saving(workload: FleetWorkload) -> float:
    """Return the part of the bytes that delta does not send."""
    return 1 - delta_bytes(workload) / replayed_bytes(workload)


def gbit_s(workload: FleetWorkload, task_bytes: int, task_s: float) -> float:
    """Return the fleet's mean rate, if every session begins its next task when one is done."""
    return workload.sessions * task_bytes * _BITS / task_s / 1e9


def arms(workload: FleetWorkload) -> list[Arm]:
    """Return both ways turn by turn; a task's duration is that of its own way."""
    later = range(1, workload.turns)
    replayed = [workload.first_bytes + workload.growth_bytes * turn for turn in range(workload.turns)]
    changed = [workload.first_bytes, *(workload.delta_bytes for _ in later)]
    ways = (("replay", replayed, workload.replay_s), ("delta", changed, workload.delta_s))
    return [
        arm(name, [TurnFigures(bytes_up_payload=size, time_s=task_s / workload.turns) for size in sizes])
        for name, sizes, task_s in ways
    ]


def figures(workload: FleetWorkload) -> list[Figure]:
    """Return what the fleet sends, saves and, where a measurement or an option says it, costs."""
    replayed, changed = replayed_bytes(workload), delta_bytes(workload)
    same = [gbit_s(workload, size, workload.task_s) for size in (replayed, changed)]
    own = [gbit_s(workload, replayed, workload.replay_s), gbit_s(workload, changed, workload.delta_s)]
    rows = [
        ("a task sends: replay", replayed / 1e3, "KB"),
        ("a task sends: delta", changed / 1e3, "KB"),
        ("bytes saved", 100 * saving(workload), "%"),
        (f"fleet, tasks of {workload.task_s:g} s: replay", same[0], "Gbit/s"),
        (f"fleet, tasks of {workload.task_s:g} s: delta", same[1], "Gbit/s"),
        (f"fleet, tasks of {workload.task_s:g} s: saved", same[0] - same[1], "Gbit/s"),
        (f"fleet, each its own time: replay ({workload.replay_s:g} s)", own[0], "Gbit/s"),
        (f"fleet, each its own time: delta ({workload.delta_s:g} s)", own[1], "Gbit/s"),
        ("fleet, each its own time: saved", own[0] - own[1], "Gbit/s"),
        *_costs(workload),
    ]
    return [Figure(name=name, value=value, unit=unit) for name, value, unit in rows]


def _costs(workload: FleetWorkload) -> list[tuple[str, float, str]]:
    """Return what delta costs. The memory is that of sessions that all stand at the end of their task."""
    history = workload.first_bytes + workload.growth_bytes * (workload.turns - 1)
    costs = [("state, histories kept, at most", workload.sessions * history / 1e9, "GB")]
    if workload.connection_bytes is not None:
        costs.append(("state, connections", workload.sessions * workload.connection_bytes / 1e9, "GB"))
    if workload.cpu_ms is not None:
        turns_s = workload.sessions * workload.turns / workload.delta_s
        costs.append(("CPU for the turns", turns_s * workload.cpu_ms / 1e3, "cores"))
    return costs


def with_measured_costs(workload: FleetWorkload, report: BenchReport) -> FleetWorkload | str:
    """Take the costs that were not given from the results of `segue bench gateway`; or say what they lack."""
    values = {figure.name: figure.value for figure in report.figures}
    cpu_ms, connection = values.get(CPU_FIGURE), values.get(CONNECTION_FIGURE)
    if cpu_ms is None or connection is None:
        return (
            f"has no figure {CPU_FIGURE if cpu_ms is None else CONNECTION_FIGURE!r}; `segue bench gateway` measures it"
        )
    return msgspec.structs.replace(
        workload,
        cpu_ms=workload.cpu_ms if workload.cpu_ms is not None else cpu_ms,
        connection_bytes=workload.connection_bytes if workload.connection_bytes is not None else connection * 1e3,
    )


def savings_by_turns(workload: FleetWorkload, turns: Sequence[int]) -> list[tuple[int, int, int, float]]:
    """Return for tasks of so many turns: the turns, the bytes of replay and of delta, and the part saved."""
    longer = [msgspec.structs.replace(workload, turns=count) for count in turns]
    return [(one.turns, replayed_bytes(one), delta_bytes(one), saving(one)) for one in longer]
