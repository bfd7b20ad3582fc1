"""Each rule fits where it says so, and the figures are those of the formulas."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.advice import RULES, AgentWorkload, Way, advice_figures, advise, problem_of_agent, task_times
from segue.bench.capacity import FleetWorkload
from segue.bench.links.profiles import LINKS
from segue.bench.links.transfer_time import transfer_time_s
from tests.strategies import examples

BASE = AgentWorkload(
    sizes=FleetWorkload(turns=40, growth_bytes=16_000, delta_bytes=16_000, first_bytes=100_000),
    link=LINKS["slow-4g"],
    tokens_s=65,
    output_tokens=523,
    api="responses",
    short_lived=False,
)


def changed(workload: AgentWorkload, **given: object) -> AgentWorkload:
    return msgspec.structs.replace(workload, **given)


def turns(count: int) -> FleetWorkload:
    return msgspec.structs.replace(BASE.sizes, turns=count)


@pytest.mark.parametrize(
    ("workload", "rule", "way"),
    [
        (changed(BASE, sizes=turns(1)), 0, "plain HTTP"),
        (changed(BASE, sizes=turns(2), short_lived=True), 0, "plain HTTP"),
        (changed(BASE, sizes=turns(3), short_lived=True), 1, "id over HTTP, stored"),
        (changed(BASE, short_lived=True, api="other"), 2, "plain HTTP"),
        (changed(BASE, link=LINKS["data-centre"]), 3, "plain HTTP"),
        (changed(BASE, link=LINKS["data-centre"], api="other"), 3, "plain HTTP"),
        (BASE, 4, "id over WebSocket"),
        (changed(BASE, api="other"), 5, "sidecar"),
    ],
)
def test_the_first_rule_that_fits_advises(workload: AgentWorkload, rule: int, way: Way) -> None:
    advice = advise(workload, task_times(workload))
    assert advice is RULES[rule]
    assert advice.advice == way


def test_a_faster_model_makes_the_link_matter() -> None:
    """The same agent and the same link: with 65 tokens/s the model takes the time, with 1,000 the link does."""
    workload = changed(BASE, sizes=FleetWorkload(turns=20), link=LINKS["leo-in-flight"])
    ways = [advise(one, task_times(one)).advice for one in (workload, changed(workload, tokens_s=4000))]
    assert ways == ["plain HTTP", "id over WebSocket"]


def test_times_are_the_sums_of_the_turns() -> None:
    workload = changed(BASE, sizes=FleetWorkload(turns=3))
    profile = workload.link.profile
    sent = [transfer_time_s(profile, 93_750, size, age="idle") for size in (3_200, 6_400, 9_600)]
    times = task_times(workload)
    assert times.replay_s == pytest.approx(sum(sent))
    assert times.delta_s == pytest.approx(3 * sent[0])
    assert times.model_s == pytest.approx(3 * 523 / 65)
    assert times.saved == pytest.approx((times.replay_s - times.delta_s) / (times.replay_s + times.model_s))


def test_figures_are_what_the_advice_rests_on() -> None:
    workload = changed(BASE, sizes=FleetWorkload())
    times = task_times(workload)
    found = {one.name: one.value for one in advice_figures(workload, times)}
    assert found["a task sends: replay"] == 176
    assert found["a task sends: delta"] == 32
    assert found["time saved"] == pytest.approx(100 * times.saved)


@settings(max_examples=examples(100))
@given(st.sampled_from(list(LINKS)), st.integers(1, 60), st.integers(1, 200_000), st.floats(1, 5000))
def test_there_is_always_advice_and_less_is_never_slower(link: str, count: int, size: int, tokens_s: float) -> None:
    sizes = FleetWorkload(turns=count, first_bytes=size, growth_bytes=size, delta_bytes=size)
    workload = changed(BASE, link=LINKS[link], sizes=sizes, tokens_s=tokens_s)
    times = task_times(workload)
    assert 0 <= times.saved < 1
    assert advise(workload, times) in RULES


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"tokens_s": 0}, "--tokens-s must be more than 0"),
        ({"tokens_s": float("nan")}, "--tokens-s must be more than 0"),
        ({"output_tokens": 0}, "--output-tokens must be more than 0"),
        ({}, None),
    ],
)
def test_says_what_cannot_be(given_: dict[str, float], said: str | None) -> None:
    assert problem_of_agent(changed(BASE, **given_)) == said
