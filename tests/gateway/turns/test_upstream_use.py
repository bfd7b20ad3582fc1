"""An upstream is idle when its last turn is over."""

from __future__ import annotations

import asyncio

from segue.gateway.turns.upstream_use import UpstreamUse
from segue.upstreams.scripted import ScriptedUpstream


async def test_it_waits_for_the_last_turn_of_this_upstream() -> None:
    use, one, other = UpstreamUse(), ScriptedUpstream(), ScriptedUpstream()
    use.begin([one, other])
    use.begin([one])
    waiting = [asyncio.create_task(use.until_idle(one)) for _ in range(2)]
    await asyncio.sleep(0)
    use.end([one])
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    use.end([one])
    await asyncio.gather(*waiting)
    await use.until_idle(one)
    use.end([other])


async def test_an_upstream_without_turns_is_idle_at_once() -> None:
    await UpstreamUse().until_idle(ScriptedUpstream())
