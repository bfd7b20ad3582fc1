"""How many lanes are used, by what a server says and what is configured."""

from __future__ import annotations

import pytest

from segue.protocol.capabilities import extensions
from segue.protocol.lanes import BOUNDS
from segue.upstreams.lane_offer import ONE_LANE, OfferedLanes, read_offer

GATEWAY = f"lanes=32, in_flight=16, extensions=({' '.join(extensions(BOUNDS['openai'], 0))})"


@pytest.mark.parametrize(
    ("header", "configured", "offered"),
    [
        (None, None, ONE_LANE),
        (None, 8, OfferedLanes(8)),
        ("", 8, OfferedLanes(8)),
        ("a b", None, ONE_LANE),
        (GATEWAY, None, OfferedLanes(16, cancels=True, warms_up=True)),
        (GATEWAY, 1, OfferedLanes(1, cancels=True, warms_up=True)),
        (GATEWAY, 20, OfferedLanes(16, cancels=True, warms_up=True)),
        ("lanes=4, in_flight=16, extensions=(lanes cancel)", None, OfferedLanes(4, cancels=True)),
        ("lanes=4, in_flight=16, extensions=(lanes)", None, ONE_LANE),
        ("lanes=4, in_flight=16, extensions=(lanes)", 16, OfferedLanes(4)),
        ("lanes=0, in_flight=1, extensions=(warm_up cancel)", 16, OfferedLanes(1, cancels=True, warms_up=True)),
        ("lanes=999999, in_flight=99999, extensions=(lanes cancel)", None, OfferedLanes(32, cancels=True)),
        ("lanes=-5, in_flight=3, extensions=(lanes cancel)", None, OfferedLanes(1, cancels=True)),
        ('lanes="x", in_flight=?1, extensions=(lanes cancel)', None, OfferedLanes(1, cancels=True)),
        ("lanes, in_flight=8, extensions=(lanes cancel)", None, OfferedLanes(1, cancels=True)),
        ("extensions=lanes", 3, OfferedLanes(3)),
    ],
)
def test_lanes_are_offered_or_configured_and_never_guessed(
    header: str | None, configured: int | None, offered: OfferedLanes
) -> None:
    """Without a setting, only where a turn can be stopped alone."""
    assert read_offer(header, configured) == offered
