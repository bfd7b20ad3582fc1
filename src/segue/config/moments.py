"""Moments as people write them: a period, a day, or a point in time (ISO 8601). Pure.

Not here: what a moment is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from segue.config.errors import ConfigError

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS: Final[Mapping[str, timedelta]] = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def parse_expiry(text: str, now: datetime) -> datetime:
    """Return the moment to come that a text means: a period from `now` on (12h, 30d, 8w), a day, or a moment.

    A day means its first moment, and what names no time zone is in UTC.

    Raises:
        ConfigError: it means none, or one that is over.
    """
    moment = _parse(text, now, 1)
    if moment <= now:
        raise ConfigError(f"{text!r} is over: the key would never work")
    return moment.replace(microsecond=0)


def parse_past(text: str, now: datetime) -> datetime:
    """Return the moment of the past that a text means: a period before `now` (12h, 30d, 8w), a day, or a moment.

    Raises:
        ConfigError: it means none, or one to come.
    """
    moment = _parse(text, now, -1)
    if moment > now:
        raise ConfigError(f"{text!r} is still to come")
    return moment


def _parse(text: str, now: datetime, sign: int) -> datetime:
    period = _PERIOD.fullmatch(text)
    try:
        found = now + sign * int(period[1]) * _UNITS[period[2]] if period else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"{text!r} is no time: write 12h, 30d, 8w, 2030-01-31 or 2030-01-31T12:00:00Z") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
