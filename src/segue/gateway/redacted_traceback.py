"""What a log may say of an unexpected exception: its type and the places it went through.

Never its text: exceptions quote what they stumbled over, and that may be what a client said, which is not logged.
"""

from __future__ import annotations

import traceback


def outline(error: BaseException) -> str:
    """Return the types and places of an exception and of those that caused it, the outermost first."""
    parts: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        parts.append(f"{type(cause).__qualname__} at\n{''.join(traceback.format_tb(cause.__traceback__))}")
        cause = cause.__cause__ or cause.__context__
    return "caused by ".join(parts)
