"""The lines that tell what is left."""

from __future__ import annotations

import pytest

from segue.gateway.quotas.rate_bucket import RateBucket
from segue.gateway.quotas.ratelimit_headers import duration, ratelimit_headers


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0, "0ms"),
        (0.0001, "1ms"),
        (0.35, "350ms"),
        (1, "1s"),
        (11.2, "12s"),
        (60, "1m0s"),
        (89.5, "1m30s"),
        (7200, "120m0s"),
    ],
)
def test_times_are_short(time_s: float, text: str) -> None:
    assert duration(time_s) == text


def test_the_tightest_limit_of_a_kind_is_told() -> None:
    wide, narrow, tokens = RateBucket(100), RateBucket(10), RateBucket(1000)
    narrow.take(4, 0.0)
    tokens.take(1500, 0.0)
    assert ratelimit_headers([("requests", wide), ("requests", narrow), ("tokens", tokens)], 0.0) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "6",
        "x-ratelimit-reset-requests": "24s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m30s",
    }
    assert ratelimit_headers([], 0.0) == {}
