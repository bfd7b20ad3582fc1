"""Commands of `segue bench` with their options, which `main` puts in its list.

Not here: their work, which each imports when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from segue.cli.output_file import NO_FILES, PlotFile, ReportFileOptions

FlightEvents = Annotated[
    tuple[str, ...],
    Parameter(
        name="--event",
        help="What happens to the network, as WHAT@SECONDS+LENGTH: `dark`, `handover` or `portal`. Repeat it for more.",
        negative="",
        show_default=False,
    ),
]


def spectrum(
    *,
    workload: Annotated[str, Parameter(help="What is worked on: see `segue bench table`.")] = "article",
    link: Annotated[str, Parameter(help="The network: see `segue bench links`.")] = "fibre",
    tokens_s: Annotated[float | None, Parameter(help="How fast the model writes [default: at once].")] = None,
    rounds: Annotated[int | None, Parameter(help="How often each is measured [default: 3; quick: 1].")] = None,
    engine: Annotated[
        Path | None, Parameter(help="Take the local model's figures from this file of `segue bench engine --json`.")
    ] = None,
    quick: Annotated[bool, Parameter(help="Measure each once.", negative="")] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Where a conversation's state can be, how long it lasts there, and what that costs: measured, or cited."""
    from segue.cli.bench_spectrum import run_bench_spectrum

    return run_bench_spectrum(
        workload,
        link=link,
        tokens_s=tokens_s,
        rounds=rounds or (1 if quick else 3),
        engine=engine,
        files=files,
    )


def airplane(
    *,
    agent: Annotated[
        Literal["claude-code", "codex"], Parameter(help="Whose session it is, and whose time-outs and retries.")
    ] = "claude-code",
    link: Annotated[
        str | None,
        Parameter(help="The network: see `segue bench links` [default: geo-in-flight; quick: leo-in-flight]."),
    ] = None,
    turns: Annotated[int | None, Parameter(help="Length of the session [default: 15; quick: 4].")] = None,
    tokens_s: Annotated[
        float | None, Parameter(help="How fast the model writes: 65 is slow, 1000 is fast [default: 65; quick: 1000].")
    ] = None,
    event: FlightEvents = (),
    seed: Annotated[int, Parameter(help="What the session, the losses and the random waits are drawn from.")] = 1,
    quick: Annotated[bool, Parameter(help="A short flight on a faster link, a few seconds long.", negative="")] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """An agent's task on a flight with hand-overs, an outage and a captive portal: plain, and through a sidecar.

    Both run in real time over an emulated link with real TLS. The agent waits, retries and gives up by the published
    rules of its makers. The default takes about two minutes.
    """
    from segue.cli.bench_airplane import run_bench_airplane

    return run_bench_airplane(
        agent,
        link=link,
        turns=turns,
        tokens_s=tokens_s,
        events=event,
        seed=seed,
        quick=quick,
        files=files,
    )


def times(  # noqa: PLR0913 - each is one dimension of what is measured
    *,
    workload: Annotated[
        list[str] | None,
        Parameter(
            help="What is worked on: see `segue bench table`; give it again for more [default: article].", negative=""
        ),
    ] = None,
    computed: Annotated[
        list[str] | None,
        Parameter(
            help="The same of what is only computed, since it takes long [default: conversations of 20, 50 and 84 "
            "turns; quick: none].",
            negative="",
        ),
    ] = None,
    link: Annotated[
        list[str] | None,
        Parameter(
            help="A link that is measured; give it again for more [default: fibre, leo-in-flight, slow-4g and "
            "geo-in-flight].",
            negative="",
        ),
    ] = None,
    tokens_s: Annotated[
        list[float] | None,
        Parameter(
            help="Tokens that the model writes a second; give it again for more [default: 65 and 1000; quick: 1000].",
            negative="",
        ),
    ] = None,
    rounds: Annotated[int | None, Parameter(help="How often each is measured [default: 3; quick: 1].")] = None,
    tls: Annotated[bool, Parameter(help="Code the wire by TLS, with a throw-away certificate.")] = True,
    quick: Annotated[
        bool, Parameter(help="Measure the fast model once, and compute no long ones.", negative="")
    ] = False,
    resume: Annotated[
        Path | None, Parameter(help="Go on with what this file has not: `--json` of a run that was stopped.")
    ] = None,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """How long a task takes over links and at model speeds: by replay, by id, and through a sidecar.

    Everything runs in real time over emulated links. Other links and long conversations are computed by the same timing
    model. The default takes about six minutes; what is measured is kept in the file of --json as soon as it is there.
    """
    from segue.cli.bench_times import grid_of, run_bench_times

    grid = grid_of(
        workload or (),
        computed=computed or (),
        links=link or (),
        speeds=tokens_s or (),
        rounds=rounds,
        tls=tls,
        quick=quick,
    )
    return run_bench_times(grid, resume=resume, files=files)


def engine(  # noqa: PLR0913 - each says something else of what is measured
    *,
    model: Annotated[
        str | None, Parameter(help="smollm2, tiny (made on the spot), or a GGUF file [default: smollm2].")
    ] = None,
    chat_template: Annotated[
        Path | None, Parameter(help="A chat template, for a model file that has none of its own.")
    ] = None,
    threads: Annotated[int | None, Parameter(help="Threads to compute with [default: one per core].")] = None,
    against: Annotated[
        Literal["llama-server"] | None,
        Parameter(help="Compare speed and memory with llama.cpp's own server (package xllamacpp), by turns."),
    ] = None,
    rounds: Annotated[
        int | None,
        Parameter(help="How often each is measured [default: 2; with --against 3, and 2 if quick]."),
    ] = None,
    piece: Annotated[
        tuple[str, ...],
        Parameter(
            help="With --against: measure only this piece, such as prompt-2048, at-once-4, turns or beside. Repeat it "
            "for more.",
            negative="",
            show_default=False,
        ),
    ] = (),
    quick: Annotated[
        bool,
        Parameter(
            help="The tiny model, shorter contexts; under a minute. With --against: the model in the box.", negative=""
        ),
    ] = False,
    files: ReportFileOptions = NO_FILES,
    plot: PlotFile = None,
) -> int:
    """Time to the first token of the local model, by length of the context: full prefill, continuation, restore.

    With the model in the box this takes minutes, nearly all of them for the full prefill of long prompts.
    """
    from segue.cli.bench_engine import comparison_plan, run_bench_engine, run_bench_engine_against

    if against is not None:
        plan = comparison_plan(quick=quick, rounds=rounds, only=piece)
        return run_bench_engine_against(model, template=chat_template, threads=threads, plan=plan, files=files)
    if piece:
        print("segue: --piece is for --against", file=sys.stderr)
        return 2
    return run_bench_engine(
        model, template=chat_template, threads=threads, rounds=rounds, quick=quick, files=files, plot=plot
    )
