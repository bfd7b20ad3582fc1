"""`segue bench run`: runs an agent through a metered sidecar, and shows what each of its requests cost on both sides.

The agent has the terminal, as under `segue run`; what was measured goes to stderr at the end. Without `--gateway` there
is a gateway of this command's own; `--link` puts an emulated network before it, `--event` breaks that, and `--task`
puts a scripted model behind it. Not here: what is measured (`segue.bench.metered_run`), the task
(`segue.bench.agent_task`), and the processes of sidecar and gateway (`segue.cli.bench_run_process`).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, chdir
from pathlib import Path, PurePath
from typing import NamedTuple

import msgspec

from segue.agent.tasks import TASKS
from segue.bench.agent_task import PROMPT, AgentTask, TaskOutcome, agent_task
from segue.bench.arms.child import Child, ChildError, launched
from segue.bench.arms.flight import flown_profile, troubled
from segue.bench.arms.tls import Authority, terminated, why_no_tls
from segue.bench.links.profiles import LINKS
from segue.bench.metered_run import MeteredEnds, MeteredRun, metering, render
from segue.bench.meters.tcp import WireBytes
from segue.bench.workloads.flight_plan import FlightEvent, FlightPlanError, read_events
from segue.cli.bench_output import show
from segue.cli.bench_run_process import PrivateGatewaySpec, UserSidecarSpec
from segue.cli.child_process import ChildProcess
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.cli.run import NOT_FOUND, launch_of, run_child
from segue.cli.sidecar import LoadedConfig, load_sidecar
from segue.cli.start_errors import start_error
from segue.config import ConfigError, child_environment
from segue.sidecar.agent_environment import Launch
from segue.terminal import terminal
from segue.testing.link import PLAIN, EmulatedLink, linked

_PROCESS = "segue.cli.bench_run_process"
_KEY = "SEGUE_SIDECAR_KEY"
_SIGNALLED = 128


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    config: Path | None
    gateways: tuple[str, ...]
    key: str | None
    cafile: Path | None
    cache: bool | None
    link: str | None
    events: tuple[str, ...]
    task: str | None
    files: ReportFiles


def run_bench_run(command: Sequence[str], options: RunOptions) -> int:
    """Run the command; return its exit status."""
    if not command:
        raise ConfigError("what is to be run? For example: segue bench run -- claude -p 'Fix the tests.'")
    if options.link is not None and options.link not in LINKS:
        raise ConfigError(f"there is no link {options.link!r}; `segue bench links` lists them")
    try:
        events = read_events(options.events)
    except FlightPlanError as error:
        raise ConfigError(str(error)) from None
    if shutil.which(command[0], path=child_environment().get("PATH")) is None:
        print(f"segue: {command[0]}: not found", file=sys.stderr)
        return NOT_FOUND
    loaded = load_sidecar(options.config, gateways=options.gateways, port=0)
    if (events or options.link or options.task) and loaded.config.sidecar.gateways:
        raise ConfigError(
            "--link, --event and --task are for this command's own gateway; there is another in --gateway or "
            "[sidecar] gateways"
        )
    if (events or options.link) and (missing := why_no_tls()):
        raise ConfigError(missing)
    _check_task(command, options.task)
    try:
        return run(_run(command, options, loaded, events=events))
    except asyncio.CancelledError:  # Ctrl-C before the program ran
        return _SIGNALLED + signal.SIGINT
    except (ChildError, OSError) as error:
        raise start_error(error) from error


def _check_task(command: Sequence[str], task: str | None) -> None:
    if task is None:
        return
    if task not in TASKS:
        raise ConfigError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")
    if not any(PROMPT in argument for argument in command):
        raise ConfigError(f"with --task, write {PROMPT} in the command where the agent is told what to do")


async def _run(
    command: Sequence[str], options: RunOptions, loaded: LoadedConfig, *, events: Sequence[FlightEvent]
) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    child = ChildProcess(lambda: loop.call_soon_threadsafe(task.cancel))
    with child.signals():
        async with _task(options.task) as task_at_work:
            provider = None if task_at_work is None else task_at_work.url
            async with _ends(options, loaded, provider) as (ends, link), metering(ends) as metered_run:
                if metered_run.why_no_link is not None:
                    raise ConfigError(f"no gateway can be reached: {metered_run.why_no_link}; `segue doctor` says more")
                async with _flown(events, link):
                    status, launch = await _agent(child, command, metered_run.url, loaded=loaded, task=task_at_work)
                await metered_run.settle()
            outcome = None if task_at_work is None else task_at_work.outcome()
    _show(metered_run, launch, status, options=options, loaded=loaded, outcome=outcome)
    return status


@asynccontextmanager
async def _task(name: str | None) -> AsyncIterator[AgentTask | None]:
    if name is None:
        yield None
        return
    async with agent_task(name) as task:
        yield task


async def _agent(
    child: ChildProcess, command: Sequence[str], url: str, *, loaded: LoadedConfig, task: AgentTask | None
) -> tuple[int, Launch]:
    """Run the agent to its end, where the task is if there is one."""
    if task is None:
        launch = launch_of(command, url, loaded.config)
        return await run_child(child, launch), launch
    with chdir(task.folder):
        launch = launch_of(task.command(command), url, loaded.config)
        variables = {**launch.variables, "PWD": str(task.folder)}
        return await run_child(child, launch._replace(variables=variables)), launch


class StartedEnds(NamedTuple):
    """What is behind the agent. `link`: the network before our own gateway; None: the gateway is the user's."""

    ends: MeteredEnds
    link: EmulatedLink | None


@asynccontextmanager
async def _ends(options: RunOptions, loaded: LoadedConfig, provider: str | None) -> AsyncIterator[StartedEnds]:
    """Start what is behind the agent, and say what can be read of it. `provider`: what stands in for all providers."""
    config = None if options.config is None else str(options.config)
    gateways = tuple(loaded.config.sidecar.gateways)
    key = options.key if gateways else secrets.token_urlsafe(32)
    cafile = None if options.cafile is None else str(options.cafile.absolute())
    children: dict[str, Child] = {}
    link: EmulatedLink | None = None
    async with AsyncExitStack() as stack:
        if not gateways:
            assert key is not None, "there is one for our own gateway"
            spec = PrivateGatewaySpec(config, hashlib.sha256(key.encode()).hexdigest(), provider)
            gateway = children["gateway"] = await stack.enter_async_context(launched(spec, _PROCESS))
            way = await stack.enter_async_context(_way_to(gateway, options))
            link, gateways = way.link, (way.url,)
            cafile = way.cafile
        proxy = None if link is None else ""  # our own gateway is on this machine
        sidecar_spec = UserSidecarSpec(config, gateways, cafile, options.cache, proxy)
        sidecar = children["sidecar"] = await stack.enter_async_context(
            launched(sidecar_spec, _PROCESS, environ=_with_key(key))
        )
        ends = MeteredEnds(
            host=sidecar.host,
            port=sidecar.port,
            cpu_s=_cpu_of(children),
            carried=None if link is None else _carried_by(link),
            rtt_s=0.0 if link is None else link.profile.rtt_s,
        )
        yield StartedEnds(ends, link)


class WayToGateway(NamedTuple):
    """The network before our own gateway. `cafile`: what the sidecar verifies the gateway by; None: it need not."""

    link: EmulatedLink
    url: str
    cafile: str | None


@asynccontextmanager
async def _way_to(gateway: Child, options: RunOptions) -> AsyncIterator[WayToGateway]:
    """Put the network before our own gateway. One that is emulated has TLS, whose round trips are part of it."""
    if options.link is None and not options.events:
        async with linked(gateway.host, gateway.port, PLAIN) as link:
            yield WayToGateway(link, link.url, None)
        return
    authority = Authority()
    profile = PLAIN if options.link is None else flown_profile(LINKS[options.link], 0)
    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder:
        file = Path(folder) / "authority.pem"
        authority.write(file)
        async with (
            terminated(gateway.host, gateway.port, authority.server_context()) as ended,
            linked(ended.host, ended.port, profile) as link,
        ):
            yield WayToGateway(link, f"wss://{link.host}:{link.port}", str(file))


def _carried_by(link: EmulatedLink) -> Callable[[], WireBytes]:
    return lambda: WireBytes(link.sent_up_bytes, link.sent_down_bytes)


@asynccontextmanager
async def _flown(events: Sequence[FlightEvent], link: EmulatedLink | None) -> AsyncIterator[None]:
    """Let the events happen to the link while the agent runs."""
    if not events or link is None:
        yield
        return
    async with troubled(events, link, context=Authority().server_context(), on_event=lambda _: None):
        yield


def _with_key(key: str | None) -> Mapping[str, str] | None:
    """Return the environment of the sidecar; None: ours, which may have a key already."""
    return None if key is None else {**child_environment(), _KEY: key}


def _cpu_of(children: Mapping[str, Child]) -> Callable[[], Awaitable[Mapping[str, float]]]:
    async def cpu_s() -> dict[str, float]:
        return {name: (await child.usage()).cpu_ns / 1e9 for name, child in children.items()}

    return cpu_s


def _show(
    metered_run: MeteredRun,
    launch: Launch,
    status: int,
    *,
    options: RunOptions,
    loaded: LoadedConfig,
    outcome: TaskOutcome | None,
) -> None:
    program = PurePath(launch.command[0]).name
    settings = {
        "command": program,
        "link": options.link,
        "events": list(options.events),
        "task": options.task,
        "gateway": "given" if loaded.config.sidecar.gateways else "own",
        "status": status,
    }
    report = metered_run.report(settings)
    if outcome is not None:
        report = msgspec.structs.replace(report, figures=[*report.figures, *outcome.figures])
    console = terminal(stderr=True)
    if metered_run.exchanges:
        show(report, render, console, files=options.files)
    else:
        print(_nothing_came(program, launch.variables), file=sys.stderr)
        show(report, lambda *_: None, console, files=options.files)
    if outcome is not None:
        print(f"segue: {outcome.sentence}", file=sys.stderr)


def _nothing_came(program: str, variables: Mapping[str, str]) -> str:
    """Say what the program was given and did not use, so that its user can set it."""
    given = [
        f"{name}={variables[name]}" for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")
    ]
    return (
        f"segue: {program} sent no request through the sidecar, so there is nothing to show. It was given "
        f"{', '.join(given)}. If it reads none of these, set its own option for the base URL from one of them: the "
        "port is another in each run."
    )
