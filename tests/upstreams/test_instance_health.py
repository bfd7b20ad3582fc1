"""What is known of instances: circuits, and rests that they asked for."""

from __future__ import annotations

import pytest

from segue.protocol.problems import Problem
from segue.upstreams.instance_health import LONGEST_REST_S, MAX_RESTS, InstanceHealth
from segue.upstreams.retries import FailedAttempt


def failure(retry_after_s: float | None = None, *, unhealthy: bool = True) -> FailedAttempt:
    return FailedAttempt(Problem("server_overloaded", "", retry_after_s=retry_after_s), unhealthy=unhealthy)


def failing(*, unhealthy: bool = True) -> InstanceHealth:
    """Return the health of an instance "a" that has failed three times at 0.0."""
    health = InstanceHealth()
    for _ in range(3):
        health.note_failure("a", "m", failure(unhealthy=unhealthy), begun_at=0.0, now=0.0)
    return health


def test_failures_take_an_instance_out_and_output_takes_it_in_again() -> None:
    health = failing()
    assert (health.is_out("a", 0.0), health.is_out("b", 0.0), health.opened["a"]) == (True, False, 1)
    health.note_choice("a", 5.0)
    assert health.is_out("a", 5.0), "a trial is under way"
    health.note_output("a", 5.0)
    assert not health.is_out("a", 5.0)


def test_output_alone_does_not_excuse_an_instance_that_is_in_use() -> None:
    """One that breaks every answer off in the middle fails too."""
    health = InstanceHealth()
    for _ in range(3):
        health.note_output("a", 0.0)
        health.note_failure("a", "m", failure(), begun_at=0.0, now=0.0)
    assert health.is_out("a", 0.0)
    health = InstanceHealth()
    for _ in range(3):
        health.note_success("a", 0.0)
        health.note_failure("a", "m", failure(), begun_at=0.0, now=0.0)
    assert not health.is_out("a", 0.0)


def test_what_speaks_for_a_request_alone_is_not_counted() -> None:
    assert not failing(unhealthy=False).is_out("a", 0.0)
    health = InstanceHealth()
    health.note_failure("a", "m", failure(9.0, unhealthy=False), begun_at=0.0, now=0.0)
    assert health.rest_s("a", "m", 0.0) == 0.0


def test_an_instance_that_asks_for_it_rests_for_that_model() -> None:
    """And no longer than an hour; a shorter wish does not shorten a longer one."""
    health = InstanceHealth()
    health.note_failure("a", "m", failure(9.0), begun_at=0.0, now=1.0)
    health.note_failure("a", "m", failure(2.0), begun_at=0.0, now=1.0)
    assert [health.rest_s("a", "m", now) for now in (1.0, 9.5, 10.0, 11.0)] == [9.0, 0.5, 0.0, 0.0]
    assert health.rest_s("a", "other", 1.0) == 0.0
    assert not health.is_out("a", 1.0)
    health.note_failure("a", "m", failure(1e9), begun_at=0.0, now=0.0)
    assert health.rest_s("a", "m", 0.0) == LONGEST_REST_S


def test_as_many_rests_as_models_that_clients_name_are_not_kept() -> None:
    health = InstanceHealth()
    for number in range(MAX_RESTS + 1):
        health.note_failure("a", f"m{number}", failure(9.0), begun_at=0.0, now=0.0)
    assert [health.rest_s("a", model, 0.0) for model in ("m0", "m1", f"m{MAX_RESTS}")] == [0.0, 9.0, 9.0]


@pytest.mark.parametrize("name", ["a", "b"])
def test_what_is_configured_anew_has_no_past(name: str) -> None:
    health = failing()
    health.note_failure("a", "m", failure(9.0), begun_at=0.0, now=0.0)
    health.forget([name])
    assert (health.is_out("a", 0.0), health.rest_s("a", "m", 0.0)) == ((False, 0.0) if name == "a" else (True, 9.0))
