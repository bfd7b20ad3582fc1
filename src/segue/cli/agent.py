"""`segue agent`: works on tasks in folders, shows what it does, and says how it ended.

Several runs share one client, and so its connections. Ctrl-C ends them cleanly; a second one ends the process. Not
here: the loop and the tools (`segue.agent`), and the screen (`agent_view`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from segue.agent.command import Approval
from segue.agent.loop import INSTRUCTIONS, AgentLoop
from segue.agent.progress import Ending, RunLimits
from segue.agent.tasks import TASKS, TaskCheck, TaskFolderError, check_task, make_task
from segue.agent.tasks.checking import task_of
from segue.agent.toolbox import Toolbox
from segue.agent.transcript import Transcript, TranscriptError
from segue.agent.workspace import Workspace
from segue.cli.agent_approval import TerminalApproval, approve_all, approve_none
from segue.cli.agent_report import FinishedRun, write_agent_report
from segue.cli.agent_view import AgentScreen, RunView
from segue.cli.loop import run
from segue.cli.output_file import writing
from segue.client import AsyncClient
from segue.client.errors import SessionFileError
from segue.client.session import AsyncSession
from segue.client.settings import HistoryMode, TransportMode
from segue.config import (
    AgentConfig,
    ConfigError,
    agent_key,
    agent_proxy,
    choose_file,
    command_environment,
    load,
    state_directory,
)
from segue.http.origins import is_loopback
from segue.sidecar.proxy import is_proxied, parse_proxy
from segue.terminal import terminal
from segue.upstreams.scripted import MODEL as SCRIPTED

_TASK_FILE = "TASK.md"
_CHECK_FAILED = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: The exit status for each way that a run ends. 2 is for what is wrong with the command itself.
EXIT_STATUSES: dict[Ending, int] = {
    "completed": 0,
    "failed": 1,
    "incomplete": 1,
    "turn_limit": 3,
    "time_limit": 4,
    "token_limit": 5,
    "interrupted": 130,
}


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    task: str | None
    workspaces: tuple[Path, ...]
    copies: int | None
    config: Path | None
    base_url: str | None
    model: str | None
    key: str | None
    transport: TransportMode | None
    store: bool | None
    history: HistoryMode | None
    yes: bool
    resume: bool
    transcript: Path | None
    limits: RunLimits
    json_file: Path | None


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what is to be done in which folder, and where it is written down."""

    name: str
    task: str
    workspace: Workspace
    transcript: Path
    resumes: bool


def run_agent(options: AgentOptions) -> int:
    """Work on all tasks; return 0 if each came to its end and passed its check, else the first other exit status."""
    config = _settings(options)
    plans = plan(options)
    model = config.model or _model_of(plans)
    try:
        runs = run(_run_all(options, plans, config, model))
    except (TranscriptError, SessionFileError) as error:
        raise ConfigError(str(error)) from None
    if options.json_file is not None:
        with writing(options.json_file):
            write_agent_report(options.json_file, runs)
    statuses = [EXIT_STATUSES[one.result.ending] or (not one.succeeded and _CHECK_FAILED) for one in runs]
    return next((status for status in statuses if status), 0)


def _settings(options: AgentOptions) -> AgentConfig:
    chosen = choose_file(options.config)
    for notice in chosen.notices:
        print(f"segue: {notice}", file=sys.stderr)
    given = {"base_url": options.base_url, "model": options.model, "key": options.key}
    return load(chosen.path, relative_to=chosen.relative_to, agent=given).agent


def _model_of(plans: Sequence[PlannedRun]) -> str:
    """Return the model that plays the built-in tasks, if they are all that there is."""
    if all(_checked(one.workspace.root) for one in plans):
        return SCRIPTED
    raise ConfigError("which model? Name it with --model; GET /v1/models of the server lists what there is")


def _checked(folder: Path) -> bool:
    try:
        task_of(folder)
    except TaskFolderError:
        return False
    return True


# --- what is to be done ----------------------------------------------------------------------------------------------


def plan(options: AgentOptions) -> list[PlannedRun]:
    """Return the runs that the options mean; make the copies of the workspace that they ask for."""
    folders = options.workspaces or (Path(),)
    if options.copies is not None:
        folders = tuple(_copies(folders, options.copies, resume=options.resume))
    if options.transcript is not None and len(folders) > 1:
        raise ConfigError("--transcript is for one run; each of several writes a file of its own")
    return [_plan(folder, options, alone=len(folders) == 1) for folder in folders]


def _copies(folders: Sequence[Path], count: int, *, resume: bool) -> Iterator[Path]:
    if len(folders) != 1:
        raise ConfigError("--parallel copies one workspace; for several, repeat --workspace alone")
    if count < 1:
        raise ConfigError("--parallel takes the number of copies, at least 1")
    folder = folders[0].resolve()
    copies = [folder.with_name(f"{folder.name}-{number}") for number in range(1, count + 1)]
    for copy in copies if not resume else ():
        try:
            shutil.copytree(folder, copy, symlinks=True)
        except OSError as error:
            raise ConfigError(f"cannot copy {folder} to {copy}: {error}") from None
    yield from copies


def _plan(folder: Path, options: AgentOptions, *, alone: bool) -> PlannedRun:
    try:
        workspace = Workspace(folder)
    except OSError as error:
        raise ConfigError(f"--workspace {folder}: {error.strerror or error}") from None
    task = options.task
    if task is None:
        try:
            task = (workspace.root / _TASK_FILE).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise ConfigError(
                f"what is to be done? Say it, or write it into {folder / _TASK_FILE} ({reason})"
            ) from None
    return PlannedRun(
        name=workspace.root.name if not alone else "agent",
        task=task,
        workspace=workspace,
        transcript=options.transcript or _transcript_of(workspace.root, resume=options.resume),
        resumes=options.resume,
    )


def _transcript_of(root: Path, *, resume: bool) -> Path:
    """Return a new file in the user's own folder, or the newest one there of this workspace."""
    states = state_directory()
    if states is None:
        raise ConfigError(
            "where is the transcript to be written? You have no home directory; name it with --transcript"
        )
    digest = hashlib.sha256(bytes(root)).hexdigest()[:12]
    folder = states / f"{re.sub(r'[^A-Za-z0-9._-]', '_', root.name)[:40]}-{digest}"
    if not resume:
        return folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(3)}.jsonl"
    found = max(folder.glob("*.jsonl"), default=None, key=lambda path: path.stat().st_mtime_ns)
    if found is None:
        raise ConfigError(f"there is no run to go on with in {root}; {folder} has no transcript")
    return found


# --- doing it --------------------------------------------------------------------------------------------------------


async def _run_all(
    options: AgentOptions, plans: Sequence[PlannedRun], config: AgentConfig, model: str
) -> list[FinishedRun]:
    await _check_address(config.base_url)
    key = agent_key(config)
    screen = AgentScreen(terminal(highlight=False), [one.name for one in plans])
    approvals = _approvals(options, screen)
    environment = command_environment(key)
    async with AsyncClient(base_url=config.base_url, api_key=key, proxy=proxy_of(config)) as client:
        with ExitStack() as stack:
            loops: list[AgentLoop] = []
            sessions: list[AsyncSession] = []
            for one, view in zip(plans, screen.views, strict=True):
                transcript = stack.enter_context(_transcript(one))
                tools = Toolbox(one.workspace, environment=environment, approval=approvals(one.workspace.root))
                session = _session(client, transcript, tools, options=options, model=model, resumes=one.resumes)
                view.session = session
                sessions.append(session)
                loops.append(AgentLoop(session, tools, transcript=transcript, limits=options.limits, observer=view))
            with screen.showing(), _ended_by_signals(loops):
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(_run_one(loop, one, view, session))
                        for loop, one, view, session in zip(loops, plans, screen.views, sessions, strict=True)
                    ]
    return [task.result() for task in tasks]


def proxy_of(config: AgentConfig) -> str | None:
    """Return the proxy on the way to the server, if one is: TLS must hide the key from it, and NO_PROXY allow it.

    Raises:
        ConfigError: it cannot be used.
    """
    chosen = agent_proxy(config)
    if chosen is None or not is_proxied(re.sub("^https:", "wss:", config.base_url), chosen.no_proxy):
        return None
    try:
        parse_proxy(chosen.address)
    except ValueError as error:
        raise ConfigError(
            f"{chosen.source}: {error}; [agent] proxy (SEGUE_AGENT_PROXY) sets another, and none if it is empty"
        ) from None
    return f"http://{chosen.address.strip().rpartition('://')[2]}"


async def _check_address(base_url: str) -> None:
    """Say what to do where nothing listens on this machine."""
    no_address = ConfigError(f"{base_url!r} is no address of an API, such as http://127.0.0.1:4747/v1")
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError):  # another scheme, or a port that is none
        raise no_address from None
    if not host:
        raise no_address
    if parts.username is not None or parts.password is not None:  # and it is not repeated here
        raise ConfigError("--base-url must not hold a user name or a password: give the key with SEGUE_AGENT_KEY")
    if not is_loopback(host):
        return
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        raise ConfigError(
            f"nothing answers at {base_url}: start a gateway there with `segue serve`, or name another with --base-url"
        ) from None
    writer.close()


@contextmanager
def _transcript(one: PlannedRun) -> Iterator[Transcript]:
    transcript = Transcript(one.transcript, resumes=one.resumes)
    try:
        if one.resumes:
            transcript.write("resumed")
        else:
            transcript.write("started", task=one.task, workspace=str(one.workspace.root))
        yield transcript
    finally:
        transcript.close()


def _session(
    client: AsyncClient, transcript: Transcript, tools: Toolbox, *, options: AgentOptions, model: str, resumes: bool
) -> AsyncSession:
    """Return the session that was saved with the transcript, or a new one where nothing was sent yet."""
    given = {"transport": options.transport, "store": options.store, "history": options.history}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    try:
        if not (resumes and transcript.session_path.exists()):
            return client.session(model, instructions=INSTRUCTIONS, tools=tools.definitions(), **changes)
        session = client.load(transcript.session_path)
        if options.model is not None:
            changes["model"] = options.model
        session.settings = msgspec.structs.replace(session.settings, **changes)
    except ValueError as error:  # three switches of which two do not go together
        raise ConfigError(str(error)) from None
    return session


def _approvals(options: AgentOptions, screen: AgentScreen) -> Callable[[Path], Approval]:
    """Return what asks the user about the commands of a run in a folder."""
    if options.yes:
        return lambda _: approve_all
    if not (sys.stdin.isatty() and screen.console.is_terminal):
        return lambda _: approve_none
    lock = asyncio.Lock()
    return lambda folder: TerminalApproval(screen.console, paused=screen.paused, lock=lock, folder=folder)


@contextmanager
def _ended_by_signals(loops: Sequence[AgentLoop]) -> Iterator[None]:
    """End the runs on Ctrl-C or SIGTERM; after the first signal, the next one ends the process as it would without."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        for one in loops:
            one.stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def _run_one(loop: AgentLoop, one: PlannedRun, view: RunView, session: AsyncSession) -> FinishedRun:
    """Run it, and check what was done where the task has a check of its own."""
    result = await loop.run(one.task)
    view.finish(result)
    check = await asyncio.to_thread(_check, one.workspace.root)
    if check is not None:
        view.checked(check)
    return FinishedRun(
        name=one.name, settings=session.settings, result=result, reconnects=session.meters.reconnects, check=check
    )


def _check(folder: Path) -> TaskCheck | None:
    try:
        return check_task(folder)
    except TaskFolderError:
        return None


# --- tasks -----------------------------------------------------------------------------------------------------------


def show_tasks() -> int:
    """Print the names of the built-in tasks, and what each is about."""
    width = max(map(len, TASKS))
    for name, about in TASKS.items():
        print(f"{name:{width}}  {about}")
    return 0


def make_workspace(name: str, folder: Path) -> int:
    """Make the workspace of a built-in task."""
    try:
        make_task(name, folder)
    except (TaskFolderError, OSError) as error:
        raise ConfigError(str(error)) from None
    print(f"segue: {folder} holds the task {name}; next: segue agent --workspace {folder} --yes")
    return 0


def check_workspace(folder: Path) -> int:
    """Check the workspace of a built-in task; print what is missing."""
    try:
        check = check_task(folder)
    except (TaskFolderError, OSError) as error:
        raise ConfigError(str(error)) from None
    print(f"segue: {check.task}: {'passed' if check.passed else 'failed'}")
    for line in check.missing:
        print(f"  {line}")
    return 0 if check.passed else _CHECK_FAILED
