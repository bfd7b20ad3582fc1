"""Independent model servers on loopback, each a process of its own: aimock, which plays fixtures as the APIs of several
providers, and llama.cpp's server with a small model. What they answer was written by others.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from segue.testing.response_schemas import Json

AIMOCK = Path(sys.prefix) / "node" / "node_modules" / "@copilotkit" / "aimock" / "dist" / "cli.js"
#: Loading a model takes seconds on a slow disk.
PATIENCE_S = 60.0


class Aimock:
    """A running aimock."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def asked(self) -> list[Json]:
        """The bodies it was sent, in the one form that it makes of all APIs."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/__aimock/journal") as reply:
            entries: list[Json] = await reply.json()
        return [entry["body"] for entry in entries]


@asynccontextmanager
async def aimock(folder: Path, fixtures: Sequence[Json], *options: str) -> AsyncIterator[Aimock]:
    """Run aimock around a block; a request that no fixture fits is an error."""
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    command = ("node", str(AIMOCK), "-p", "0", "-f", str(file), "--strict", "--validate-on-load", *options)
    async with _running(command, re.compile(r"listening on (http://\S+)")) as url:
        yield Aimock(url)


@asynccontextmanager
async def llama(
    model: Path, slots: int | None = None, *, host_mib: int = 0, template: Path | None = None
) -> AsyncIterator[str]:
    """Run llama.cpp's server around a block; with `slots`, it has `host_mib` beside them for what it has read. A chat
    `template` takes the place of the model's.
    """
    more = [] if slots is None else ["--slots", str(slots), "--host-mib", str(host_mib)]
    more += [] if template is None else ["--template", str(template)]
    command = (sys.executable, "-m", "tests.integration.llama_server", str(model), *more)
    async with _running(command, re.compile(r"^listening on (http://\S+)", re.MULTILINE)) as url:
        yield url


@asynccontextmanager
async def _running(command: Sequence[str], ready: re.Pattern[str]) -> AsyncIterator[str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (found := ready.search(said)) is None:
                line = await process.stdout.readline()
                assert line, f"{command[0]} ended: {said}"
                said += line.decode("utf-8", "replace")
        reading = asyncio.create_task(process.stdout.read())  # so that it never waits for us
        yield found[1]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await reading
