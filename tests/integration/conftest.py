"""What all integration tests share: gateways that are closed and judged at the end, and no way out to a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from segue.config import KeyConfig
from segue.upstreams.scripted import ScriptedTurn
from tests.heard_tunnels import heard_tunnels
from tests.integration.gateway import Running, Start, running

__all__ = ["heard_tunnels"]


@pytest.fixture(autouse=True)
def no_detours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`websockets` takes a proxy even to 127.0.0.1, and the SDKs read settings of their own from the environment."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    for name in ("BASE_URL", "WEBSOCKET_BASE_URL", "API_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start gateways; at the end each is closed, and its script must have been played to its end."""
    async with AsyncExitStack() as stack:

        async def start_one(*script: ScriptedTurn, keys: Sequence[KeyConfig] = (), **server: object) -> Running:
            return await stack.enter_async_context(running(script, keys=keys, server=server))

        yield start_one
