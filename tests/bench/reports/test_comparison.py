"""Two results are compared by name, and noise is told from a difference by the rule that the module states."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.reports.comparison import ComparedValue, Verdict, compare, sign_test
from segue.bench.reports.report import Arm, BenchReport, Figure, MachineInfo, RoundFigures, TurnFigures, arm, figure
from tests.strategies import examples

MACHINE = MachineInfo("cpu", 2, "3.11.7", "Linux")


def report(*figures: Figure, arms: list[Arm] | None = None, settings: dict[str, object] | None = None) -> BenchReport:
    return BenchReport(
        machine=MACHINE, version="1", commit="a", settings=settings or {}, arms=arms or [], figures=list(figures)
    )


def only(before: BenchReport, after: BenchReport) -> ComparedValue:
    (value,) = compare(before, after).values
    return value


def timed(*times: float, name: str = "raw") -> Arm:
    return arm(name, [TurnFigures(time_s=time_s) for time_s in times])


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "same"),
        ([1.0, 2.0, 3.0], [2.5, 2.9, 9.0], "noise"),  # 2.9 lies in 1 to 3
        ([1.0, 2.0, 3.0], [3.0, 3.5, 4.0], "differs"),
        ([1.0, 2.0, 3.0], [1.9, 3.5, 4.0], "noise"),  # 2 lies in 1.9 to 4
        ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3], "differs"),
        ([1.0], [2.0], "once"),
        ([1.0], [1.0], "same"),
        ([1.0], [1.5, 2.0, 3.0], "differs"),
    ],
)
def test_a_figure_is_judged_by_its_ranges(before: list[float], after: list[float], verdict: Verdict) -> None:
    for one, other in ((before, after), (after, before)):
        assert only(report(figure("cost", one, "ms")), report(figure("cost", other, "ms"))).verdict == verdict


def test_a_figure_has_a_ratio_and_what_got_worse() -> None:
    value = only(report(figure("cost", [2.0], "ms")), report(figure("cost", [3.0], "ms")))
    assert value == ComparedValue(
        name="cost", unit="ms", before=2.0, after=3.0, ratio=1.5, verdict="once", worse_percent=50.0
    )


@pytest.mark.parametrize("before", [0.0, -1.0])
def test_without_a_positive_before_there_is_no_ratio(before: float) -> None:
    value = only(report(figure("added", [before], "ms")), report(figure("added", [3.0], "ms")))
    assert (value.ratio, value.worse_percent, value.verdict) == (None, None, "once")


@pytest.mark.parametrize("name", ["bytes saved", "fleet: saved"])
def test_more_saved_is_better(name: str) -> None:
    value = only(report(figure(name, [50.0], "%")), report(figure(name, [60.0], "%")))
    assert value.worse_percent == pytest.approx(-20)


def test_turns_are_paired() -> None:
    """All later turns are a little slower: clear, although the turns differ by far more among themselves."""
    before = [0.1 * 2**turn for turn in range(8)]
    value = only(report(arms=[timed(*before)]), report(arms=[timed(*(1.01 * one for one in before))]))
    assert (value.name, value.unit, value.verdict) == ("raw: time_s", "s", "differs")
    assert value.worse_percent == pytest.approx(1)


def test_turns_that_are_slower_and_faster_are_noise() -> None:
    value = only(report(arms=[timed(1, 1, 1, 1, 1, 1)]), report(arms=[timed(2, 2, 2, 2, 2, 0.5)]))
    assert (value.verdict, value.ratio) == ("noise", 2)


def test_five_turns_are_too_few_to_tell_and_six_are_enough() -> None:
    for count, verdict in ((1, "once"), (2, "noise"), (5, "noise"), (6, "differs")):
        value = only(report(arms=[timed(*[1.0] * count)]), report(arms=[timed(*[2.0] * count)]))
        assert value.verdict == verdict


def test_equal_counts_are_the_same() -> None:
    turns = [TurnFigures(bytes_up_wire=size, tokens_reused=3, requests=1) for size in (5, 6)]
    comparison = compare(report(arms=[arm("a", turns)]), report(arms=[arm("a", turns)]))
    assert [(one.name, one.unit, one.verdict) for one in comparison.values] == [
        ("a: bytes_up_wire", "B", "same"),
        ("a: tokens_reused", "tokens", "same"),
        ("a: requests", "requests", "same"),
    ]
    assert comparison.missing == []


def test_fewer_reused_tokens_are_worse() -> None:
    ends = [report(arms=[arm("a", [TurnFigures(tokens_reused=count)])]) for count in (100, 50)]
    assert only(*ends).worse_percent == pytest.approx(50)


def test_arms_of_the_same_name_are_told_apart() -> None:
    """One arm over two links and at two speeds of the model: each is compared with its own."""
    kinds = [("2g", 65.0), ("fibre", 65.0), ("fibre", 1000.0), (None, None)]

    def ends(*times: float) -> BenchReport:
        arms = [timed(time_s) for time_s in times]
        named = zip(arms, kinds, strict=True)
        return report(arms=[msgspec.structs.replace(one, link=link, tokens_s=speed) for one, (link, speed) in named])

    comparison = compare(ends(1, 2, 3, 4), ends(2, 4, 6, 4))
    assert [(one.name, one.ratio) for one in comparison.values] == [
        ("raw, 2g, 65 tokens/s: time_s", 2),
        ("raw, fibre, 65 tokens/s: time_s", 2),
        ("raw, fibre, 1000 tokens/s: time_s", 2),
        ("raw: time_s", 1),
    ]
    only_two = compare(ends(1, 2, 3, 4), report(arms=[timed(4)]))
    assert only_two.missing == ["raw, 2g, 65 tokens/s", "raw, fibre, 65 tokens/s", "raw, fibre, 1000 tokens/s"]


def test_rounds_are_judged_by_their_ranges() -> None:
    def repeated(*times: float) -> BenchReport:
        rounds = [RoundFigures(task_s=time_s, set_up_up_bytes=7) for time_s in times]
        return report(arms=[arm("a", [TurnFigures(bytes_up_wire=5)], rounds=rounds)])

    comparison = compare(repeated(1, 2, 3), repeated(4, 5, 6))
    assert [(one.name, one.unit, one.before, one.after, one.verdict) for one in comparison.values] == [
        ("a: bytes_up_wire", "B", 5, 5, "same"),
        ("a: task_s, rounds", "s", 2, 5, "differs"),
        ("a: set_up_up_bytes, rounds", "B", 7, 7, "same"),
    ]


def test_totals_are_compared_only_of_the_same_work() -> None:
    """`segue bench gateway` writes arms without turns, whose totals grow with the rounds."""
    bare = Arm(name="a", status="completed", turns=[], totals=TurnFigures(time_s=2.0))
    same = compare(report(arms=[bare], settings={"rounds": 1}), report(arms=[bare], settings={"rounds": 1}))
    assert [one.verdict for one in same.values] == ["same"]
    other = compare(report(arms=[bare], settings={"rounds": 1}), report(arms=[bare], settings={"rounds": 2}))
    assert (other.values, other.missing) == ([], ["a"])
    assert [(one.name, one.before, one.after) for one in other.differences] == [("settings: rounds", 1, 2)]


def test_names_what_is_missing_or_cannot_be_compared() -> None:
    before = report(
        figure("gone", [1.0], "ms"),
        figure("unit", [1.0], "ms"),
        figure("unmeasured", [], "ms"),
        arms=[timed(1, name="shorter"), timed(1, name="gone too")],
    )
    after = report(
        figure("unit", [1.0], "s"),
        figure("unmeasured", [1.0], "ms"),
        figure("new", [1.0], "ms"),
        arms=[timed(1, 2, name="shorter"), timed(1, name="new too")],
    )
    comparison = compare(before, after)
    assert comparison.values == []
    assert comparison.missing == ["gone", "unit", "unmeasured", "shorter", "gone too", "new", "new too"]


def test_names_differences_of_machine_version_settings_and_ends() -> None:
    before = report(arms=[timed(1)], settings={"rounds": 1, "old": True})
    after = msgspec.structs.replace(
        report(arms=[msgspec.structs.replace(timed(1), status="failed")], settings={"rounds": 2, "new": None}),
        machine=msgspec.structs.replace(MACHINE, cores=4),
        version="2",
        commit=None,
    )
    comparison = compare(before, after)
    assert [(one.name, one.before, one.after) for one in comparison.differences] == [
        ("cores", 2, 4),
        ("version", "1", "2"),
        ("commit", "a", None),
        ("settings: rounds", 1, 2),
        ("settings: old", True, None),
        ("raw: status", "completed", "failed"),
    ]
    assert comparison.newly_failed == ["raw"]
    assert compare(after, before).newly_failed == []


def test_worse_leaves_noise_and_what_got_better_out() -> None:
    before = [figure(name, [1.0, 2.0, 3.0], "ms") for name in ("clear", "noise", "better")] + [figure("once", [1], "B")]
    after = [
        figure("clear", [3.5, 4.0, 5.0], "ms"),
        figure("noise", [2.0, 2.5, 3.0], "ms"),
        figure("better", [0.1, 0.2, 0.3], "ms"),
        figure("once", [1.2], "B"),
    ]
    comparison = compare(report(*before), report(*after))
    assert [one.name for one in comparison.worse_than(10)] == ["clear", "once"]
    assert [one.name for one in comparison.worse_than(20.1)] == ["clear"]
    assert comparison.worse_than(100) == []


@settings(max_examples=examples(200))
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_counts_tosses(more: int, less: int) -> None:
    tosses = more + less
    distance = abs(more - less)
    as_one_sided = sum(comb(tosses, heads) for heads in range(tosses + 1) if abs(2 * heads - tosses) >= distance)
    assert sign_test(more, less) == pytest.approx(float(Fraction(as_one_sided, 2**tosses)))
    assert sign_test(more, less) == sign_test(less, more)


values = st.floats(0.001, 1000)


@settings(max_examples=examples(200))
@given(st.lists(values, min_size=1, max_size=9), st.lists(values, min_size=1, max_size=9))
def test_swapping_the_files_turns_the_ratio_around(one: list[float], other: list[float]) -> None:
    there = only(report(figure("f", one, "s")), report(figure("f", other, "s")))
    back = only(report(figure("f", other, "s")), report(figure("f", one, "s")))
    assert there.verdict == back.verdict
    assert there.ratio is not None
    assert back.ratio == pytest.approx(1 / there.ratio)
