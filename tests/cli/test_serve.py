"""`segue serve` says where it listens. A signal lets running turns end; a second one stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest

from segue.cli import serve
from segue.cli.file_watch import FileWatch
from segue.cli.serve import find_config, run_until_signal
from segue.config import Config, ServerConfig, UpstreamConfig, load
from segue.testing.provider import Answer, provided
from tests.faults.gateways import until
from tests.terminals import in_terminal, line_of

SCRIPTED = '[[upstream]]\nname = "s"\ndialect = "scripted"\nmodels = ["m"]\n'
REFUSAL = b'{"error":{"message":"no","type":"invalid_request_error"}}'


class Printed(io.StringIO):
    """What was printed; `flushed` is set when somebody should read it."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = asyncio.Event()

    def flush(self) -> None:
        self.flushed.set()


@contextlib.asynccontextmanager
async def serving(provider_url: str) -> AsyncIterator[tuple[asyncio.Task[int], str]]:
    """Run the command in this process, before a provider; yields it and the URL of its ready line."""
    upstream = UpstreamConfig(name="a", dialect="chat", models=["m"], base_url=f"{provider_url}/v1")
    config = Config(server=ServerConfig(port=0, store="memory:"), upstream=[upstream])
    with contextlib.redirect_stdout(Printed()) as printed:
        command = asyncio.create_task(run_until_signal(config, lambda: config))
        try:
            await printed.flushed.wait()
            said, _, url = printed.getvalue().rpartition(" ")
            assert said == "segue: listening on"
            yield command, url.strip()
        finally:
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)


@pytest.fixture
def own_switch_interval() -> Iterator[None]:
    before, threshold = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(before)
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("own_switch_interval")
async def test_threads_let_the_loop_go_on_soon() -> None:
    async with provided(lambda _: Answer()) as provider, serving(provider.url):
        assert sys.getswitchinterval() == pytest.approx(serve.SWITCH_S)


@pytest.mark.usefixtures("own_switch_interval")
async def test_all_objects_are_seldom_looked_through() -> None:
    async with provided(lambda _: Answer()) as provider, serving(provider.url):
        assert gc.get_threshold()[2] == serve.YOUNG_COLLECTIONS


async def test_at_its_start_it_says_what_it_serves(caplog: pytest.LogCaptureFixture) -> None:
    """Before the line that says that it is ready."""
    caplog.set_level("INFO", "segue.gateway")
    async with provided(lambda _: Answer()) as provider, serving(provider.url):
        told = [record.getMessage() for record in caplog.records]
    assert any("store=memory: models=m,scripted" in line for line in told)
    assert any("action=start keys=0" in line for line in told)


async def draining(url: str) -> None:
    """Wait until the gateway is not ready any more; it still answers."""
    async with aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"{url}/readyz") as ready:
                if ready.status == HTTPStatus.SERVICE_UNAVAILABLE:
                    return


@contextlib.asynccontextmanager
async def from_file(file: Path, *, watched: bool = False) -> AsyncIterator[str]:
    """Run the command in this process with a configuration file; yields the URL."""
    watch, config = FileWatch(file), load(file, {})
    with contextlib.redirect_stdout(Printed()) as printed:
        command = asyncio.create_task(
            run_until_signal(config, lambda: load(file, {}), watched=watch if watched else None)
        )
        try:
            await printed.flushed.wait()
            yield printed.getvalue().split()[-1]
            signal.raise_signal(signal.SIGTERM)
            assert await command == 0
        finally:
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)


def settings(*keys: str) -> str:
    """A configuration in which these texts are keys."""
    tables = [f'[[key]]\nname = "{key}"\ntenant = "t"\nsha256 = "{sha256(key.encode()).hexdigest()}"\n' for key in keys]
    return "\n".join(['[server]\nport = 0\nstore = "memory:"\n', SCRIPTED, *tables])


async def status(url: str, key: str) -> int:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client,
        client.get(f"{url}/v1/models") as reply,
    ):
        return reply.status


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    await until(lambda: any(text in message for message in caplog.messages))


async def test_a_hangup_signal_reads_the_configuration_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read changes nothing."""
    caplog.set_level(logging.INFO, "segue.gateway")
    file = tmp_path / "segue.toml"
    file.write_text(settings("old"))
    async with from_file(file) as url:
        assert (await status(url, "old"), await status(url, "new")) == (200, 401)
        file.write_text(settings("new"))
        signal.raise_signal(signal.SIGHUP)
        await logged(caplog, "action=reload keys=1 routes=0 upstreams=1")
        assert (await status(url, "old"), await status(url, "new")) == (401, 200)
        file.write_text(settings("old") + "[server]")
        signal.raise_signal(signal.SIGHUP)
        await logged(caplog, f"action=reload nothing has changed, because {file} is not valid TOML")
        assert await status(url, "new") == 200


async def test_a_watched_file_is_read_when_it_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an editor may take it away meanwhile."""
    monkeypatch.setattr(serve, "WATCH_S", 0.01)
    caplog.set_level(logging.INFO, "segue.gateway")
    file = tmp_path / "segue.toml"
    file.write_text(settings("old"))
    async with from_file(file, watched=True) as url:
        file.rename(tmp_path / "segue.toml~")
        file.write_text(settings("old", "new"))
        await logged(caplog, "action=reload keys=2")
        assert await status(url, "new") == 200


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
async def test_a_gateway_whose_terminal_is_gone_ends(tmp_path: Path) -> None:
    """It would go on where nobody sees it."""
    file = tmp_path / "segue.toml"
    file.write_text(settings("old"))
    command = [sys.executable, "-m", "segue", "serve", "--config", str(file), "--log", "warning"]
    async with in_terminal(command, stdin="terminal") as (process, keyboard):
        assert (await line_of(process)).startswith("segue: listening on")
        with Path(os.devnull).open() as nothing:  # noqa: ASYNC230 - no file, and it does not wait
            os.dup2(nothing.fileno(), keyboard)  # which closes the terminal
        assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_turn_end(number: signal.Signals) -> None:
    gate = asyncio.Event()
    async with (
        provided(lambda _: Answer(status=400, pieces=(REFUSAL,), before=gate)) as provider,
        serving(provider.url) as (command, url),
        aiohttp.ClientSession() as client,
    ):
        asking = asyncio.create_task(client.post(f"{url}/v1/responses", json={"model": "m", "input": "Hello"}))
        await provider.seen(1)
        signal.raise_signal(number)
        await draining(url)
        assert not command.done()
        gate.set()
        async with await asking as response:
            assert response.status == 400
        assert await command == 0


async def test_a_second_signal_stops_at_once() -> None:
    never = asyncio.Event()
    async with (
        provided(lambda _: Answer(before=never)) as provider,
        serving(provider.url) as (command, url),
        aiohttp.ClientSession() as client,
    ):
        asking = asyncio.create_task(client.post(f"{url}/v1/responses", json={"model": "m", "input": "Hello"}))
        await provider.seen(1)
        signal.raise_signal(signal.SIGTERM)
        await draining(url)
        signal.raise_signal(signal.SIGTERM)
        assert await command == 0
        await provider.abandoned(0)
        with pytest.raises(aiohttp.ClientError):
            await asking


def test_the_configuration_is_the_one_named_else_that_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(None) is None
    (tmp_path / "segue.toml").write_text("")
    assert find_config(None) == Path("segue.toml")
    assert find_config(Path("other.toml")) == Path("other.toml")
