"""A circuit opens after failures in a row, lets one trial through, and closes when that has output."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.upstreams.circuit_breaker import (
    CLOSED,
    BreakerPolicy,
    Circuit,
    after_choice,
    after_failure,
    after_success,
)
from tests.strategies import examples

POLICY = BreakerPolicy(failures=3, first_open_s=2.0, longest_open_s=10.0, trial_s=30.0)


def failed(circuit: Circuit, *times: float) -> Circuit:
    """Fail turns that begin and end at these times."""
    for now in times:
        circuit = after_failure(circuit, POLICY, now, begun_at=now)
    return circuit


def test_failures_in_a_row_open_it() -> None:
    assert [failed(CLOSED, *[0.0] * count).state(0.0) for count in range(4)] == ["closed", "closed", "closed", "open"]


def test_a_success_between_them_keeps_it_closed() -> None:
    circuit = failed(after_success(failed(CLOSED, 0.0, 0.0), 0.0), 1.0, 1.0)
    assert circuit.state(1.0) == "closed"


def test_turns_that_began_before_it_opened_change_nothing() -> None:
    """A hundred that fail together are one outage, and one that got through before is no news."""
    circuit = failed(CLOSED, 1.0, 1.0, 1.0)
    assert after_failure(circuit, POLICY, 2.9, begun_at=0.9) == circuit
    assert after_success(circuit, 0.9) == circuit


def test_one_trial_at_a_time_is_let_through() -> None:
    circuit = failed(CLOSED, 0.0, 0.0, 0.0)
    assert [circuit.state(now) for now in (1.9, 2.0)] == ["open", "trial"]
    trying = after_choice(circuit, POLICY, 2.0)
    assert [trying.state(now) for now in (2.0, 31.9, 32.0)] == ["open", "open", "trial"], "it may never say anything"
    assert after_success(trying, 2.0) == CLOSED
    assert after_choice(CLOSED, POLICY, 0.0) == CLOSED
    assert after_choice(trying, POLICY, 3.0) == trying


def test_each_trial_that_fails_doubles_the_time_up_to_a_limit() -> None:
    circuit, now, waits = failed(CLOSED, 0.0, 0.0, 0.0), 0.0, []
    for _ in range(4):
        waits.append(circuit.open_until - now)
        now = circuit.open_until
        circuit = after_failure(after_choice(circuit, POLICY, now), POLICY, now, begun_at=now)
    assert waits == [2.0, 4.0, 8.0, 10.0]


@settings(max_examples=examples(300))
@given(st.lists(st.tuples(st.sampled_from(["choice", "success", "failure"]), st.floats(0, 40), st.floats(0, 40))))
def test_it_is_never_open_for_ever_and_never_without_failures(steps: list[tuple[str, float, float]]) -> None:
    """Whatever happens: after the longest time a turn is let through, and a success of that turn closes it."""
    circuit, now, failures = CLOSED, 0.0, 0
    for step, passed, ago in steps:
        now += passed
        match step:
            case "choice":
                circuit = after_choice(circuit, POLICY, now)
            case "success":
                circuit = after_success(circuit, now - ago)
            case _:
                failures += 1
                circuit = after_failure(circuit, POLICY, now, begun_at=now - ago)
        assert circuit.state(now) == "closed" or failures >= POLICY.failures
        later = now + max(POLICY.longest_open_s, POLICY.trial_s)
        assert circuit.state(later) != "open"
        assert after_success(after_choice(circuit, POLICY, later), later) == CLOSED
