"""What a sidecar has counted fits the screen, and loses no figure on a narrow one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from segue.cli.stats_lines import render, saving, size_of
from segue.sidecar.stats import ExchangeSummary, SidecarReport

GOLDEN = Path(__file__).parent / "golden"

REPORT = SidecarReport(
    exchanges=1234,
    active=3,
    attached=1,
    agent_bytes_in=1_087_049_310,
    agent_bytes_out=12_710_000,
    tunnel_bytes_up=24_801_234,
    tunnel_bytes_down=4_100_000,
    base_hits=1190,
    base_misses=4,
    without_base=40,
    direct=2,
    resumes=17,
    parked=1,
    queued=2,
    link="away",
    gateway="wss://gateway-of-the-company.europe-west.example.com:8443",
    reason="cannot connect to gateway-of-the-company.europe-west.example.com:8443: No route to host",
    rtt_s=0.6123,
    failed={"segue_gateway_unreachable": 2, "cut": 1},
    recent=[
        ExchangeSummary("/openai/v1/responses", 101, "completed", 0, 0, 48_000, 61.5),
        ExchangeSummary("/anthropic/v1/messages", 200, "cut", 787_049, 412, 1_200, 9.25, "cut"),
        ExchangeSummary(
            "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent", 200, "completed", 81_433, 310, 5_012, 12.0
        ),
        ExchangeSummary("/anthropic/v1/messages", None, "failed", 1_900_001, 0, 0, 20.01, "segue_gateway_unreachable"),
    ],
)


@pytest.mark.parametrize("width", [50, 80, 120])
def test_a_report_is_drawn_as_it_was(width: int) -> None:
    lines = [line.plain.rstrip() for line in render(REPORT, width)]
    assert lines == (GOLDEN / f"stats_{width}.txt").read_text(encoding="utf-8").splitlines()
    assert max(map(cell_len, lines)) <= width


def test_without_a_screen_the_lines_are_whole() -> None:
    lines = [line.plain for line in render(REPORT, None)]
    assert REPORT.reason in lines
    assert lines[0].startswith(f"link away to {REPORT.gateway}, round trip 612 ms")
    assert any(line.startswith("/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent ") for line in lines)


def test_a_sidecar_that_has_done_nothing_says_so() -> None:
    idle = SidecarReport(parked=0, link="connecting", gateway="ws://g", rtt_s=None, recent=[])
    assert [line.plain for line in render(idle, 50)][:3] == [
        "link connecting to ws://g",
        "0 under way, 0 waiting to be sent, 0 parked,",
        "  0 attached, 0 resumes",
    ]


@given(
    st.integers(50, 200),
    st.text(max_size=80),
    st.integers(0, 10**15),
    st.lists(st.tuples(st.text(max_size=70), st.sampled_from(["", "cut", "segue_outcome_unknown"])), max_size=4),
)
def test_no_line_is_wider_than_the_screen_or_controls_it(
    width: int, text: str, count: int, recent: list[tuple[str, str]]
) -> None:
    report = msgspec.structs.replace(
        REPORT,
        gateway=text,
        reason=text,
        agent_bytes_in=count,
        recent=[ExchangeSummary(path, 200, "failed", 10**9, 10**9, 10**9, 9999.0, error) for path, error in recent],
    )
    for line in render(report, width):
        assert cell_len(line.plain) <= width
        assert line.plain.isprintable()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (1_500_000, "1.5 MB"), (2 * 10**9, "2,000.0 MB")]
)
def test_sizes_are_read_by_people(count: int, text: str) -> None:
    assert size_of(count) == text


@pytest.mark.parametrize(
    ("counted", "line"),
    [
        ({}, "no request came through here"),
        ({"exchanges": 1, "failed": {"cut": 1}}, "1 request, 1 failed (cut); none was carried"),
        (
            {"exchanges": 2, "failed": {"segue_invalid_key": 2}, "reason": "\x1b[1mno\nsuch key."},
            "2 requests, 2 failed (segue_invalid_key; no link:  [1mno such key); none was carried",
        ),
        ({"exchanges": 2, "direct": 2}, "2 requests, 2 went straight to the provider; none was carried"),
        (
            {"exchanges": 4, "failed": {"cut": 2, "x": 1}, "agent_bytes_in": 900, "agent_bytes_out": 100},
            "4 requests, 3 failed (2 cut, 1 x): 30 B on the link instead of 1.0 KB (97.0% saved)",
        ),
        ({"exchanges": 1, "agent_bytes_in": 20}, "1 request: 30 B on the link instead of 20 B (50.0% more)"),
    ],
)
def test_only_what_was_carried_is_a_saving(counted: dict[str, Any], line: str) -> None:
    report = SidecarReport(parked=0, link="up", gateway="ws://g", rtt_s=None, recent=[], tunnel_bytes_up=30, **counted)
    assert saving(report) == f"segue: {line}"
