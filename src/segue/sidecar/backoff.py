"""The wait before the next attempt to reach a gateway: exponential backoff with jitter.

Pure: the caller passes the random number in. Not here: when attempts are made (`segue.sidecar.link_search`).
"""

from __future__ import annotations

#: The upper bound of the first wait; it doubles with each failure, up to `LONGEST_S`.
FIRST_S = 0.25
LONGEST_S = 10.0
#: The longest wait while something waits for the link: it must be back within a second of the network.
EAGER_S = 0.8
#: The longest wait after a refusal (a wrong key, another version), which only a person can mend.
REFUSED_S = 30.0

_DOUBLINGS = 10  # more would exceed the longest wait anyway


def delay_s(failures: int, fraction: float) -> float:
    """Return the wait after so many failures in a row; `fraction` is a random number from 0 to 1.

    The first retry follows at once. After that the wait is random, between zero and a bound that grows (full jitter),
    so that sidecars that lost a gateway together do not come back together.
    """
    if failures <= 0:
        return 0.0
    return fraction * min(LONGEST_S, FIRST_S * 2.0 ** min(failures - 1, _DOUBLINGS))


def wanted_delay_s(failures: int, fraction: float) -> float:
    """Return the wait while something waits for the link: between half of a bound that grows to `EAGER_S` and all.

    It is never shorter than half of its bound, so that requests cannot hammer a gateway that is down.
    """
    if failures <= 0:
        return 0.0
    return min(EAGER_S, FIRST_S * 2.0 ** min(failures - 1, _DOUBLINGS)) * (1 + fraction) / 2


def refused_delay_s(fraction: float) -> float:
    """Return the wait after a refusal: between half of `REFUSED_S` and all of it."""
    return REFUSED_S * (1 + fraction) / 2
