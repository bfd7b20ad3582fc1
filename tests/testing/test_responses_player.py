"""A turn is kept before its terminal event leaves, and ends where its fault says, whatever the outlet is."""

from __future__ import annotations

import pytest

from segue.testing.response_events import Json
from segue.testing.responses_faults import Cut, ErrorAt, Fault, RestartAt
from segue.testing.responses_player import Outlet, TurnPlayer, error_event
from segue.testing.responses_rules import OPENAI, CreateRefusal, PlannedTurn, ServerMemory, counting

BUSY = CreateRefusal(status=429, code="rate_limit_exceeded", message="Slow down.", param="model", retry_after_s=0)


class Recorder(Outlet):
    """An outlet that writes down what it is told, and whether the response was kept by then."""

    def __init__(self, memory: ServerMemory) -> None:
        self.memory = memory
        self.told: list[tuple[str, bool]] = []

    async def send(self, event: Json) -> None:
        self._note(event["type"])

    async def send_half(self, event: Json) -> None:
        self._note(f"half of {event['type']}")

    async def send_error(self, refusal: CreateRefusal, *, flat: bool, number: int) -> None:
        self._note(f"{refusal.code} {flat} {number}")

    async def close(self, code: int) -> None:
        self._note(f"close {code}")

    async def reset(self) -> None:
        self._note("reset")

    def restart(self, *, keeps_stored: bool) -> None:
        self._note(f"restart {keeps_stored}")

    def _note(self, what: str) -> None:
        self.told.append((what, bool(self.memory.stored)))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "whole", "last"),
    [
        (None, True, ("response.completed", True)),
        (Cut(at="terminal"), False, ("reset", True)),
        (Cut(at="end", close_code=1001), False, ("close 1001", True)),
        (Cut(at="events", events=5), False, ("reset", False)),
        (RestartAt(events=5), False, ("restart True", False)),
        (ErrorAt(refusal=BUSY, events=5, flat=True), False, ("rate_limit_exceeded True 5", False)),
    ],
)
async def test_a_turn_ends_where_its_fault_says(fault: Fault | None, whole: bool, last: tuple[str, bool]) -> None:
    memory = ServerMemory(OPENAI, counting)
    turn = memory.begin({"model": "m", "input": "Hi"}, None, transport="http")
    assert isinstance(turn, PlannedTurn)
    outlet = Recorder(memory)
    player = TurnPlayer(memory, turn, connection=None, restart=outlet.restart)
    assert await player.play(outlet, fault) is whole
    assert outlet.told[-1] == last


def test_an_error_is_nested_or_flat() -> None:
    nested = error_event(BUSY, flat=False)
    assert (nested["status"], nested["error"]["headers"]) == (429, {"retry-after": "0"})
    flat = {"code": "rate_limit_exceeded", "message": "Slow down.", "param": "model", "sequence_number": 4}
    assert error_event(BUSY, flat=True, number=4) == {"type": "error", **flat}
