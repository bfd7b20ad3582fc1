"""Draws what a user sees of `segue run`: a session of Claude Code's shape through a sidecar, in a terminal.

    python -m tools.run_picture

The sidecar, the gateway and what they print are real. The agent is a player of a generated session with 41 requests,
that of `segue bench table`, and its provider a scripted one. The picture goes to docs/start/run.svg. Not here: the
measurement of these bytes, with all heads and acknowledgements (`segue bench table`).
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from segue.bench.arms.ends import GatewaySpec
from segue.bench.arms.player import play
from segue.bench.arms.tunnelled import started
from segue.bench.workloads.sessions import make_session
from segue.testing.provider import provided, replying

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "start" / "run.svg"
TURNS = 41
_COLUMNS = 92
_PLAY = "play"


async def play_the_agent() -> None:
    """Be the agent: `segue run` has said where its provider is."""
    address = urlsplit(os.environ["ANTHROPIC_BASE_URL"])
    assert address.hostname is not None
    assert address.port is not None
    await play(make_session("claude-code", turns=TURNS), address.hostname, address.port)


async def printed_by_a_run() -> str:
    """Return what `segue run` prints around the agent."""
    session = make_session("claude-code", turns=TURNS)
    async with provided(replying(session)) as provider, started(GatewaySpec(provider.url)) as gateway:
        command = (
            sys.executable,
            "-m",
            "segue",
            "run",
            "--gateway",
            f"ws://{gateway.host}:{gateway.port}",
            "--no-cache",
        )
        agent = (sys.executable, "-m", "tools.run_picture", _PLAY)
        process = await asyncio.create_subprocess_exec(*command, "--", *agent, stderr=PIPE)
        _, said = await process.communicate()
    if process.returncode:
        raise SystemExit(said.decode())
    return said.decode()


def picture(said: str) -> str:
    """Return a terminal with the command and what it said, as SVG."""
    command = shlex.join(("segue", "run", "--gateway", "wss://gateway.example.com", "--", "claude"))
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere)
        console.print(Text(f"$ {command}"))
        console.print(Text("…", style="dim"))
        console.print(Text(said.strip(), style="bold green"))
        return console.export_svg(title="segue run", theme=MONOKAI, unique_id="run")


def main() -> None:
    """Draw the picture, or be the agent in it."""
    if sys.argv[1:] == [_PLAY]:
        asyncio.run(play_the_agent())
        return
    PICTURE.write_text(picture(asyncio.run(printed_by_a_run())), encoding="utf-8")
    print(f"written to {PICTURE}")


if __name__ == "__main__":
    main()
