"""`python -m tests.faults.isolation.hostile KEY`: a hostile tenant and its provider, in a process of their own.

It prints the port of the provider. Each line of standard input is a JSON list: the address of the gateway, the
pace, and the names of the attacks to go on with from then on, if any.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys

import uvloop

from tests.faults.isolation.attacks import ATTACKS, Attack
from tests.faults.isolation.hostile_provider import hostile_provider
from tests.faults.isolation.model_attacks import MODEL_ATTACKS
from tests.faults.isolation.tunnel_attacks import TUNNEL_ATTACKS
from tests.faults.isolation.wire import Target

BY_NAME: dict[str, Attack] = {one.name: one for one in (*ATTACKS, *TUNNEL_ATTACKS, *MODEL_ATTACKS)}


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def _main(key: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with hostile_provider(_say):
        running: set[asyncio.Task[None]] = set()
        while line := await lines.readline():
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            url, pace, names = json.loads(line)
            running = {loop.create_task(BY_NAME[name].run(Target(url, key, pace))) for name in names}
            _say("begun")


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
