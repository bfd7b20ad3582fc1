"""The waits between tries to reach a gateway."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.backoff import (
    EAGER_S,
    FIRST_S,
    LONGEST_S,
    REFUSED_S,
    delay_s,
    refused_delay_s,
    wanted_delay_s,
)

FRACTIONS = st.floats(0, 1)


def test_the_first_retry_is_at_once() -> None:
    assert delay_s(0, 1.0) == wanted_delay_s(0, 1.0) == 0.0


@given(st.integers(1, 10_000), FRACTIONS)
def test_a_wait_is_anything_up_to_a_bound_that_grows_to_the_longest(failures: int, fraction: float) -> None:
    assert 0 <= delay_s(failures, fraction) <= delay_s(failures + 1, 1.0) <= LONGEST_S
    assert delay_s(failures, 1.0) == min(LONGEST_S, FIRST_S * 2 ** min(failures - 1, 20))


@given(FRACTIONS)
def test_what_was_refused_waits_much_longer(fraction: float) -> None:
    assert LONGEST_S < refused_delay_s(fraction) <= REFUSED_S


@given(st.integers(1, 10_000), FRACTIONS)
def test_while_something_waits_the_waits_are_short_but_never_none(failures: int, fraction: float) -> None:
    assert FIRST_S / 2 <= wanted_delay_s(failures, fraction) <= EAGER_S
    assert wanted_delay_s(failures + 10, fraction) >= EAGER_S / 2
