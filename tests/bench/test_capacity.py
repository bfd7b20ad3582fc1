"""The arithmetic agrees with the article's numbers, and with the closed formulas."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.capacity import (
    ASSUMPTIONS,
    CONNECTION_FIGURE,
    CPU_FIGURE,
    FleetWorkload,
    arms,
    delta_bytes,
    figures,
    problem_of,
    replayed_bytes,
    saving,
    savings_by_turns,
    with_measured_costs,
)
from segue.bench.reports.report import BenchReport, figure, make_report
from segue.bench.reports.result_file import read_results
from tests.strategies import examples

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"

sizes = st.integers(1, 10_000_000)
workloads = st.builds(
    FleetWorkload,
    sessions=st.integers(1, 10**9),
    turns=st.integers(1, 200),
    first_bytes=sizes,
    growth_bytes=sizes,
    delta_bytes=sizes,
)


def values(workload: FleetWorkload) -> dict[str, float | None]:
    return {one.name: one.value for one in figures(workload)}


def test_the_articles_numbers() -> None:
    """176 and 32 KB, 144 KB x 1 million / 40 s = 28.8 Gbit/s, and 25.7 with each its own duration."""
    found = values(FleetWorkload())
    assert found["a task sends: replay"] == 176
    assert found["a task sends: delta"] == 32
    assert found["bytes saved"] == pytest.approx(81.8, abs=0.05)
    assert found["fleet, tasks of 40 s: saved"] == pytest.approx(28.8)
    assert found["fleet, each its own time: replay (40.8 s)"] == pytest.approx(34.5, abs=0.05)
    assert found["fleet, each its own time: delta (28.9 s)"] == pytest.approx(8.9, abs=0.05)
    assert found["fleet, each its own time: saved"] == pytest.approx(25.7, abs=0.05)


@pytest.mark.parametrize(("turns", "saved"), [(9, 80.0), (10, 81.8), (13, 85.7), (20, 90.5), (50, 96.1), (84, 97.6)])
def test_the_saving_of_equal_turns(turns: int, saved: float) -> None:
    ((_, replayed, changed, part),) = savings_by_turns(FleetWorkload(), [turns])
    assert 100 * part == pytest.approx(saved, abs=0.05)
    assert part == pytest.approx(1 - changed / replayed)


@settings(max_examples=examples(200))
@given(st.integers(1, 10_000), sizes)
def test_equal_turns_save_all_but_two_of_one_more(turns: int, size: int) -> None:
    workload = FleetWorkload(turns=turns, first_bytes=size, growth_bytes=size, delta_bytes=size)
    assert saving(workload) == pytest.approx(1 - 2 / (turns + 1), abs=1e-12)


@settings(max_examples=examples(200))
@given(workloads)
def test_the_formulas_are_the_sums_of_the_turns(workload: FleetWorkload) -> None:
    replay, delta = arms(workload)
    assert replay.totals.bytes_up_payload == replayed_bytes(workload)
    assert delta.totals.bytes_up_payload == delta_bytes(workload)
    assert replay.totals.time_s == pytest.approx(40.8)
    assert delta.totals.time_s == pytest.approx(28.9)
    assert [len(one.turns) for one in (replay, delta)] == [workload.turns] * 2


@settings(max_examples=examples(100))
@given(workloads)
def test_the_fleet_is_its_sessions(workload: FleetWorkload) -> None:
    one = values(msgspec.structs.replace(workload, sessions=1))
    for name, value in values(workload).items():
        scale = 1 if "task sends" in name or name == "bytes saved" else workload.sessions
        assert value == pytest.approx((one[name] or 0) * scale)


def test_state_costs_what_was_measured() -> None:
    workload = with_measured_costs(FleetWorkload(), read_results(RESULTS / "gateway.json"))
    assert isinstance(workload, FleetWorkload)
    assert workload.cpu_ms is not None
    assert workload.connection_bytes is not None
    found = values(workload)
    assert found["CPU for the turns"] == pytest.approx(1e6 * 10 / 28.9 * workload.cpu_ms / 1e3)
    assert found["state, connections"] == pytest.approx(1e6 * workload.connection_bytes / 1e9)
    assert found["state, histories kept, at most"] == pytest.approx(32.0)


def measured(**kept: float) -> BenchReport:
    return make_report([], {}, [figure(name, [value], "") for name, value in kept.items()])


def test_given_costs_come_before_measured_ones() -> None:
    report = measured(**{CPU_FIGURE: 2.0, CONNECTION_FIGURE: 20.0})
    kept = with_measured_costs(FleetWorkload(cpu_ms=1.0), report)
    assert kept == FleetWorkload(cpu_ms=1.0, connection_bytes=20_000)
    kept = with_measured_costs(FleetWorkload(connection_bytes=1.0), report)
    assert kept == FleetWorkload(cpu_ms=2.0, connection_bytes=1.0)


@pytest.mark.parametrize("kept", [{}, {CPU_FIGURE: 1.0}, {CONNECTION_FIGURE: 1.0}])
def test_says_which_figure_is_missing(kept: dict[str, float]) -> None:
    said = with_measured_costs(FleetWorkload(), measured(**kept))
    assert isinstance(said, str)
    assert (CONNECTION_FIGURE if CPU_FIGURE in kept else CPU_FIGURE) in said


def test_without_a_measurement_state_has_no_price() -> None:
    assert not {"CPU for the turns", "state, connections"} & set(values(FleetWorkload()))


@pytest.mark.parametrize("assumption", ASSUMPTIONS, ids=lambda one: one.field)
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_says_what_cannot_be(assumption: msgspec.Struct, value: float) -> None:
    (one,) = (known for known in ASSUMPTIONS if known is assumption)
    said = problem_of(msgspec.structs.replace(FleetWorkload(), **{one.field: value}))
    assert said == f"{one.option} must be more than 0"


def test_every_field_is_an_assumption_and_turns_are_bounded() -> None:
    assert [one.field for one in ASSUMPTIONS] == list(FleetWorkload.__struct_fields__)
    assert problem_of(FleetWorkload()) is None
    assert problem_of(FleetWorkload(turns=10_001)) == "--turns must be at most 10000"
