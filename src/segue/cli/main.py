"""`segue`: the list of commands and their options. Each command's work is in a module of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import segue
from segue.cli import agent_parameters as parameters
from segue.cli import server_benchmarks
from segue.cli.bench_commands import FlightEvents, airplane, engine, spectrum, times
from segue.cli.closed_pipe import PIPE_CLOSED_STATUS, drop_output, is_pipe_closed
from segue.cli.config_commands import config_commands
from segue.cli.conversation_commands import export, forget, import_conversation, usage
from segue.cli.end_of_options import end_options
from segue.cli.gateway_parameters import (
    Access,
    AsJson,
    Cache,
    CaFile,
    ClientCert,
    ClientKey,
    ConfigFile,
    Direct,
    GatewayKey,
    Gateways,
    Install,
    InstallIndex,
    UserConfigFile,
)
from segue.cli.key_commands import key_commands
from segue.cli.model_commands import model_commands
from segue.cli.output_file import NO_FILES, HtmlFile, JsonFile, MarkdownFile, ReportFileOptions, ReportFiles
from segue.cli.parameter_defaults import PARAMETER_DEFAULTS
from segue.cli.serve_command import serve
from segue.cli.store_commands import store_commands

app = App(
    name="segue",
    help="Stateful continuation for AI agents and model providers: keep the context where it is needed, "
    "send only what is new.",
    version=segue.__version__,
    version_flags=["--version"],
    default_parameter=PARAMETER_DEFAULTS,
)
bench = App(name="bench", help="Measure on this machine what continuation costs and saves.")
app.command(bench)
bench.command(airplane)
bench.command(engine)
bench.command(spectrum)
bench.command(times)
app.command(serve)
app.command(config_commands)
app.command(key_commands)
app.command(model_commands)
app.command(store_commands)
app.command(usage)
app.command(export)
app.command(forget)
app.command(import_conversation, name="import")
app.register_install_completion_command()


@app.command
def sidecar(  # noqa: PLR0913 - one for each option
    *,
    config: UserConfigFile = None,
    gateway: Gateways = (),
    listen: Annotated[
        str | None, Parameter(help="HOST:PORT; port 0 picks a free one [default: 127.0.0.1:4748].")
    ] = None,
    key: GatewayKey = None,
    access: Access = None,
    direct: Direct = None,
    install: Install = None,
    install_index: InstallIndex = None,
    cafile: CaFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    cache: Cache = None,
    stats: Annotated[bool, Parameter(help="Show what the running sidecar is doing.", negative="")] = False,
    log: Annotated[Literal["debug", "info", "warning", "error"], Parameter(help="How much to log on stderr.")] = "info",
) -> int:
    """Run the local end of the tunnel: agents talk to it as to the provider, and it sends a gateway what is new.

    Prints `segue: sidecar listening on URL` when it is ready. Point agents at URL/anthropic, URL/openai/v1 or
    URL/gemini. On SIGTERM or Ctrl-C it ends, and prints its counters as one JSON object.
    """
    if stats:
        from segue.cli.stats_view import run_stats

        return run_stats(config, listen)
    from segue.cli.sidecar import run_sidecar

    return run_sidecar(
        config,
        log=log,
        gateways=gateway,
        listen=listen,
        key=key,
        access=access,
        direct=direct,
        install=install,
        install_index=install_index,
        cafile=None if cafile is None else str(cafile),
        client_cert=None if client_cert is None else str(client_cert),
        client_key=None if client_key is None else str(client_key),
        cache=cache,
    )


@app.command
def run(  # noqa: PLR0913 - one for each option
    *command: Annotated[str, Parameter(help="The program and its arguments, behind --.", allow_leading_hyphen=False)],
    config: UserConfigFile = None,
    gateway: Gateways = (),
    key: GatewayKey = None,
    access: Access = None,
    direct: Direct = None,
    install: Install = None,
    install_index: InstallIndex = None,
    cafile: CaFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    cache: Cache = None,
    check: Annotated[
        bool, Parameter(help="Look for the gateway first, and do not start the program without one.")
    ] = True,
    log: Annotated[Path | None, Parameter(help="Append the log of sidecar and gateway to this file.")] = None,
    stats: Annotated[bool, Parameter(help="At the end, print all that was counted.", negative="")] = False,
) -> int:
    """Run an agent through a sidecar of its own: segue run --gateway wss://HOST -- claude

    It points the agent at the sidecar with the variables that the SDKs of Anthropic, OpenAI and Google read. Without
    --gateway it starts a gateway in this process. At the end it prints on stderr how many bytes were saved, and returns
    the agent's exit status.
    """
    from segue.cli.run import RunSwitches, run_command

    return run_command(
        command,
        RunSwitches(log=log, check=check, stats=stats),
        path=config,
        gateways=gateway,
        key=key,
        access=access,
        direct=direct,
        install=install,
        install_index=install_index,
        cafile=None if cafile is None else str(cafile),
        client_cert=None if client_cert is None else str(client_cert),
        client_key=None if client_key is None else str(client_key),
        cache=cache,
    )


@app.command(show=False)
def ssh_relay() -> int:
    """What `--gateway ssh://HOST` runs on HOST: it relays to this user's gateway, and starts it if it does not run."""
    from segue.cli.ssh_relay import run_ssh_relay

    return run_ssh_relay()


@app.command(show=False)
def ssh_gateway() -> int:
    """The gateway that `segue ssh-relay` starts."""
    from segue.cli.ssh_gateway import run_ssh_gateway

    return run_ssh_gateway()


@app.command
def doctor(
    *command: Annotated[
        str, Parameter(help="The agent whose settings are checked too, behind --.", allow_leading_hyphen=False)
    ],
    config: UserConfigFile = None,
    gateway: Gateways = (),
    key: GatewayKey = None,
    cafile: CaFile = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    json: AsJson = False,
) -> int:
    """Check the way to the gateway and the provider, and say what to do: segue doctor --gateway wss://HOST -- claude

    Each line is one check: ✓ is well, ! may not matter to this agent, ✗ has to be mended. The exit status is 1 if there
    is a ✗, else 0.
    """
    from segue.cli.doctor import run_doctor

    return run_doctor(
        command,
        path=config,
        gateways=gateway,
        as_json=json,
        key=key,
        cafile=None if cafile is None else str(cafile),
        client_cert=None if client_cert is None else str(client_cert),
        client_key=None if client_key is None else str(client_key),
    )


@app.command
def check_config(*, config: ConfigFile = None, json: AsJson = False) -> int:
    """Read the configuration as `serve` does, and print what it means, or what is wrong with it."""
    from segue.cli.check_config import run_check_config

    return run_check_config(config, as_json=json)


@app.command
def demo(
    *,
    model: Annotated[Path | None, Parameter(help="A GGUF file instead of the model in the box.")] = None,
    json: JsonFile = None,
    slow_link: Annotated[bool, Parameter(help="Then hold one on an emulated slow link, for ten seconds.")] = True,
) -> int:
    """Hold one conversation with a real model twice: resent in full over HTTP, then continued over WebSocket."""
    from segue.cli.demo import run_demo

    return run_demo(model, json, slow_link=slow_link)


@app.command
def agent(  # noqa: PLR0913 - one for each option
    task: parameters.Task = None,
    /,
    *,
    workspaces: parameters.Workspaces = (),
    copies: parameters.Copies = None,
    config: UserConfigFile = None,
    base_url: parameters.BaseUrl = None,
    model: parameters.Model = None,
    key: parameters.Key = None,
    transport: parameters.Transport = None,
    store: parameters.Store = None,
    history: parameters.History = None,
    yes: parameters.Yes = False,
    resume: parameters.Resume = False,
    transcript: parameters.TranscriptFile = None,
    max_turns: parameters.MaxTurns = 100,
    max_seconds: parameters.MaxSeconds = None,
    max_tokens: parameters.MaxTokens = None,
    json: JsonFile = None,
    list_tasks: parameters.ListTasks = False,
    make_task: parameters.MakeTask = None,
    check_task: parameters.CheckTask = None,
) -> int:
    """Let a model work on a task in a folder, with tools that list, read, search, edit, write and run.

    It asks before it runs a command. The exit status is 0 only if the run came to its end, and the task's own check, if
    it has one, passed.
    """
    from segue.agent.progress import RunLimits
    from segue.cli import agent as command

    if list_tasks:
        return command.show_tasks()
    if make_task is not None:
        return command.make_workspace(*make_task)
    if check_task is not None:
        return command.check_workspace(check_task)
    return command.run_agent(
        command.AgentOptions(
            task=task,
            workspaces=workspaces,
            copies=copies,
            config=config,
            base_url=base_url,
            model=model,
            key=key,
            transport=transport,
            store=store,
            history=history,
            yes=yes,
            resume=resume,
            transcript=transcript,
            limits=RunLimits(turns=max_turns, time_s=max_seconds, tokens=max_tokens),
            json_file=json,
        )
    )


@bench.command
def gateway(
    *,
    quick: Annotated[bool, Parameter(help="Fewer and shorter rounds, under 40 s.", negative="")] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """CPU per turn by depth, latency added to an event, memory per idle connection, store bytes per turn."""
    from segue.cli.bench import run_bench_gateway

    return run_bench_gateway(quick=quick, files=files)


@bench.command
def tunnel(
    *,
    quick: Annotated[bool, Parameter(help="Fewer and shorter rounds, under 20 s.", negative="")] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """CPU per request of sidecar and gateway for large bodies, and the delay of a reply's first event."""
    from segue.cli.bench import run_bench_tunnel

    return run_bench_tunnel(quick=quick, files=files)


@bench.command
def dialects(
    *,
    quick: Annotated[bool, Parameter(help="Fewer and shorter rounds, under a minute.", negative="")] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """CPU per turn by dialect and depth, beside the size of the body that a provider must be sent."""
    from segue.cli.bench import run_bench_dialects

    return run_bench_dialects(quick=quick, files=files)


@bench.command
def table(  # noqa: PLR0913 - the options of two measurements
    *,
    workload: Annotated[
        list[str] | None,
        Parameter(
            help="article, loop-12, conversation:N (N turns), or one of the agent's tasks; give it again for more "
            "[default: article].",
            negative="",
        ),
    ] = None,
    arms: Annotated[
        list[str] | None, Parameter(help="Measure this arm alone; give it again for more.", negative="")
    ] = None,
    link: Annotated[
        str | None, Parameter(help="An emulated network before the server: see `segue bench links`.")
    ] = None,
    tokens_s: Annotated[
        float | None, Parameter(help="Tokens that the model writes a second [default: all at once].")
    ] = None,
    rounds: Annotated[int | None, Parameter(help="How often each arm does the work [default: 5; quick: 1].")] = None,
    tls: Annotated[bool, Parameter(help="Code the wire by TLS, with a throw-away certificate.")] = True,
    session: Annotated[
        Literal["codex", "codex-ws", "claude-code", "pi", "qwen-code", "gemini-cli", "openai-agents", "mini-swe-agent"]
        | None,
        Parameter(help="Measure the bytes of this agent's traffic instead."),
    ] = None,
    turns: Annotated[int, Parameter(help="Model requests in that traffic.")] = 11,
    trace: Annotated[Path | None, Parameter(help="The same of this recorded session (JSON lines, or .gz).")] = None,
    quick: Annotated[bool, Parameter(help="Do everything once, and leave out bodies of 20 MB.", negative="")] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Workloads on every arm: bytes, times, and what it costs the server; or one agent's traffic on the wire.

    An arm is a way to carry a conversation: HTTP or WebSocket, replay or id, stored or not, through a sidecar, and
    computed, with compression. With --session or --trace, it counts the bytes of a real agent's traffic: raw, with
    gzip, zstd or permessage-deflate, and through a sidecar that is cold or warm; then the CPU time for encoding and
    decoding bodies of 1 MB and 20 MB.
    """
    from segue.cli.bench_table import run_bench_table, run_bench_workloads

    if session is not None or trace is not None:
        return run_bench_table(session or "codex", turns=turns, rounds=rounds, quick=quick, trace=trace, files=files)
    return run_bench_workloads(
        workload or (),
        arms=arms or (),
        link=link,
        tokens_s=tokens_s,
        rounds=rounds,
        tls=tls,
        quick=quick,
        files=files,
    )


@bench.command
def links(*, json: JsonFile = None) -> int:
    """The network links that benchmarks know: delay, rates and loss, and what published each number."""
    from segue.cli.bench_links import run_bench_links

    return run_bench_links(json_file=json)


@bench.command(name="run")
def bench_run(  # noqa: PLR0913 - one for each option
    *command: Annotated[str, Parameter(help="The program and its arguments, behind --.", allow_leading_hyphen=False)],
    config: UserConfigFile = None,
    gateway: Gateways = (),
    key: GatewayKey = None,
    cafile: CaFile = None,
    cache: Cache = None,
    link: Annotated[
        str | None, Parameter(help="An emulated network before this command's own gateway: see `segue bench links`.")
    ] = None,
    event: FlightEvents = (),
    task: Annotated[
        str | None,
        Parameter(
            help="Let the agent solve this task of `segue agent` with a scripted model in the providers' place; "
            "`{prompt}` in the command is what it is told."
        ),
    ] = None,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Run an agent through a metered sidecar: segue bench run -- claude -p 'Fix the tests.'

    At the end it shows on stderr, for each request, the bytes that the agent would have sent straight and those on the
    tunnel, times, and the CPU time of sidecar and gateway, and returns the agent's exit status. Without --gateway it
    starts a gateway of its own.
    """
    from segue.cli.bench_run import RunOptions, run_bench_run

    return run_bench_run(
        command,
        RunOptions(
            config=config,
            gateways=gateway,
            key=key,
            cafile=cafile,
            cache=cache,
            link=link,
            events=event,
            task=task,
            files=files,
        ),
    )


@bench.command
def capacity(  # noqa: PLR0913 - one for each assumption
    *,
    sessions: Annotated[int, Parameter(help="Agents at work at the same time.")] = 1_000_000,
    turns: Annotated[int, Parameter(help="Turns of a task.")] = 10,
    first_bytes: Annotated[int, Parameter(help="Bytes of a task's first request.")] = 3_200,
    growth_bytes: Annotated[int, Parameter(help="Bytes that each turn adds to the conversation.")] = 3_200,
    delta_bytes: Annotated[int, Parameter(help="Bytes of a later request that sends only what is new.")] = 3_200,
    task_s: Annotated[float, Parameter(help="Seconds of a task, if both ways take the same.")] = 40.0,
    replay_s: Annotated[float, Parameter(help="Seconds of a task that sends everything in each turn.")] = 40.8,
    delta_s: Annotated[float, Parameter(help="Seconds of a task that sends only what is new.")] = 28.9,
    cpu_ms: Annotated[
        float | None, Parameter(help="Milliseconds of CPU that a turn costs the gateway [default: not counted].")
    ] = None,
    connection_bytes: Annotated[
        float | None, Parameter(help="Bytes of memory that an open connection takes [default: not counted].")
    ] = None,
    results: Annotated[
        Path | None, Parameter(help="Take those two from this file, which `segue bench gateway --json` wrote.")
    ] = None,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """What a fleet of agents sends, what continuation saves of it, and what state costs: arithmetic, not measured.

    It shows every assumption, with where its default comes from.
    """
    from segue.bench.capacity import FleetWorkload
    from segue.cli.bench_capacity import run_bench_capacity

    workload = FleetWorkload(
        sessions=sessions,
        turns=turns,
        first_bytes=first_bytes,
        growth_bytes=growth_bytes,
        delta_bytes=delta_bytes,
        task_s=task_s,
        replay_s=replay_s,
        delta_s=delta_s,
        cpu_ms=cpu_ms,
        connection_bytes=connection_bytes,
    )
    return run_bench_capacity(workload, results=results, files=files)


bench.command(server_benchmarks.endpoint)
bench.command(server_benchmarks.peers)
bench.command(server_benchmarks.cluster)


@bench.command
def compare(
    before: Annotated[Path, Parameter(help="What a benchmark wrote with --json.")],
    after: Annotated[Path, Parameter(help="The same, of another run.")],
    /,
    *,
    fail_over: Annotated[
        float | None,
        Parameter(help="End with status 1 if something got worse by more than this percentage [default: never]."),
    ] = None,
    json: Annotated[Path | None, Parameter(help="Also write the comparison to this file.")] = None,
) -> int:
    """Compare two result files: medians, ratios, which differences are within noise, and what else differs."""
    from segue.cli.bench_compare import run_bench_compare

    return run_bench_compare(before, after, fail_over=fail_over, json_file=json)


@bench.command
def report(
    *results: Annotated[Path, Parameter(help="What a benchmark wrote with --json.")],
    html: HtmlFile = None,
    markdown: MarkdownFile = None,
) -> int:
    """Result files for readers: one page with tables and plots, or Markdown. Without either option, print Markdown.

    The page needs nothing beside itself: you can send it, or open it without a network.
    """
    from segue.cli.bench_report import run_bench_report

    return run_bench_report(results, files=ReportFiles(html=html, markdown=markdown))


@bench.command
def advise(  # noqa: PLR0913 - one for each property of the workload
    *,
    turns: Annotated[int, Parameter(help="Turns of a task.")] = 10,
    first_bytes: Annotated[int, Parameter(help="Bytes of a task's first request.")] = 3_200,
    growth_bytes: Annotated[int, Parameter(help="Bytes that each turn adds to the conversation.")] = 3_200,
    delta_bytes: Annotated[int, Parameter(help="Bytes of a later request that sends only what is new.")] = 3_200,
    link: Annotated[
        Literal["data-centre", "fibre", "leo-in-flight", "slow-4g", "geo-in-flight", "geo-in-flight-bad", "2g"],
        Parameter(help="The network: see `segue bench links`."),
    ] = "fibre",
    tokens_s: Annotated[float, Parameter(help="Tokens that the model writes a second.")] = 65.0,
    output_tokens: Annotated[int, Parameter(help="Tokens that it writes in a turn.")] = 523,
    api: Annotated[
        Literal["responses", "other"], Parameter(help="What the agent speaks: the Responses API, or another.")
    ] = "responses",
    short_lived: Annotated[
        bool, Parameter(help="No process lives between turns, as in a serverless function.", negative="")
    ] = False,
    files: ReportFileOptions = NO_FILES,
) -> int:
    """Plain HTTP, an id, or the sidecar: which way fits a workload. Rules and arithmetic, not measured."""
    from segue.bench.advice import AgentWorkload
    from segue.bench.capacity import FleetWorkload
    from segue.bench.links.profiles import LINKS
    from segue.cli.bench_advise import run_bench_advise

    workload = AgentWorkload(
        sizes=FleetWorkload(turns=turns, first_bytes=first_bytes, growth_bytes=growth_bytes, delta_bytes=delta_bytes),
        link=LINKS[link],
        tokens_s=tokens_s,
        output_tokens=output_tokens,
        api=api,
        short_lived=short_lived,
    )
    return run_bench_advise(workload, files=files)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, or these arguments instead; the exit status is the command's."""
    from segue.cli.key_argument import hide_key
    from segue.config import ConfigError

    if arguments is None:
        hide_key()
    given = end_options(app, sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(given, result_action="return_value")
        sys.stdout.flush()  # here, where an error of it has a meaning
    except (BrokenPipeError, SystemExit) as error:
        if not is_pipe_closed(error):
            raise
        drop_output()
        status = PIPE_CLOSED_STATUS
    except ConfigError as error:
        print(f"segue: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    sys.exit(status if isinstance(status, int) else 0)
