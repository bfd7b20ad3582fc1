"""The byte table compares ways to carry the same session, and notices a way that changes it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from segue.bench.arms.baselines import cost
from segue.bench.arms.paths import MeteredPath, straight_path
from segue.bench.meters.tcp import WireBytes, metered
from segue.bench.table import RAW, WrongRequestError, measure, play_once, render
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.testing.link import linked
from segue.testing.provider import ScriptedProvider, answer_with
from tests.terminals import terminal_of


@pytest.mark.parametrize("kind", ["codex", "codex-ws", "mini-swe-agent"])
async def test_measures_and_computes_all_arms(kind: AgentKind) -> None:
    session = make_session(kind, turns=3)
    shown = io.StringIO()
    console = terminal_of(file=shown, width=80)
    report = await measure(session, {RAW: straight_path}, rounds=2, console=console)
    render(report, console)
    assert "…" not in shown.getvalue()
    assert [one.name for one in report.arms] == ["raw", "gzip", "zstd", "permessage-deflate"]
    for one in report.arms:
        assert [turn.bytes_up_payload for turn in one.turns] == [len(turn.body) for turn in session.turns]
        assert all(turn.bytes_up_wire and turn.bytes_down_wire for turn in one.turns)
        assert all((turn.ttft_s is not None) == (one.name == RAW) for turn in one.turns)
        assert one.name in shown.getvalue()
    assert report.settings["bound_bytes"] == session.bound
    assert len({figure.name for figure in report.figures}) == 5


@asynccontextmanager
async def with_cpu_time(provider: ScriptedProvider) -> AsyncIterator[MeteredPath]:
    """Two processes on the way, one of which uses a second per turn and the other two."""
    spent = iter(range(100))

    async def cpu_s() -> Mapping[str, float]:
        seconds = float(next(spent))
        return {"one": seconds, "other": 2 * seconds}

    async with metered(provider.host, provider.port) as meter:
        yield MeteredPath(host=meter.url_host, port=meter.port, meter=meter, cpu_s=cpu_s)


async def test_takes_the_cpu_time_of_a_way_per_turn() -> None:
    played = await play_once(make_session("pi", turns=3), with_cpu_time)
    assert [turn.server_cpu_s for turn in played.turns] == [3.0, 3.0, 3.0]
    assert played.cpu_s == {"one": 3.0, "other": 6.0}


async def test_tells_the_cpu_time_of_each_process_and_shows_it() -> None:
    shown = io.StringIO()
    report = await measure(make_session("pi", turns=2), {RAW: straight_path, "other": with_cpu_time}, rounds=1)
    render(report, terminal_of(file=shown, width=120))
    figures = {one.name: one.value for one in report.figures}
    assert figures["other: CPU per turn, one"] == 1000.0
    assert figures["other: CPU per turn, other"] == 2000.0
    assert "other: CPU per turn, one" in shown.getvalue()
    threads = ["message threads", "threads with tools"]  # the session is one of the Messages API
    assert [one.name for one in report.arms] == ["raw", "gzip", "zstd", "permessage-deflate", *threads, "other"]


async def test_counts_what_comes_late_to_the_last_turn_and_what_comes_before_the_first_to_none() -> None:
    session = make_session("pi", turns=2)

    @asynccontextmanager
    async def path(provider: ScriptedProvider) -> AsyncIterator[MeteredPath]:
        async with metered(provider.host, provider.port) as meter:

            async def say(size: int) -> None:
                reader, writer = await asyncio.open_connection(meter.url_host, meter.port)
                writer.write(b"GET /".ljust(size, b"x") + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                await reader.read()
                writer.close()
                await writer.wait_closed()
                del provider.requests[-1]

            await say(500)
            yield MeteredPath(host=meter.url_host, port=meter.port, meter=meter, settle=lambda: say(1000))

    plain, late = await play_once(session, straight_path), await play_once(session, path)
    assert plain.set_up == WireBytes(0, 0)
    assert late.set_up.up_bytes > 500
    first, last = late.turns
    assert first.bytes_up_wire == plain.turns[0].bytes_up_wire
    assert (last.bytes_up_wire or 0) > (plain.turns[1].bytes_up_wire or 0) + 1000


async def test_notices_a_way_that_changes_a_request() -> None:
    session = make_session("pi", turns=1)
    (turn,) = session.turns

    @asynccontextmanager
    async def path(provider: ScriptedProvider) -> AsyncIterator[MeteredPath]:
        # the reply is the right one for any request, so that only the provider's record can tell
        provider.script = lambda _: answer_with(turn.reply, streamed=True)
        async with metered(provider.host, provider.port) as meter, linked(meter.url_host, meter.port) as link:
            link.corrupt(up_bytes=sum(carried.up_bytes for carried in cost("raw", session)) - 10)
            yield MeteredPath(host=link.host, port=link.port, meter=meter)

    with pytest.raises(WrongRequestError):
        await play_once(session, path)
