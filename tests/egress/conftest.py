"""A way out that every test has its own of."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from segue.egress.client import Egress
from segue.egress.limits import EgressLimits


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(limits=EgressLimits(connect_s=5.0)) as egress:
        yield egress
