"""The commands of `segue bench` that measure servers of others, with their options. Not here: their work
(`bench_endpoint`, `bench_peers`), and the list of all commands (`main`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segue.cli.output_file import NO_FILES, ReportFileOptions


def endpoint(  # noqa: PLR0913 - one for each option
    url: Annotated[str, Parameter(help="Where its API is: http://127.0.0.1:4747, https://api.openai.com/v1.")],
    /,
    *,
    model: Annotated[str | None, Parameter(help="The model to ask; needed if the server has several.")] = None,
    key_env: Annotated[str | None, Parameter(help="The variable that holds your key, which is never shown.")] = None,
    turns: Annotated[int, Parameter(help="Turns of a conversation.")] = 5,
    rounds: Annotated[int, Parameter(help="Conversations for each way.")] = 3,
    turn_bytes: Annotated[int, Parameter(help="Bytes of notes in each turn.")] = 800,
    max_output_tokens: Annotated[int, Parameter(help="What an answer may have; more for a model that reasons.")] = 256,
    budget: Annotated[int, Parameter(help="Tokens, in and out, after which it asks no more.")] = 100_000,
    timeout: Annotated[float, Parameter(help="Seconds that one request may take.")] = 60.0,
    yes: Annotated[
        bool, Parameter(help="Agree to the cost at a server that is not on this machine.", negative="")
    ] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Measure somebody else's server: what it supports, what that saves there, and whether it keeps the history.

    It holds short conversations over HTTP and WebSocket, by replay and by id, asks for a code word of the first turn,
    and checks unknown ids, reconnects, lanes, compressed bodies and other APIs. It first says what that may cost.
    """
    from segue.cli.bench_endpoint import EndpointCommand, run_bench_endpoint

    command = EndpointCommand(
        url=url, model=model, key_env=key_env, deadline_s=timeout, budget=budget, agreed=yes, files=files
    )
    settings = {
        "turns": turns,
        "rounds": rounds,
        "turn_bytes": turn_bytes,
        "max_output_tokens": max_output_tokens,
    }
    return run_bench_endpoint(command, settings)


def peers(
    *only: Annotated[str, Parameter(help="Measure these alone [default: all that are installed].")],
    programs: Annotated[
        tuple[Path, ...],
        Parameter(help="Also look for their programs here, and in virtual environments within.", negative=""),
    ] = (),
    depths: Annotated[str, Parameter(help="Depths of the conversation at which to measure.")] = "1,100,500",
    rounds: Annotated[int, Parameter(help="How often each server is started and measured.")] = 3,
    window: Annotated[int, Parameter(help="Turns measured at each depth.")] = 20,
    seconds: Annotated[
        float, Parameter(help="Seconds of a conversation, after which it ends and is not repeated.")
    ] = 120.0,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Other servers that keep histories beside ours: CPU, time, memory, and whether the provider saw everything.

    It starts agentic-api, SMG, OGX and LiteLLM, where they are installed, one after the other on this machine, with the
    same scripted provider. All rounds of all servers take about a quarter of an hour.
    """
    from segue.cli.bench_peers import run_bench_peers

    settings = {
        "depths": [int(depth) if depth.strip().isdecimal() else depth for depth in depths.split(",")],
        "rounds": rounds,
        "window": window,
        "longest_s": seconds,
    }
    return run_bench_peers(settings, only=only, programs=programs, files=files)


def cluster(  # noqa: PLR0913 - one for each assumption
    *,
    sessions: Annotated[int, Parameter(help="Plan for so many sessions.")] = 1_000_000,
    turn_every: Annotated[float, Parameter(help="Seconds from a turn of a session to its next one.")] = 30.0,
    keep_days: Annotated[float, Parameter(help="How long responses are kept.")] = 30.0,
    cores: Annotated[int, Parameter(help="Cores of a node, with a worker on each.")] = 8,
    load: Annotated[float, Parameter(help="How much of its core a worker is to use; the rest is for peaks.")] = 0.6,
    connections: Annotated[int, Parameter(help="Connections of PostgreSQL that a worker opens at most.")] = 8,
    workers: Annotated[int, Parameter(help="Measure one worker and so many.")] = 2,
    rounds: Annotated[int, Parameter(help="How often each is measured.")] = 3,
    seconds: Annotated[float, Parameter(help="How long each time.")] = 4.0,
    share: Annotated[float, Parameter(help="The part of a core that each busy worker may use; needs root.")] = 0.25,
    checked_sessions: Annotated[int, Parameter(help="Sessions of the loads that have a pace.")] = 2000,
    results: Annotated[
        Path | None, Parameter(help="Measure nothing: take the costs from this file, which --json wrote.")
    ] = None,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Several gateways over PostgreSQL and Redis: what a turn costs, how workers add up, and what a million takes.

    It starts both servers and the gateways on this machine, if they are installed, and removes them again.
    """
    from segue.bench.cluster_plan import ClusterPlan
    from segue.cli.bench_cluster import run_bench_cluster

    plan = ClusterPlan(
        sessions=sessions,
        turn_every_s=turn_every,
        keep_days=keep_days,
        cores=cores,
        load=load,
        connections=connections,
    )
    settings = {
        "workers": workers,
        "rounds": rounds,
        "seconds": seconds,
        "share": share,
        "sessions": checked_sessions,
    }
    return run_bench_cluster(settings, plan, results=results, files=files)
