"""What fault tests share."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
async def plain_loop() -> None:
    """Run without the loop's debug mode, which makes ten thousands of frames slow."""
    asyncio.get_running_loop().set_debug(False)
