"""Which files three requests pass through, recorded while they run: over WebSocket, in the tunnel, to the local model.

    python -m tools.data_paths [--json] [--functions]

Each path is the second turn of a conversation, so it takes the usual way: continued by its id, or as a delta against
the request before. A *stop* is a function of segue that runs. A *climb* is a call against the direction of imports:
from a module to one that imports it. A reader who follows the data has to jump at every stop, and to look upward at
every climb. Not here: how long anything takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import aiohttp

from segue.config import Config, RouteConfig, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.testing.provider import Answer, provided
from segue.testing.tiny_model import write_tiny_model
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tools.structure import read_modules

SOURCE = Path(__file__).resolve().parents[1] / "src"

Ask: TypeAlias = Callable[[], Awaitable[None]]
#: Opens what a path needs, and returns what asks for one more turn.
Opening: TypeAlias = Callable[[AsyncExitStack], Awaitable[Ask]]


@dataclass(frozen=True, kw_only=True)
class DataPath:
    """What one request passed through."""

    name: str
    files: tuple[str, ...]
    """Modules in the order in which the data first came to them."""
    stops: tuple[str, ...]
    """`module:function`, in the same order."""
    climbs: tuple[str, ...]
    """`module -> module`."""


class Recorder:
    """Notes each function of segue that is called, and by which module."""

    def __init__(self) -> None:
        self.stops: dict[str, None] = {}
        self.calls: dict[tuple[str, str], None] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Take what the interpreter tells a profiler."""
        del argument
        module = frame.f_globals.get("__name__", "")
        if event != "call" or not module.startswith("segue."):
            return
        self.stops[f"{module}:{frame.f_code.co_qualname}"] = None
        caller = "" if frame.f_back is None else frame.f_back.f_globals.get("__name__", "")
        if caller.startswith("segue.") and caller != module:
            self.calls[caller, module] = None

    def start(self) -> None:
        """Record from now on, in this thread and in those that begin later."""
        threading.setprofile(self)
        sys.setprofile(self)

    def stop(self) -> None:
        """Record no more."""
        threading.setprofile(None)
        sys.setprofile(None)


async def websocket_turn(stack: AsyncExitStack) -> Ask:
    """Continue a stored conversation over WebSocket, with the scripted model."""
    return await _conversation(stack, Config(server=ServerConfig(port=0, store="memory:")), MODEL)


async def local_turn(stack: AsyncExitStack) -> Ask:
    """Continue a conversation with a local model."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    write_tiny_model(folder / "tiny.gguf")
    model = UpstreamConfig(
        name="tiny", dialect="local", models=["tiny"], model_file=str(folder / "tiny.gguf"), context_tokens=2048
    )
    return await _conversation(stack, Config(server=ServerConfig(port=0, store="memory:"), upstream=[model]), "tiny")


async def tunnelled_request(stack: AsyncExitStack) -> Ask:
    """Send a request of an agent through a sidecar and a gateway to a provider, as a delta."""
    answer = Answer(pieces=(b'{"content":"', b"yes" * 100, b'"}'))
    provider = await stack.enter_async_context(provided(lambda _: answer))
    config = Config(server=ServerConfig(port=0, store="memory:"), route=[RouteConfig(path="/v1", target=provider.url)])
    _, url = await stack.enter_async_context(serving(config, _scripted()))
    sidecar = await stack.enter_async_context(Sidecar(SidecarSettings(gateways=(url,))))
    agent = await stack.enter_async_context(aiohttp.ClientSession())
    messages: list[str] = ["read the file and say what it does " * 40]

    async def ask() -> None:
        messages.append("go on " * 10)
        async with agent.post(f"{sidecar.url}/v1/messages", json={"messages": messages}) as response:
            response.raise_for_status()
            await response.read()

    return ask


def _scripted() -> Router:
    """Offer the scripted model alone: a path has none of the local model's threads in it that does not use them."""
    return Router([ModelRule(ScriptedUpstream(), (MODEL,))])


async def _conversation(stack: AsyncExitStack, config: Config, model: str) -> Ask:
    _, url = await stack.enter_async_context(serving(config, None if config.upstream else _scripted()))
    client = await stack.enter_async_context(aiohttp.ClientSession())
    socket = await stack.enter_async_context(client.ws_connect(f"{url}/v1/responses"))
    latest: list[str] = []

    async def ask() -> None:
        create = {"type": "response.create", "model": model, "input": "Go on.", "max_output_tokens": 8}
        await socket.send_json(create | ({"previous_response_id": latest[-1]} if latest else {}))
        async for message in socket:
            event = json.loads(message.data)
            if event["type"] in {"response.completed", "response.incomplete"}:
                latest.append(event["response"]["id"])
                return
            assert event["type"] not in {"error", "response.failed"}, event

    return ask


PATHS: Mapping[str, Opening] = {
    "a WebSocket turn": websocket_turn,
    "a tunnelled request": tunnelled_request,
    "a turn of the local model": local_turn,
}


async def record(name: str, opening: Opening) -> DataPath:
    """Run one path and return what it passed through; other threads count from their start on."""
    recorder = Recorder()
    async with AsyncExitStack() as stack:
        threading.setprofile(recorder)  # a thread can only be told when it begins
        ask = await opening(stack)
        await ask()
        recorder.stops.clear()
        recorder.calls.clear()
        recorder.start()
        try:
            await ask()
        finally:
            recorder.stop()
    imports = {module: read.imports for module, read in read_modules(SOURCE).items()}
    climbs = [f"{caller} -> {called}" for caller, called in recorder.calls if _climbs(imports, caller, called)]
    files = dict.fromkeys(stop.partition(":")[0] for stop in recorder.stops)
    return DataPath(name=name, files=tuple(files), stops=tuple(recorder.stops), climbs=tuple(climbs))


def _climbs(imports: Mapping[str, frozenset[str]], caller: str, called: str) -> bool:
    return called not in _reached(imports, caller) and caller in _reached(imports, called)


def _reached(imports: Mapping[str, frozenset[str]], start: str) -> set[str]:
    """Return all modules that a module imports, directly or not."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        for name in imports.get(ahead.pop(), frozenset()):
            if name not in seen:
                seen.add(name)
                ahead.append(name)
    return seen


def main() -> None:
    """Record the three paths and print them."""
    parser = argparse.ArgumentParser(description="record which files three requests pass through")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--functions", action="store_true", help="list the stops too")
    asked = parser.parse_args()
    paths = [asyncio.run(record(name, opening)) for name, opening in PATHS.items()]
    if asked.json:
        print(json.dumps([asdict(path) for path in paths], indent=2))
        return
    for path in paths:
        print(f"{path.name}: {len(path.stops)} stops in {len(path.files)} files, {len(path.climbs)} climbs")
        for line in (*path.climbs, *(path.stops if asked.functions else path.files)):
            print(f"    {line.removeprefix('segue.')}")


if __name__ == "__main__":
    main()
