"""Units, ranges and values that settings of several areas share. Not here: the settings themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

#: What the caller that a table stands for may ask for (`[[key]]`, `[[certificate]]`).
AllowedModels = Annotated[list[str], Meta(description="Models that it may ask for: names, or globs like gpt-*.")]
AllowedRoutes = Annotated[
    list[str], Meta(description="Routes that its sidecars may use: prefixes like /anthropic, or globs.")
]
IsOperator = Annotated[bool, Meta(description="It may erase what other tenants have, and see the nodes.")]

MIB = 1024 * 1024
DAY_S = 24 * 3600.0

Positive = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=1)]

#: A point in time, with a time zone.
Moment = Annotated[datetime, Meta(tz=True)]


def everything() -> list[str]:
    """Return the glob of every name, as the value of a setting that was left out."""
    return ["*"]
