"""The header lines that tell a client how much of a limit is left, in the names that OpenAI's API has for them.

https://platform.openai.com/docs/guides/rate-limits (rate limits in headers). Pure. Not here: the limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from segue.gateway.quotas.rate_bucket import RateBucket


def ratelimit_headers(buckets: Iterable[tuple[str, RateBucket]], now: float) -> Mapping[str, str]:
    """Return the lines for buckets by what they count; of several of one kind, that with the least left is told."""
    least: dict[str, RateBucket] = {}
    for what, bucket in buckets:
        known = least.get(what)
        if known is None or bucket.remaining(now) < known.remaining(now):
            least[what] = bucket
    lines: dict[str, str] = {}
    for what, bucket in least.items():
        lines[f"x-ratelimit-limit-{what}"] = str(bucket.per_minute)
        lines[f"x-ratelimit-remaining-{what}"] = str(bucket.remaining(now))
        lines[f"x-ratelimit-reset-{what}"] = duration(bucket.full_in_s(now))
    return lines


def duration(time_s: float) -> str:
    """Write a time as that API does: `350ms`, `12s`, `1m30s`."""
    if time_s < 1:
        return f"{math.ceil(time_s * 1000)}ms"
    minutes, seconds = divmod(math.ceil(time_s), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
