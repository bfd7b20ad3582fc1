"""`segue run`: runs a program whose requests go through a sidecar of its own, and prints how much that saved.

The program has the terminal: its input, its output and its signals. If you name no gateway, one runs in this process as
long as the program does. Not here: how the program is pointed at the sidecar (`segue.sidecar.agent_environment`), and
its signals (`segue.cli.child_process`).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from segue.cli.agent_settings import claude_variables, facts_of
from segue.cli.child_process import ChildProcess
from segue.cli.doctor import diagnose_all, marks_of, print_findings, text_of, told
from segue.cli.loop import run
from segue.cli.sidecar import LoadedConfig, load_sidecar, prepared_dialer, settings_of
from segue.cli.start_errors import start_error
from segue.cli.stats_lines import render, saving
from segue.config import Config, ConfigError, KeyConfig, child_environment
from segue.engine import Unavailable
from segue.http.routes import Resolved, Target, route_table
from segue.sidecar.agent_environment import AgentSettingsError, Launch, pointed_at
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.diagnosis.agent_checks import judge_agent
from segue.sidecar.dialer import Dialer
from segue.sidecar.ssh_address import is_ssh
from segue.sidecar.stats import SidecarReport
from segue.stores.interface import StoreError
from segue.terminal import terminal

NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_SIGNALLED = 128
_SETTLE_S = 3.0
#: The platform does not tell the sidecar whose a connection is, or the user wants a token all the same.
_SHOWN_TOKEN = "{program} takes its address from its command line: other users can read the sidecar's token there"  # noqa: S105 - words, not a password
#: The first link is given so long before it is asked what is wrong.
_FIRST_LINK_S = 5.0


class RunSwitches(msgspec.Struct, frozen=True, kw_only=True):
    """What `segue run` is told beside settings. `check`: it starts nothing without a gateway. `stats`: it tells all."""

    log: Path | None = None
    check: bool = True
    stats: bool = False


def run_command(
    command: Sequence[str],
    wanted: RunSwitches,
    *,
    path: Path | None,
    gateways: Sequence[str],
    **options: object,
) -> int:
    """Run the command; return its exit status. `options` replace keys of `[sidecar]`, unless they are None."""
    if not command:
        raise ConfigError("what is to be run? For example: segue run -- claude")
    log = wanted.log
    if log is None:  # the program has the terminal
        logging.disable()
    else:
        try:
            logging.basicConfig(
                level="INFO", filename=log, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
            )
        except OSError as error:
            raise ConfigError(f"cannot write the log {log}: {error.strerror}") from None
    loaded = load_sidecar(path, gateways=gateways, port=0, **options)
    try:
        return run(_run(command, wanted, loaded=loaded, named=path is not None))
    except ConfigError:
        raise
    except asyncio.CancelledError:  # Ctrl-C before the program ran
        return _SIGNALLED + signal.SIGINT
    except (StoreError, Unavailable, OSError, ValueError, ssl.SSLError) as error:
        raise start_error(error) from error


async def _run(command: Sequence[str], wanted: RunSwitches, *, loaded: LoadedConfig, named: bool) -> int:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    child = ChildProcess(lambda: loop.call_soon_threadsafe(task.cancel))
    config = loaded.config
    dialer = await _dialer(config, check=wanted.check)
    with child.signals():
        async with _gateway(config, loaded.file, named=named) as settings, Sidecar(settings, dialer=dialer) as sidecar:
            launch = launch_of(command, sidecar.agent_url, config)
            if sidecar.access.needs_token and is_shown(launch, sidecar.agent_url):
                print(f"segue: {_SHOWN_TOKEN.format(program=command[0])}", file=sys.stderr)
            if wanted.check and not settings.direct:
                await require_link(sidecar, command[0])
            if wanted.stats and not sidecar.access.has_drawn:
                address = urlsplit(sidecar.url).netloc
                print(f"segue: `segue sidecar --stats --listen {address}` shows what goes through", file=sys.stderr)
            status = await run_child(child, launch)
            await sidecar.settle(_SETTLE_S)
            report = sidecar.report()
        _tell(report, wanted)
    return status


def is_shown(launch: Launch, agent_url: str) -> bool:
    """Tell whether the address of the sidecar is on the program's command line, which all users can read."""
    return any(agent_url in argument for argument in launch.command)


def _tell(report: SidecarReport, wanted: RunSwitches) -> None:
    """Tell what was saved, and on request all that was counted."""
    if not wanted.stats:
        print(saving(report), file=sys.stderr)
        return
    screen = terminal(stderr=True)
    for line in render(report, screen.width if screen.is_terminal else None):
        print(line.plain, file=sys.stderr)


async def require_link(sidecar: Sidecar, program: str, *, within_s: float = _FIRST_LINK_S) -> None:
    """Refuse to run a program whose requests would all fail. What is wrong is told as `segue doctor` does.

    A link that is there costs nothing but its first round trips; only without one are the checks made.
    """
    if await sidecar.has_link(within_s):
        return
    diagnoses = await diagnose_all(sidecar.settings)
    if any(one.well for one in diagnoses):
        return
    wrong = [one.without_passed() for one in diagnoses]
    print_findings(told(wrong, marks_of(sys.stderr.encoding)), terminal(stderr=True))
    raise ConfigError(f"{program} is not started, since there is no gateway for it; --no-check starts it all the same")


async def _dialer(config: Config, *, check: bool) -> Dialer | None:
    """Return what has connected by ssh, while there is no program yet that has the terminal; None: no need."""
    gateways = config.sidecar.gateways
    if not gateways or not is_ssh(gateways[0]):
        return None
    return await prepared_dialer(settings_of(config.sidecar), must_be_possible=check)


@asynccontextmanager
async def _gateway(config: Config, found: Path | None, *, named: bool) -> AsyncIterator[SidecarSettings]:
    """Yield the settings of the sidecar; without a configured gateway, run one in this process that only it can use."""
    settings = settings_of(config.sidecar)
    if config.sidecar.gateways:
        yield settings
        return
    from segue.cli.private_gateway import private_gateway
    from segue.gateway.app import serving

    key = secrets.token_urlsafe(32)
    own_key = KeyConfig("run", "run", hashlib.sha256(key.encode()).hexdigest())
    gateway = private_gateway(config, found, keys=[own_key], named=named)
    async with serving(gateway.config, gateway.router) as (_, url):
        connector = msgspec.structs.replace(settings.connector, key=key, cafile=None, identity=None)
        yield msgspec.structs.replace(settings, gateways=(url,), connector=connector)


def launch_of(command: Sequence[str], url: str, config: Config) -> Launch:
    """Return the command with its whole environment, and tell the user what is new in it."""
    environ = child_environment([urlsplit(url).hostname or ""])
    facts = facts_of(command, environ, Path.cwd())
    known = environ
    if facts.program == "claude":
        settings = claude_variables(facts)
        settings.pop("ANTHROPIC_BASE_URL", None)  # it is told below
        known = {**settings, **environ}
    notices = [text_of(result) for result in judge_agent(facts) if result.status == "failed"]
    try:
        launch = pointed_at(command, url, environ=known, official=_is_official(config))
    except AgentSettingsError as error:
        raise ConfigError(str(error)) from None
    for notice in (*launch.notices, *notices):
        print(f"segue: {notice}", file=sys.stderr)
    return launch._replace(variables={**environ, **launch.variables})


def _is_official(config: Config) -> bool:
    """Tell whether Messages requests go to Anthropic's own host, if the gateway has the routes of our configuration."""
    resolved = route_table(config.route).resolve(b"/anthropic/v1/messages")
    return (
        isinstance(resolved, Resolved)
        and isinstance(resolved.target, Target)
        and resolved.target.host == "api.anthropic.com"
    )


async def run_child(child: ChildProcess, launch: Launch) -> int:
    """Run the program to its end; return its exit status as a shell does, and say on stderr why it cannot be run."""
    program = launch.command[0]
    try:
        status = await child.run(launch.command, launch.variables)
    except FileNotFoundError:
        print(f"segue: {program}: not found", file=sys.stderr)
        return NOT_FOUND
    except PermissionError:
        print(f"segue: {program}: cannot be executed", file=sys.stderr)
        return _NOT_EXECUTABLE
    return status if status >= 0 else _SIGNALLED - status
