"""The doors: each is named as the dialect that its API has as an upstream."""

from __future__ import annotations

import pytest

from segue.dialects.doors import Door
from segue.dialects.messages.door import MessagesDoor
from tests.dialects.conversations import DIALECTS


@pytest.mark.parametrize("door", [MessagesDoor()])
def test_a_door_is_named_as_its_dialect(door: Door) -> None:
    """What comes through it can pass to an upstream of the same name."""
    assert DIALECTS[door.name].name == door.name
