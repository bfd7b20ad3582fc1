"""A path leads to the provider, and its meter sees what goes over it."""

from __future__ import annotations

from segue.bench.arms.paths import straight_path
from segue.bench.arms.player import play
from segue.bench.workloads.sessions import make_session
from segue.testing.provider import provided, replying


async def test_the_straight_path_counts_heads_and_bodies() -> None:
    session = make_session("pi", turns=1)
    async with provided(replying(session)) as provider, straight_path(provider) as path:
        await play(session, path.host, path.port)
        carried = path.meter.take()
    assert carried.up_bytes > len(session.turns[0].body)
    assert carried.down_bytes > 0
    assert (path.cpu_s, path.settle) == (None, None)
