"""`python -m tests.faults.cluster.command_forks`: starts processes of `segue` by forking, which costs a tenth.

It imports all that gateways and sidecars need, and opens nothing. Each line on its standard input is a JSON object with
the arguments, the environment and the log of a command: it forks a child that runs it, and prints the child's id. What
the child prints goes to the same output. It leads a process group, all of which it ends when its input ends. Leases of
gateways may be shorter than those of the command, so that whoever waits for one to end need not wait long. Not here:
who kills the children (`processes`).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import msgspec

import segue.cli.serve
import segue.cli.sidecar
import segue.gateway.app
import segue.stores.postgres.store
import segue.upstreams.http
from segue.cli.main import main
from segue.stores.live import redis_live


class CommandStart(msgspec.Struct, frozen=True):
    """What a command is started with. Without `lease_s` the lease of a gateway is that of the command."""

    arguments: list[str]
    environment: dict[str, str]
    log: str
    lease_s: float | None = None


def fork_commands() -> None:
    """Start a command for each line, until the end of the input. Nobody asks how children end: none is waited for."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    _say(f"imported {segue.__name__}")
    for line in sys.stdin.buffer:
        start = msgspec.json.decode(line, type=CommandStart)
        child = os.fork()
        if not child:
            _become(start)
        _say(f"forked {child}")
    os.killpg(os.getpgrp(), signal.SIGKILL)  # who has started us is gone: no process may outlive a test


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _become(start: CommandStart) -> None:
    """Run the command in the child that was just forked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    log = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 2)
    os.environ.update(start.environment)
    os.chdir(Path(start.log).parent)
    sys.argv = ["segue", *start.arguments]
    leased = redis_live.RedisLive
    if start.lease_s is not None:
        leased = partial(leased, lease_s=start.lease_s)  # type: ignore[assignment]  # it is only called
    with patch("segue.stores.live.redis_live.RedisLive", leased):
        main()
    os._exit(0)


if __name__ == "__main__":
    fork_commands()
