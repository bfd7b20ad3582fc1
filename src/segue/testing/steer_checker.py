"""Checks the events about steering of one WebSocket connection, and their order.

An accepted steer is committed by the `response.created` of the response that continues its target, or it is given back,
and never both. Numbers go on with those of the target. A client that a `SocketChecker` watches gets a violation raised
at the frame that breaks a rule. Not here: the shape of each event (`response_schemas`), and the turns themselves.
"""

from __future__ import annotations

from typing import Any

from segue.testing.response_schemas import ProtocolViolation

Json = dict[str, Any]


class SteerChecker:
    """The steers of one connection. `frames` are the events about steering, in the order in which they came."""

    def __init__(self) -> None:
        self.frames: list[Json] = []
        self._queued: dict[str, list[str]] = {}  # ids of accepted steers, by their target
        self._announced: set[str] = set()
        self._ids: set[str] = set()
        self._numbers: dict[str, int] = {}  # the next number of each target that has steers
        self._running: dict[str, bool] = {}  # whether a response that has begun still runs

    def created(self, response: Json) -> None:
        """Take note that a response has begun: it commits the steers of what it continues."""
        self._running[response["id"]] = True
        self._queued.pop(response.get("previous_response_id") or "", None)

    def ended(self, response: Json, number: int) -> None:
        """Take note that a response has ended with the event of this number."""
        ident, details = response["id"], response.get("incomplete_details") or {}
        self._running[ident] = False
        self._numbers[ident] = number + 1
        if details.get("reason") == "steered":
            self._expect(self._queued.get(ident), "incomplete_details.reason", "no steer of it was accepted")

    def feed(self, frame: Json) -> None:
        """Check an event about steering."""
        self.frames.append(frame)
        steer = frame["steer"]
        target, ident = steer["previous_response_id"], steer.get("id")
        match frame["type"]:
            case "response.steer.accepted":
                self._expect(self._running.get(target), "steer.previous_response_id", "the response does not run")
                self._expect(ident not in self._ids, "steer.id", "another steer has it")
                self._ids.add(ident)
                self._queued.setdefault(target, []).append(ident)
            case "response.steer.pending":
                self._expect(self._running.get(target) is False, "", "comes before the end of the response")
                self._expect(ident in self._queued.get(target, ()), "steer.id", "was not accepted, or is committed")
                self._expect(ident not in self._announced, "steer.id", "was announced before")
                self._expect(frame["required_input"], "required_input", "is empty")
                self._announced.add(ident)
            case _:
                if ident is not None:
                    self._expect(ident in self._queued.get(target, ()), "steer.id", "was not accepted, or is committed")
                    self._queued[target].remove(ident)
        if ident is not None and self._running.get(target) is False:
            expected = self._numbers[target]
            self._expect(frame["sequence_number"] == expected, "sequence_number", f"expected {expected}")
            self._numbers[target] += 1

    def finish(self) -> None:
        """Check that each steer was committed or given back, unless its client was told what it waits for."""
        left = [ident for idents in self._queued.values() for ident in idents if ident not in self._announced]
        if left:
            raise ProtocolViolation("socket", "steers", f"{left} were neither committed nor given back")

    def _expect(self, true: object, path: str, reason: str) -> None:
        if not true:
            raise ProtocolViolation(self.frames[-1]["type"] if self.frames else "response", path, reason)
