"""What the program has logged in a test, without what the event loop's debug mode adds."""

from __future__ import annotations

import pytest


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return the log of a test. The loop's warnings of slow callbacks are not in it: they are about the machine."""
    return "\n".join(
        record.getMessage()
        for record in caplog.records
        if not (record.name == "asyncio" and record.getMessage().startswith("Executing "))
    )
