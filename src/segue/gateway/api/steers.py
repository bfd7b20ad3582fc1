"""Steers of one WebSocket connection: which are accepted, and what is told about them.

Each lane has a machine that says what becomes of its steers (`segue.protocol.steering`). Here it is fed with what
happens to the turns of the lane, and what it asks for is written. Not here: running turns (`websocket`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec

from segue.gateway.turns.executor import TurnRun
from segue.protocol.events import Event
from segue.protocol.items import Input
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import Create, Steer
from segue.protocol.steering import (
    LaneSteering,
    QueuedSteer,
    SteerCode,
    SteeringAction,
    SteeringInput,
    SteeringState,
    parse_steer_input,
    prepend,
    required_input,
    steer_accepted,
    steer_failed,
    steer_pending,
)

#: How many bytes the steers of one response may have.
MOST_STEER_BYTES = 1024 * 1024

_ID_BYTES = 16
_CONTINUABLE = frozenset({"completed", "incomplete"})


class SteerTarget(msgspec.Struct, frozen=True):
    """The response that a steer is for: its lane, and its run if that can be reached.

    It may also be `kept`, apart from its connection, or have `ended` as the latest of a lane.
    """

    lane: str
    run: TurnRun | None = None
    kept: bool = False
    ended: bool = False


class _SteeredLane:
    """The steers of a lane, the run that they are for, and the number of the next event about them."""

    __slots__ = ("automatic", "number", "run", "steering")

    def __init__(self, run: TurnRun) -> None:
        self.steering = LaneSteering()
        self.run = run
        self.number = 0
        self.automatic = False  # whether the successor was made here

    def take_number(self) -> int:
        self.number += 1
        return self.number - 1


class ConnectionSteers:
    """The steers of one connection. `send` writes an event in a lane; `entropy(n)` draws n bytes."""

    def __init__(
        self,
        send: Callable[[bytes, str], Awaitable[None]],
        *,
        entropy: Callable[[int], bytes],
        limits: RequestLimits,
    ) -> None:
        self._send = send
        self._entropy = entropy
        self._limits = limits
        self._lanes: dict[str, _SteeredLane] = {}

    async def submit(self, steer: Steer, target: SteerTarget) -> None:
        """Queue a steer for a response, or give it back."""
        run, given = target.run, self._read(steer)
        code = self._refuse(target, given, steer)
        number = run.steer() if code is None and run is not None else None
        if number is None or isinstance(given, Problem):
            detail = given.message if code == "invalid_input" and isinstance(given, Problem) else None
            number = (None if run is None else run.take_number()) or 0
            failed = steer_failed(steer, code or "response_not_active", number=number, message=detail)
            await self._send(failed, target.lane)
            return
        assert run is not None, "it has given a number"
        self._note_created(target.lane)  # it has, if the steer is for the successor: its client knows its id
        lane = self._lanes.setdefault(target.lane, _SteeredLane(run))
        queued = QueuedSteer(f"steer_{self._entropy(_ID_BYTES).hex()}", steer, given.items)
        lane.steering.accept(queued)
        await self._send(steer_accepted(queued, number), target.lane)

    async def carry(self, lane: str, create: Create) -> Create:
        """Return a create with the steers that wait for it before its input; give them back if it is another one."""
        steered = self._lanes.get(lane)
        if steered is None or steered.steering.state is not SteeringState.WAITING:
            return create
        matches = create.previous_response_id == steered.steering.target
        action = steered.steering.advance(SteeringInput.MATCHED if matches else SteeringInput.PASSED)
        if action is SteeringAction.CARRY:
            return msgspec.structs.replace(create, input=prepend(steered.steering.items(), create.input))
        await self._return(lane, steered, "response_not_active")
        return create

    def is_automatic(self, lane: str) -> bool:
        """Tell whether the turn that begins in a lane was made here, so that no client has asked for it."""
        steered = self._lanes.get(lane)
        return steered is not None and steered.automatic

    def committing(
        self, lane: str, batches: AsyncGenerator[Sequence[Event], None]
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Return the events of a turn. If it carries steers, they are committed once the first events were sent."""
        steered = self._lanes.get(lane)
        commits = steered is not None and steered.steering.state is SteeringState.COMMITTING
        return self._commit(lane, batches) if commits else batches

    async def _commit(
        self, lane: str, batches: AsyncGenerator[Sequence[Event], None]
    ) -> AsyncGenerator[Sequence[Event], None]:
        async with aclosing(batches):
            async for batch in batches:
                yield batch
                self._note_created(lane)

    def _note_created(self, lane: str) -> None:
        """Note that the successor has begun, if the steers of a lane wait for that: they are committed."""
        steered = self._lanes.get(lane)
        if steered is not None and steered.steering.state is SteeringState.COMMITTING:
            steered.steering.advance(SteeringInput.CREATED)
            del self._lanes[lane]

    async def ended(self, lane: str, *, accepting: bool) -> Create | None:
        """Take note that the turn of a lane is over; return the automatic successor, if there is to be one.

        There is none if the connection is not `accepting` turns any more.
        """
        steered = self._lanes.get(lane)
        if steered is None:
            return None
        finished = steered.run.finished
        required = [] if finished is None else required_input(finished.output)
        if steered.steering.state is SteeringState.QUEUED and finished is not None:
            steered.number = finished.terminal.sequence_number + 1
        match steered.steering.advance(_outcome_of(steered, accepting=accepting, asks=bool(required))):
            case SteeringAction.CONTINUE:
                steered.automatic = True
                return _successor(steered)
            case SteeringAction.ANNOUNCE:
                for queued in steered.steering.steers:
                    await self._send(steer_pending(queued, required, steered.take_number()), lane)
            case SteeringAction.RETURN:
                await self._return(lane, steered, "successor_creation_failed")
            case _:
                pass
        return None

    def _read(self, steer: Steer) -> Input | Problem:
        if len(steer.input) > MOST_STEER_BYTES:
            return Problem("invalid_value", f"A steer may have {MOST_STEER_BYTES} bytes.", "input")
        return parse_steer_input(steer, self._limits)

    def _refuse(self, target: SteerTarget, given: Input | Problem, steer: Steer) -> SteerCode | None:
        """Return why a steer cannot be queued; None if it can, as far as is known here."""
        if target.run is None:
            if target.kept:
                return "steering_not_supported"
            return "response_already_completed" if target.ended else "response_not_found"
        if not target.run.steerable:
            return "steering_not_supported"
        if isinstance(given, Problem):
            return "invalid_input"
        queued = self._lanes.get(target.lane)
        if queued is None:
            return None
        waiting = sum(len(one.steer.input) for one in queued.steering.steers) + len(steer.input)
        return "too_many_pending_steers" if queued.steering.full or waiting > MOST_STEER_BYTES else None

    async def _return(self, lane: str, steered: _SteeredLane, code: SteerCode) -> None:
        del self._lanes[lane]
        for queued in steered.steering.take():
            await self._send(steer_failed(queued.steer, code, number=steered.take_number(), ident=queued.id), lane)


def _outcome_of(steered: _SteeredLane, *, accepting: bool, asks: bool) -> SteeringInput:
    """Say what the end of a turn means for the steers of its lane."""
    finished = steered.run.finished
    continuable = finished is not None and finished.status in _CONTINUABLE and steered.run.remembered
    if steered.steering.state is SteeringState.COMMITTING or not continuable:
        return SteeringInput.LOST
    if asks:
        return SteeringInput.ASKED
    return SteeringInput.ENDED if accepting else SteeringInput.LOST


def _successor(steered: _SteeredLane) -> Create:
    """Return the create that goes on from a response with its own settings and the input of the steers."""
    items, create = steered.steering.items(), steered.run.create
    return msgspec.structs.replace(
        create,
        input=prepend(items, Input()),
        previous_response_id=steered.run.response_id,
        size_bytes=sum(map(len, items)),
    )
