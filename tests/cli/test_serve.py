"""`segue serve` says where it listens. A signal lets running turns end; a second one stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest

from segue.cli.serve import find_config, run_until_signal
from segue.config import Config, ServerConfig, UpstreamConfig
from segue.testing.provider import Answer, provided

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
        command = asyncio.create_task(run_until_signal(config))
        try:
            await printed.flushed.wait()
            said, _, url = printed.getvalue().rpartition(" ")
            assert said == "segue: listening on"
            yield command, url.strip()
        finally:
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)


async def draining(url: str) -> None:
    """Wait until the gateway is not ready any more; it still answers."""
    async with aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"{url}/readyz") as ready:
                if ready.status == HTTPStatus.SERVICE_UNAVAILABLE:
                    return


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
