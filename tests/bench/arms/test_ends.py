"""Each end of the tunnel runs in a process of its own, or in this one, and is ready when it can be used."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import pytest

from segue.bench.arms.ends import EndSpec, GatewaySpec, RelaySpec, SidecarSpec, main, run_gateway, run_sidecar
from segue.bench.arms.player import play
from segue.bench.arms.server import Ready
from segue.bench.workloads.sessions import make_session
from segue.testing.provider import provided, replying
from tests.bench.arms.processes import with_stdin


@pytest.mark.parametrize("kept", [False, True])
async def test_a_session_goes_through_both_ends_and_bases_are_kept_where_it_says(kept: bool, tmp_path: Path) -> None:
    session = make_session("pi", turns=2)
    async with (
        provided(replying(session)) as provider,
        run_gateway(GatewaySpec(provider.url)) as (host, port),
        run_sidecar(SidecarSpec(f"http://{host}:{port}", str(tmp_path) if kept else None)) as address,
    ):
        await play(session, *address)
        assert [request.body for request in provider.requests] == [turn.body for turn in session.turns]
    assert any(files for _, _, files in os.walk(tmp_path)) == kept


@pytest.mark.parametrize("end", ["gateway", "sidecar", "relay"])
async def test_the_command_line_says_which_end_it_is(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_gateway(GatewaySpec("http://127.0.0.1:9")) as (host, port):
        specs: dict[str, EndSpec] = {
            "gateway": GatewaySpec("http://127.0.0.1:9"),
            "sidecar": SidecarSpec(f"http://{host}:{port}"),
            "relay": RelaySpec(host, port),
        }
        spec = specs[end]
        printed = with_stdin(monkeypatch, b"")
        monkeypatch.setattr(sys, "argv", ["ends", msgspec.json.encode(spec).decode()])
        await asyncio.to_thread(main)
    ready = msgspec.json.decode(printed.getvalue(), type=Ready)
    assert (ready.host, ready.port > 0) == ("127.0.0.1", True)
