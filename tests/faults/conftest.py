"""What fault tests share."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
async def plain_loop() -> None:
    """Run without the loop's debug mode, which makes ten thousands of frames slow."""
    asyncio.get_running_loop().set_debug(False)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every wait of the client end at once."""
    sleep = asyncio.sleep

    async def no_sleep(_: float) -> None:
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", no_sleep)
