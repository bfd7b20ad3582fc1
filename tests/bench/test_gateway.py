"""The gateway benchmark measures what it says, end to end; nothing here depends on how fast this machine is."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext

import pytest

from segue.bench import gateway
from segue.bench.arms.server import BURST, PACED, TICKED, ServerSpec, serve_gateway
from segue.bench.gateway import GatewayBenchSettings, make_create, measure, render, words
from segue.bench.meters.cpu_affinity import Cores
from segue.bench.meters.tcp import metered
from segue.bench.meters.websocket_client import TurnRefusedError, connect
from tests.bench.arms.processes import launched_here
from tests.terminals import terminal_of

SPEC = ServerSpec(kind="gateway", deltas=12, delta_bytes=24, stamps=4, pace_s=0.001)
TINY = GatewayBenchSettings(
    rounds=2,
    turns=3,
    paced_turns=2,
    depths=(1, 3),
    pace_s=0.001,
    stamps=4,
    stamped_turns=2,
    connections=5,
    stored_turns=3,
    warm_up=2,
)


@pytest.mark.parametrize("size", [None, 300, 4096, 70_000])
def test_a_create_has_the_size_asked_for(size: int | None) -> None:
    create = make_create(BURST, words(size or 50), "resp_1", size, store=True)
    assert size is None or len(create) == size
    body = json.loads(create)
    assert (body["model"], body["store"], body["previous_response_id"]) == (BURST, True, "resp_1")
    assert body["input"][0]["content"][0]["text"]


async def test_a_chain_is_continued_and_bytes_are_those_of_the_wire() -> None:
    async with serve_gateway(SPEC) as address, metered(*address) as meter:
        socket = await connect(meter.url_host, meter.port)
        meter.take()
        previous: str | None = None
        for size in (200, 4096, 70_000):
            create = make_create(BURST, words(size), previous, size)
            done = await socket.turn(create)
            carried = meter.take()
            assert (done.bytes_up, done.bytes_down) == (carried.up_bytes, carried.down_bytes)
            assert json.loads(done.events[-1])["response"]["previous_response_id"] == previous
            previous = done.response_id
        with pytest.raises(TurnRefusedError, match="previous_response_not_found"):
            await socket.turn(make_create(BURST, "Hello.", "resp_unknown"))
        socket.close()


async def test_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every server in this process, so CPU times and memory are those of client and server together."""
    monkeypatch.setattr(gateway, "launched", launched_here)
    monkeypatch.setattr(gateway, "place", lambda: nullcontext(Cores(None, None)))
    shown = io.StringIO()
    console = terminal_of(file=shown, width=160)
    report = await measure(console=console, settings=TINY)
    render(report, console)

    turns = {one.name: len(one.turns) for one in report.arms}
    for server in (
        "bare aiohttp, {}",
        "gateway, {}, depth 1",
        "gateway, {}, depth 3",
        "gateway store=true, {}, depth 1",
    ):
        assert [turns.pop(server.format(model)) for model in (BURST, TICKED, PACED)] == [6, 6, 4]
    assert turns == {"bare aiohttp, stamped": 4, "gateway, stamped": 4}
    for one in report.arms:
        assert all(turn.bytes_up_payload == 4096 for turn in one.turns)
        assert all(turn.bytes_up_wire == 4096 + 8 for turn in one.turns)
        assert all(turn.server_cpu_s is None and turn.tokens_reused is None for turn in one.turns)
        assert one.totals.server_cpu_s is not None

    judged = [one for one in report.figures if one.budget is not None]
    assert len(judged) == 8
    assert all(one.met is (None if one.value is None else one.value <= one.budget) for one in judged if one.budget)
    assert len({one.name for one in report.figures}) == len(report.figures)
    assert all(one.name in shown.getvalue() for one in report.figures)
    assert report.settings["depths"] == (1, 3)
