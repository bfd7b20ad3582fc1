"""Moments as people write them, to come and past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from segue.config.errors import ConfigError
from segue.config.moments import parse_expiry, parse_past

NOW = datetime(2027, 1, 1, 12, 30, 15, 999, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12h", datetime(2027, 1, 2, 0, 30, 15, tzinfo=UTC)),
        ("30d", datetime(2027, 1, 31, 12, 30, 15, tzinfo=UTC)),
        ("8w", datetime(2027, 2, 26, 12, 30, 15, tzinfo=UTC)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00+01:00", datetime(2030, 1, 31, 11, tzinfo=UTC)),
    ],
)
def test_a_period_a_day_or_a_moment_is_an_expiry(text: str, moment: datetime) -> None:
    assert parse_expiry(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1.5d", "3 days", "999999w", "yesterday", "2026-12-31", "30m"])
def test_what_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_expiry(text, NOW)


def test_now_is_over() -> None:
    with pytest.raises(ConfigError, match="is over"):
        parse_expiry(NOW.isoformat(), NOW)
    assert parse_expiry((NOW + timedelta(seconds=2)).isoformat(), NOW) > NOW


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30d", NOW - timedelta(days=30)),
        ("1h", NOW - timedelta(hours=1)),
        ("2026-12-31", datetime(2026, 12, 31, tzinfo=UTC)),
        ("2026-12-31T12:00:00+01:00", datetime(2026, 12, 31, 11, tzinfo=UTC)),
        (NOW.isoformat(), NOW),
    ],
)
def test_a_period_a_day_or_a_moment_is_past(text: str, moment: datetime) -> None:
    assert parse_past(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "0d", "tomorrow", "2027-01-02"])
def test_what_is_no_time_that_is_past_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_past(text, NOW)
