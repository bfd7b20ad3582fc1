"""`python -m tests.faults.isolation.hostile KEY WAY`: a hostile tenant and its provider, in a process of their own.

`WAY` is how it stands to others on this machine: `idle`, and it gives way to them, or `equal`.

It prints the port of the provider. Each line of standard input is a JSON list: the address of the gateway, the
pace, and the names of the attacks to go on with from then on, if any.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys

import uvloop

from tests.faults.isolation.attacks import ATTACKS, Attack, shape
from tests.faults.isolation.hostile_provider import hostile_provider
from tests.faults.isolation.model_attacks import MODEL_ATTACKS
from tests.faults.isolation.tunnel_attacks import TUNNEL_ATTACKS
from tests.faults.isolation.wire import Network, Target

#: Of its network: without one, it would fill the memory bus of the machine, and not only the gateway.
BYTES_PER_S = 50_000_000
BY_NAME: dict[str, Attack] = {one.name: one for one in (*ATTACKS, *TUNNEL_ATTACKS, *MODEL_ATTACKS)}


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _give_way(way: str) -> None:
    """Take only processor time that nobody else on this machine wants, or less than others.

    A hostile tenant sits at another machine. Here it would take the two cores from the gateway and its neighbours, and
    they would be judged by that. But where other tests run too, it would get nothing at all, and times tell nothing.
    """
    if way == "equal":
        return
    os.nice(10)
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def _main(key: str, way: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _give_way(way)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with hostile_provider(_say):
        running: set[asyncio.Task[None]] = set()
        network = Network(BYTES_PER_S)
        while line := await lines.readline():
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            url, pace, names = json.loads(line)
            for needed in {one for name in names for one in BY_NAME[name].shapes}:
                shape(needed)
            running = {loop.create_task(BY_NAME[name].run(Target(url, key, pace, network))) for name in names}
            _say("begun")


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
