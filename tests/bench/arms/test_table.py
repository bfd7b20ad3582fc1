"""The arms are told apart by their path and their switches, and each can be asked for what it does."""

from __future__ import annotations

import msgspec
import pytest

from segue.bench.arms.table import ARMS, REPLAY, MeasuredArm
from segue.client.settings import SessionSettings, check_switches


def test_every_arm_is_another_way() -> None:
    ways = {(arm.open_path, arm.api, arm.transport, arm.store, arm.history) for arm in ARMS.values()}
    assert len(ways) == len(ARMS)
    assert next(iter(ARMS)) == REPLAY
    assert all(name == arm.name and arm.meaning for name, arm in ARMS.items())


@pytest.mark.parametrize("arm", ARMS.values(), ids=lambda arm: arm.name)
def test_the_client_library_accepts_the_switches_of_each(arm: MeasuredArm) -> None:
    switches = msgspec.structs.asdict(arm.switches)
    assert switches.pop("name") == arm.name
    assert check_switches(SessionSettings(model="m", **switches)) is None
