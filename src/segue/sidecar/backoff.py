"""How long to wait before the next try to reach a gateway: pure, so that the clock and the dice are the caller's."""

from __future__ import annotations

#: The first wait, at most; each further one may be twice as long, up to the last.
FIRST_S = 0.25
LONGEST_S = 10.0
#: After a refusal (a wrong key, another version), which only a person can mend.
REFUSED_S = 30.0

_DOUBLINGS = 10  # more would reach no further than the longest


def delay_s(failures: int, fraction: float) -> float:
    """Return the wait after so many failures in a row; `fraction` is a random number from 0 to 1.

    The first retry is at once. After that the wait is anything between nothing and a bound that grows (full jitter),
    so that sidecars that lost a gateway together do not come back together.
    """
    if failures <= 0:
        return 0.0
    return fraction * min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, _DOUBLINGS))


def refused_delay_s(fraction: float) -> float:
    """Return the wait after a refusal: some time between half of `REFUSED_S` and all of it."""
    return REFUSED_S * (1 + fraction) / 2
