"""The gateway and the sidecar of a metered run are those that the user's configuration describes."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest

from segue.bench.arms.server import Ready
from segue.cli.bench_run_process import (
    PrivateGatewaySpec,
    RunProcessSpec,
    UserSidecarSpec,
    gateway_of,
    main,
    run_private_gateway,
    run_user_sidecar,
)
from segue.testing.provider import Answer, provided
from tests.bench.arms.processes import with_stdin
from tests.cli.test_run import names_in

KEY_SHA256 = hashlib.sha256(b"throw-away").hexdigest()


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_SIDECAR_CACHE", "false")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


async def test_a_request_takes_the_users_route(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_SIDECAR_KEY", "throw-away")
    async with provided(lambda _: Answer(pieces=(b"mine",))) as provider:
        (tmp_path / "own.toml").write_text(f'[[route]]\nmount = "/anthropic"\ntarget = "{provider.url}"\n')
        async with (
            run_private_gateway(PrivateGatewaySpec("own.toml", KEY_SHA256)) as (host, port),
            run_user_sidecar(UserSidecarSpec("own.toml", (f"ws://{host}:{port}",))) as (near, near_port),
            aiohttp.ClientSession() as session,
            session.post(f"http://{near}:{near_port}/anthropic/v1/messages", data=b"{}") as response,
        ):
            assert await response.read() == b"mine"
        assert [one.target for one in provider.requests] == [b"/v1/messages"]
    assert names_in(tmp_path) == ["own.toml"]


@pytest.mark.parametrize("end", ["gateway", "sidecar"])
async def test_the_command_line_says_which_end_it_is(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGUE_SIDECAR_KEY", "throw-away")
    gateway = PrivateGatewaySpec(None, KEY_SHA256)
    async with run_private_gateway(gateway) as (host, port):
        spec: RunProcessSpec = gateway if end == "gateway" else UserSidecarSpec(None, (f"ws://{host}:{port}",))
        printed = with_stdin(monkeypatch, b"")
        monkeypatch.setattr(sys, "argv", ["process", msgspec.json.encode(spec).decode()])
        await asyncio.to_thread(main)
    assert msgspec.json.decode(printed.getvalue(), type=Ready).port > 0


def test_a_provider_that_stands_in_is_behind_every_route_and_nobody_is_waited_for_at_the_end(tmp_path: Path) -> None:
    """Other routes of the user are not asked either: the model of a task would not be known there."""
    (tmp_path / "own.toml").write_text('[[route]]\nmount = "/anthropic"\ntarget = "http://127.0.0.1:9"\n')
    config = gateway_of(PrivateGatewaySpec("own.toml", KEY_SHA256, "http://127.0.0.1:8")).config
    routes = [(route.mount, route.target) for route in config.route]
    assert routes == [(mount, "http://127.0.0.1:8") for mount in ("/anthropic", "/openai", "/gemini")]
    assert config.server.drain_s < 1
