"""When a server wants to be asked again: `Retry-After` (RFC 9110, 10.2.3) and `retry-after-ms`.

Not here: whether anybody asks again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

#: A number with more digits than this is not a time that anybody waits.
_MAX_DIGITS = 12


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return after how many seconds a server wants to be asked again (`Retry-After` or `retry-after-ms`)."""
    milliseconds = _read_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _read_number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _read_number(text: str | None) -> float | None:
    """Read a number of seconds or milliseconds; return None for anything else, a negative number included."""
    digits = "" if text is None else text.strip()
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > _MAX_DIGITS:
        return None
    return float(digits)
