"""Computes the task times of an arm on any link, from its bytes and tokens per turn; nothing here is measured.

Not here: the timing model (`links.conversation_time`), measuring the bytes and choosing the links (`time_grid`).
"""

from __future__ import annotations

from statistics import median

import msgspec
from msgspec.structs import replace

from segue.bench.arms.agent_paths import cold_sidecar, warm_sidecar
from segue.bench.arms.measurement import TaskRound
from segue.bench.arms.table import MeasuredArm
from segue.bench.links.conversation_time import ComputedTask, TurnLoad, compute_task
from segue.bench.links.profiles import NamedLink
from segue.bench.reports.report import Arm, RoundFigures, TurnFigures
from segue.bench.reports.report import arm as make_arm

_TCP_RTTS = 1.0
_TLS_RTTS = 1.0  # RFC 8446, 2
_UPGRADE_RTTS = 1.0  # RFC 6455, 1.3
_SIDECARS = (cold_sidecar, warm_sidecar)
#: On a link with losses, so many turns are computed in all: a short task several times, a long one once.
_LOSSY_TURNS = 30


class TaskLoad(msgspec.Struct, frozen=True):
    """What an arm carries in each turn of a workload, and how many tokens the model writes."""

    arm: MeasuredArm
    workload: str
    turns: tuple[TurnLoad, ...]

    @property
    def tokens(self) -> int:
        """How many tokens the model writes in all."""
        return sum(turn.tokens for turn in self.turns)


def load_of(arm: MeasuredArm, workload: str, at_once: TaskRound, *, token_bytes: float) -> TaskLoad:
    """Take the bytes and tokens of a round whose model wrote at once; `token_bytes` more come for each token."""
    turns = tuple(
        TurnLoad(
            turn.bytes_up_wire or 1,
            (turn.bytes_down_wire or 1) + round(token_bytes * usage.output_tokens),
            usage.output_tokens,
        )
        for turn, usage in zip(at_once.turns, at_once.usages, strict=True)
    )
    return TaskLoad(arm, workload, turns)


def bytes_of_a_token_alone(at_once: TaskRound, one_by_one: TaskRound) -> float:
    """Return how much more a token makes the server send if it is written alone, from two rounds of the same work.

    It has a record of TLS and a chunk of HTTP for itself, or a frame of the tunnel, and compresses less well.
    """
    tokens = sum(usage.output_tokens for usage in at_once.usages)
    more = (one_by_one.figures.bytes_down_wire or 0) - (at_once.figures.bytes_down_wire or 0)
    return max(0.0, more / max(1, tokens))


def setup_rtts(arm: MeasuredArm, *, tls: bool) -> float:
    """Return the round trips before the first request: TCP, TLS 1.3, and the upgrade to WebSocket.

    A sidecar has its connection before the agent begins.
    """
    if arm.open_path in _SIDECARS:
        return 0.0
    return _TCP_RTTS + (_TLS_RTTS if tls else 0.0) + (_UPGRADE_RTTS if arm.transport == "websocket" else 0.0)


def computed_arm(load: TaskLoad, link: NamedLink, tokens_s: float, *, tls: bool) -> Arm:
    """Compute a task. On a link with losses a short one is computed several times; its turns are those of the median.

    The handshake's round trips count, and its few thousand bytes do not.
    """
    rtts = setup_rtts(load.arm, tls=tls)
    seeds = range(_LOSSY_TURNS // len(load.turns) | 1 if link.loss else 1)  # an odd number, so that one is the median
    tasks = [
        compute_task(load.turns, replace(link.profile, seed=seed), setup_rtts=rtts, tokens_s=tokens_s) for seed in seeds
    ]
    chosen = sorted(tasks, key=lambda task: task.task_s)[len(tasks) // 2]
    rounds = [_round_figures(task, rtts * link.profile.rtt_s) for task in tasks]
    made = make_arm(load.arm.name, _turn_figures(load, chosen), rounds=rounds)
    return replace(made, workload=load.workload, link=link.name, tokens_s=tokens_s, basis="computed")


def _turn_figures(load: TaskLoad, task: ComputedTask) -> list[TurnFigures]:
    return [
        TurnFigures(
            bytes_up_wire=carried.up_bytes,
            bytes_down_wire=carried.down_bytes,
            at_s=turn.at_s,
            ttft_s=turn.ttft_s,
            time_s=turn.time_s,
        )
        for carried, turn in zip(load.turns, task.turns, strict=True)
    ]


def _round_figures(task: ComputedTask, set_up_s: float) -> RoundFigures:
    return RoundFigures(
        task_s=task.task_s,
        turns_s=sum(turn.time_s for turn in task.turns),
        ttft_first_s=task.turns[0].ttft_s,
        ttft_median_s=median(turn.ttft_s for turn in task.turns),
        set_up_s=set_up_s,
    )
