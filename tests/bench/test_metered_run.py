"""A run is metered on both sides, exchange by exchange, and adds up."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from segue.bench import metered_run
from segue.bench.arms.ends import GatewaySpec, SidecarSpec, run_gateway, run_sidecar
from segue.bench.arms.player import play
from segue.bench.metered_run import STRAIGHT, TUNNEL, MeteredEnds, MeteredRun, metering, render
from segue.bench.meters.observed_exchange import ObservedExchange
from segue.bench.meters.tcp import WireBytes, metered
from segue.bench.reports.report import Arm, BenchReport, arm, make_report
from segue.bench.workloads.sessions import make_session
from segue.testing.provider import provided, replying
from tests.terminals import terminal_of

SESSION = make_session("claude-code", turns=3)


class Clock:
    """CPU time that grows by a millisecond each time that it is read."""

    def __init__(self) -> None:
        self.read = 0

    async def cpu_s(self) -> Mapping[str, float]:
        self.read += 1
        return {"sidecar": self.read / 1000}


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait a second for the last acknowledgements."""
    monkeypatch.setattr(metered_run, "_QUIET_S", 0.05)
    monkeypatch.setattr(metered_run, "_LOOK_EVERY_S", 0.02)


@asynccontextmanager
async def running(*, own_meter: bool = True) -> AsyncIterator[MeteredRun]:
    """Run the path behind an agent, and a provider that answers its session."""
    async with (
        provided(replying(SESSION)) as provider,
        run_gateway(GatewaySpec(provider.url)) as gateway,
        metered(*gateway) as meter,
        run_sidecar(SidecarSpec(meter.url)) as (host, port),
    ):
        ends = MeteredEnds(
            host=host,
            port=port,
            cpu_s=Clock().cpu_s,
            carried=(lambda: WireBytes(meter.up_bytes, meter.down_bytes)) if own_meter else None,
        )
        async with metering(ends) as run:
            yield run


def address_of(run: MeteredRun) -> tuple[str, int]:
    host, _, port = run.url.removeprefix("http://").partition(":")
    return host, int(port)


def by_name(report: BenchReport) -> dict[str, Arm]:
    return {one.name: one for one in report.arms}


@pytest.mark.parametrize("own_meter", [True, False], ids=["a socket of ours", "the sidecar's counters"])
async def test_each_exchange_is_metered_on_both_sides(own_meter: bool) -> None:
    async with running(own_meter=own_meter) as run:
        assert run.why_no_link is None
        await play(SESSION, *address_of(run))
        await run.settle()
        report = run.report({"command": "played"})
    straight, tunnel = by_name(report)[STRAIGHT], by_name(report)[TUNNEL]
    assert [turn.bytes_up_payload for turn in straight.turns] == [len(turn.body) for turn in SESSION.turns]
    whole = [sum(map(len, turn.reply.events)) for turn in SESSION.turns]
    assert [turn.bytes_down_payload for turn in straight.turns] == whole
    for sent, carried in zip(straight.turns[1:], tunnel.turns[1:], strict=True):
        assert 0 < (carried.bytes_up_wire or 0) < (sent.bytes_up_wire or 0) / 10
    assert (tunnel.totals.bytes_up_wire or 0) == sum(turn.bytes_up_wire or 0 for turn in tunnel.turns)
    # of the four readings each counts the millisecond since the one before, and not its own
    assert [turn.server_cpu_s for turn in tunnel.turns] == pytest.approx([0.001] * 3)
    assert [turn.at_s for turn in tunnel.turns] == sorted(turn.at_s or 0 for turn in tunnel.turns)
    assert all((turn.ttft_s or 0) <= (turn.time_s or 0) for turn in tunnel.turns)
    figures = {one.name: one.value for one in report.figures}
    assert figures["requests that the gateway rebuilt from a base"] == 2
    assert figures["CPU: sidecar"] == pytest.approx(0.003)
    assert figures["requests without a whole answer of success"] == figures["links resumed"] == 0
    exchanges = report.settings["exchanges"]
    assert [(one["method"], one["status"], one["whole"], one["base_hits"]) for one in exchanges] == [
        ("POST", 200, True, number > 0) for number in range(3)
    ]
    assert {one["path"] for one in exchanges} == {"/v1/messages"}
    text = shown(report)
    assert text.splitlines()[-1]
    assert text.count("POST /v1/messages") == 3
    assert "% saved." in text


async def test_without_a_request_there_is_nothing() -> None:
    async with running() as run:
        await run.settle()
        report = run.report({})
    assert [one.turns for one in report.arms] == [[], []]


async def test_a_sidecar_without_a_link_says_why() -> None:
    async with running() as run:
        assert run._first is not None  # noqa: SLF001 - what was read of a sidecar that has no link
        for reason, told in (("no route to host", "no route to host"), ("", "away")):
            run._first = replace(  # noqa: SLF001 - as above
                run._first,  # noqa: SLF001 - as above
                sidecar=replace(run._first.sidecar, link="away", reason=reason),  # noqa: SLF001 - as above
            )
            assert run.why_no_link == told


def shown(report: BenchReport) -> str:
    file = io.StringIO()
    render(report, terminal_of(file=file, width=80))
    assert max(map(len, file.getvalue().splitlines())) <= 80
    return file.getvalue()


def test_one_cut_exchange_of_a_long_path_fits_on_a_narrow_screen() -> None:
    exchange = ObservedExchange(
        begun_at=1.0, method="POST", path="/v1beta/models/gemini-3-pro:streamGenerateContent", up_wire_bytes=2_000_000
    )
    straight = metered_run._as_sent(exchange)  # noqa: SLF001 - what a report has of an exchange
    shown_as = {"method": "POST", "path": exchange.path, "status": None, "whole": False, "base_hits": 0}
    arms = [arm(name, [straight]) for name in (STRAIGHT, TUNNEL)]
    text = shown(make_report(arms, {"exchanges": [shown_as]}))
    assert "…reamGenerateContent" in text
    assert "- cut" in text
    assert "\nall" not in text
    assert "Nothing was saved. 1 of 1 requests failed" in text


@pytest.mark.parametrize(("status", "whole"), [(503, True), (200, False), (None, False)])
def test_what_failed_is_not_counted_as_saved(status: int | None, whole: bool) -> None:
    well = ObservedExchange(begun_at=1.0, up_wire_bytes=20_000)
    failed = ObservedExchange(begun_at=2.0, up_wire_bytes=90_000)
    straight = [metered_run._as_sent(one) for one in (well, failed)]  # noqa: SLF001 - as above
    tunnel = [replace(one, bytes_up_wire=1000) for one in straight]
    shown_as = [
        {"method": "POST", "path": "/x", "status": 200, "whole": True, "base_hits": 0},
        {"method": "POST", "path": "/x", "status": status, "whole": whole, "base_hits": 0},
    ]
    report = make_report([arm(STRAIGHT, straight), arm(TUNNEL, tunnel)], {"exchanges": shown_as})
    told = " ".join(shown(report).split())
    assert "2.0 KB instead of 20.0 KB: 90.0% saved. 1 of 2 requests failed, and are not counted as saved." in told


def test_of_many_exchanges_the_last_are_shown() -> None:
    exchange = ObservedExchange(begun_at=1.0, method="WS", path="/v1/responses", up_wire_bytes=1000)
    sent = metered_run._as_sent(exchange)  # noqa: SLF001 - as above
    turns = [replace(sent, bytes_up_wire=99_200, time_s=33.77, ttft_s=15.76, server_cpu_s=0.1981)] * 50
    shown_as = {"method": "WS", "path": exchange.path, "status": 101, "whole": True, "base_hits": 0}
    arms = [arm(name, turns) for name in (STRAIGHT, TUNNEL)]
    text = shown(make_report(arms, {"exchanges": [shown_as] * 50}))
    assert "The last 40 of 50 requests; --json has all." in text
    assert text.count("WS /v1/responses") == 40
    assert "…" not in text
    assert text.count(" 198\n") == 40
    assert " 9,905\n" in text
