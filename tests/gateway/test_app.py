"""Opening a gateway: what was begun is undone when the rest fails."""

from __future__ import annotations

import pytest

from segue.config import Config, ServerConfig
from segue.gateway.app import Gateway
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream


class Recorded(ScriptedUpstream):
    """An upstream that notes what is asked of it, and may refuse to start."""

    def __init__(self, *, starts: bool) -> None:
        super().__init__()
        self._starts = starts
        self.asked: list[str] = []

    async def start(self) -> None:
        """Start, or fail as a damaged model does."""
        self.asked.append("start")
        if not self._starts:
            raise RuntimeError("it does not start")

    async def aclose(self) -> None:
        """Note it."""
        self.asked.append("close")


async def test_upstreams_that_had_started_are_closed_when_another_does_not_start() -> None:
    """A local model's thread would keep the process alive."""
    good, bad, late = Recorded(starts=True), Recorded(starts=False), Recorded(starts=True)
    router = Router([ModelRule(upstream, (name,)) for name, upstream in (("a", good), ("b", bad), ("c", late))])
    with pytest.raises(RuntimeError, match="does not start"):
        await Gateway.open(Config(server=ServerConfig(store="memory:")), router)
    assert (good.asked, bad.asked, late.asked) == (["start", "close"], ["start"], [])
