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
