"""Units and ranges that settings of several areas share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

MIB = 1024 * 1024
DAY_S = 24 * 3600.0

Positive = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=1)]

#: A point in time, with a time zone.
Moment = Annotated[datetime, Meta(tz=True)]
