"""What is computed is the wire that was measured, and the difference that compression makes."""

from __future__ import annotations

import zlib

import pytest
from msgspec.structs import replace

from segue.bench.arms.baselines import frame_bytes
from segue.bench.arms.computed import computed_arms
from segue.bench.meters.turn_meter import RecordedExchange
from segue.bench.reports.report import Arm, TurnFigures
from segue.bench.reports.report import arm as make_arm

CREATE = b'{"model":"m","input":[%b]}' % b",".join(b'{"role":"user","content":"Say it again."}' for _ in range(50))
EVENTS = tuple(b'{"type":"response.output_text.delta","delta":"%d"}' % number for number in range(20))
RECORDED = [RecordedExchange(CREATE, EVENTS), RecordedExchange(CREATE, EVENTS)]


def measured(name: str) -> Arm:
    turn = TurnFigures(
        bytes_up_payload=len(CREATE),
        bytes_down_payload=sum(map(len, EVENTS)),
        bytes_up_wire=10_000,
        bytes_down_wire=20_000,
        time_s=1.0,
    )
    return replace(make_arm(name, [turn, turn]), workload="article")


def test_gzip_and_zstd_compress_each_request_by_itself() -> None:
    gzip, zstd = computed_arms(measured("http replay"), RECORDED, "http")
    assert [gzip.name, zstd.name] == ["gzip", "zstd"]
    for arm in (gzip, zstd):
        assert (arm.basis, arm.workload, arm.status) == ("computed", "article", "completed")
        first, second = arm.turns
        assert first == second
        assert (first.bytes_up_payload, first.time_s, arm.totals.time_s) == (len(CREATE), None, None)
        assert (first.bytes_down_wire or 0) < 20_000
    packed = len(zlib.compress(CREATE, 6, 31))
    digits = len(str(len(CREATE))) - len(str(packed))
    up = 10_000 - len(CREATE) + packed + len("Content-Encoding: gzip\r\n") - digits
    assert gzip.turns[0].bytes_up_wire == up


def test_permessage_deflate_remembers_what_was_sent() -> None:
    (deflate,) = computed_arms(measured("websocket replay"), RECORDED, "websocket")
    first, second = deflate.turns
    saved = 10_000 - (second.bytes_up_wire or 0)
    assert saved == pytest.approx(frame_bytes(len(CREATE), masked=True), abs=40)
    assert (second.bytes_up_wire or 0) < (first.bytes_up_wire or 0)
    assert (second.bytes_down_wire or 0) < (first.bytes_down_wire or 0) < 20_000
