"""A traceback that may be logged: the types of an exception and its causes, and the places they went through.

Never their texts: exceptions quote what they failed on. That may be what a client said, and content is not logged.
"""

from __future__ import annotations

import traceback


def redacted_traceback(error: BaseException) -> str:
    """Return the types and places of an exception and of those that caused it, the outermost first."""
    parts: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        parts.append(f"{type(cause).__qualname__} at\n{''.join(traceback.format_tb(cause.__traceback__))}")
        cause = cause.__cause__ or cause.__context__
    return "caused by ".join(parts)
