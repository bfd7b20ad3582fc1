"""Steering: user input for a response that runs (`response.steer`), and what becomes of it.

Theory. A steer that is accepted belongs to the server. It asks the running response to stop between two items of its
output; whether or not it can, another response continues it with the steer as its input: its *successor*. The
successor's `response.created` commits the steer. A response that waits for the outputs of its client's tools has no
automatic successor: the steers wait for the create that brings the outputs, and go before its input. What cannot be
committed is given back. Steers are on their connection only.

`STEERING` is the table of transitions of one lane; an input that a state has no row for changes nothing. A lane has the
steers of one response at a time. Pure. Not here: whether a response can be stopped (`turns.TurnStream.steer`), and how
frames are sent (`gateway.api.steers`).

The words are those of OpenAI's guide: https://developers.openai.com/api/docs/guides/steering
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from segue.protocol.codec import decode, encode
from segue.protocol.items import Input, Item, input_of, parse_input
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import Steer

SteerCode = Literal[
    "response_not_found",
    "invalid_input",
    "steering_not_supported",
    "too_many_pending_steers",
    "response_already_completed",
    "response_not_active",
    "successor_creation_failed",
]

#: How many steers may wait for one response.
MOST_STEERS = 16

MESSAGES: Mapping[SteerCode, str] = MappingProxyType(
    {
        "response_not_found": "No response with this id runs on this connection. Send the input in a response.create.",
        "invalid_input": "The input of a steer is a text, or a list of user messages with text, images and files.",
        "steering_not_supported": "This response cannot be steered. Send the input in the next response.create.",
        "too_many_pending_steers": f"{MOST_STEERS} steers wait for this response. Send the input when it has ended.",
        "response_already_completed": "The response has ended. Continue it with a response.create.",
        "response_not_active": "The response takes no more input. Send it in the next response.create.",
        "successor_creation_failed": "No response could be made with this input. Send it in a response.create.",
    }
)


class QueuedSteer(msgspec.Struct, frozen=True):
    """A steer that was accepted: its id, its input as it came, and the items that this is."""

    id: str
    steer: Steer
    items: tuple[Item, ...]


class SteeringState(Enum):
    """What the steers of a lane wait for."""

    NONE = "none"
    QUEUED = "queued"  # for their response to end
    WAITING = "waiting"  # for the create with the outputs that the response has asked for
    COMMITTING = "committing"  # for the successor's response.created


class SteeringInput(Enum):
    """What can happen to the steers of a lane."""

    ACCEPTED = "accepted"
    ENDED = "ended"  # the response can go on at once
    ASKED = "asked"  # the response waits for outputs of its client
    LOST = "lost"  # the response, or the successor, came to nothing; or the connection takes no more requests
    MATCHED = "matched"  # a create continues the response
    PASSED = "passed"  # a create in this lane continues something else
    CREATED = "created"  # the successor has begun


class SteeringAction(Enum):
    """What a transition asks of its caller."""

    CONTINUE = "continue"  # run the automatic successor
    ANNOUNCE = "announce"  # tell which outputs the steers wait for
    CARRY = "carry"  # put the steers before the input of the create
    RETURN = "return"  # give the input back


_STATE, _INPUT, _ACTION = SteeringState, SteeringInput, SteeringAction

STEERING: Mapping[tuple[SteeringState, SteeringInput], tuple[SteeringState, SteeringAction | None]] = MappingProxyType(
    {
        (_STATE.NONE, _INPUT.ACCEPTED): (_STATE.QUEUED, None),
        (_STATE.QUEUED, _INPUT.ACCEPTED): (_STATE.QUEUED, None),
        (_STATE.QUEUED, _INPUT.ENDED): (_STATE.COMMITTING, _ACTION.CONTINUE),
        (_STATE.QUEUED, _INPUT.ASKED): (_STATE.WAITING, _ACTION.ANNOUNCE),
        (_STATE.QUEUED, _INPUT.LOST): (_STATE.NONE, _ACTION.RETURN),
        (_STATE.WAITING, _INPUT.MATCHED): (_STATE.COMMITTING, _ACTION.CARRY),
        (_STATE.WAITING, _INPUT.PASSED): (_STATE.NONE, _ACTION.RETURN),
        (_STATE.COMMITTING, _INPUT.CREATED): (_STATE.NONE, None),
        (_STATE.COMMITTING, _INPUT.LOST): (_STATE.NONE, _ACTION.RETURN),
    }
)


class LaneSteering:
    """The steers of one lane."""

    def __init__(self) -> None:
        self.state = _STATE.NONE
        self.steers: list[QueuedSteer] = []

    @property
    def full(self) -> bool:
        """Whether no more steers may wait."""
        return len(self.steers) >= MOST_STEERS

    @property
    def target(self) -> str | None:
        """The response that they are for."""
        return self.steers[0].steer.previous_response_id if self.steers else None

    def accept(self, steer: QueuedSteer) -> None:
        """Queue a steer for the running response."""
        assert self.state in {_STATE.NONE, _STATE.QUEUED}, "a lane has steers of one response"
        self.advance(_INPUT.ACCEPTED)
        self.steers.append(steer)

    def advance(self, event: SteeringInput) -> SteeringAction | None:
        """Take what has happened; return what to do about it. What `RETURN` is about is then in `take`."""
        found = STEERING.get((self.state, event))
        if found is None:
            return None
        self.state, action = found
        return action

    def take(self) -> list[QueuedSteer]:
        """Take the steers out, in the order in which they came: they are committed, or given back."""
        taken, self.steers = self.steers, []
        return taken

    def items(self) -> tuple[Item, ...]:
        """Return the input of the successor, in the order in which the steers came."""
        return tuple(item for queued in self.steers for item in queued.items)


class _SteerPart(msgspec.Struct):
    type: Literal["input_text", "input_image", "input_file"]


class _SteerMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["user"]
    content: str | list[_SteerPart]
    type: Literal["message"] | None = None


_messages = msgspec.json.Decoder(_SteerMessage)


def parse_steer_input(steer: Steer, limits: RequestLimits) -> Input | Problem:
    """Read the input of a steer: a text, or at least one message of the user."""
    given = parse_input(steer.input, limits)
    if isinstance(given, Problem):
        return given
    if not given.items:
        return Problem("invalid_value", MESSAGES["invalid_input"], "input")
    for place, item in enumerate(given.items):
        message = decode(item, _messages, f"input[{place}]")
        if isinstance(message, Problem):
            return message
    return given


def prepend(items: Sequence[Item], given: Input) -> Input:
    """Return an input that begins with these items, which are sound."""
    before = input_of(items)
    shift = len(before.items)
    return msgspec.structs.replace(
        given,
        items=(*before.items, *given.items),
        references=tuple(one._replace(place=one.place + shift) for one in given.references),
        keys=(*before.keys, *(key._replace(place=key.place + shift) for key in given.keys)),
    )


class _OutputHead(msgspec.Struct):
    """What is read of an output item. A provider may write anything into fields that nobody has checked."""

    type: str
    id: str | None = None
    call_id: str | None = None
    name: Any = None
    execution: Any = None


_output_heads = msgspec.json.Decoder(_OutputHead)
#: Calls that a client answers, and the type of the answer.
_ANSWERS: Mapping[str, str] = MappingProxyType(
    {
        "function_call": "function_call_output",
        "custom_tool_call": "custom_tool_call_output",
        "computer_call": "computer_call_output",
        "shell_call": "shell_call_output",
        "apply_patch_call": "apply_patch_call_output",
        "tool_search_call": "tool_search_output",
    }
)
_ANSWERED = frozenset(_ANSWERS.values())


def required_input(output: Sequence[Item]) -> list[dict[str, Any]]:
    """Return a stub for each output and each approval that a response waits for, in the order of its items."""
    heads = [_output_heads.decode(item) for item in output]
    answered = {head.call_id for head in heads if head.type in _ANSWERED}
    stubs: list[dict[str, Any]] = []
    for head in heads:
        if head.type == "mcp_approval_request":
            stubs.append({"type": "mcp_approval_response", "approval_request_id": head.id})
        elif head.type in _ANSWERS and head.call_id not in answered and head.execution != "server":
            stub: dict[str, Any] = {"type": _ANSWERS[head.type], "call_id": head.call_id}
            if head.type == "function_call":
                stub["name"] = head.name
            if head.type == "tool_search_call":
                stub["execution"] = "client"
            stubs.append(stub)
    return stubs


def may_stop_after(output: Sequence[Item]) -> bool:
    """Tell whether a response may end between these items and the next one.

    Reasoning belongs to the item behind it; and what has called a tool may call another one beside it.
    """
    if not output:
        return False
    return _output_heads.decode(output[-1]).type != "reasoning" and not required_input(output)


# --- events ----------------------------------------------------------------------------------------------------------


class _SteerReference(msgspec.Struct, frozen=True):
    id: str
    previous_response_id: str


class _SteerAccepted(msgspec.Struct, frozen=True):
    sequence_number: int
    steer: _SteerReference
    type: str = "response.steer.accepted"


class _SteerPending(msgspec.Struct, frozen=True):
    required_input: list[dict[str, Any]]
    sequence_number: int
    steer: _SteerReference
    reason: str = "waiting_for_required_input"
    type: str = "response.steer.pending"


class _SteerError(msgspec.Struct, frozen=True):
    code: str
    message: str
    type: str = "invalid_request_error"


class _ReturnedSteer(msgspec.Struct, frozen=True):
    input: msgspec.Raw
    previous_response_id: str
    id: str | msgspec.UnsetType = msgspec.UNSET


class _SteerFailed(msgspec.Struct, frozen=True):
    error: _SteerError
    steer: _ReturnedSteer
    sequence_number: int = 0
    type: str = "response.steer.failed"


def steer_accepted(queued: QueuedSteer, number: int) -> bytes:
    """Write the answer to a steer that the server owns now."""
    return encode(_SteerAccepted(number, _SteerReference(queued.id, queued.steer.previous_response_id)))


def steer_pending(queued: QueuedSteer, required: list[dict[str, Any]], number: int) -> bytes:
    """Write that a steer waits for outputs of its client."""
    return encode(_SteerPending(required, number, _SteerReference(queued.id, queued.steer.previous_response_id)))


def steer_failed(
    steer: Steer, code: SteerCode, *, number: int = 0, ident: str | None = None, message: str | None = None
) -> bytes:
    """Write that a steer is given back, with its input as it came. One that was accepted has its id."""
    error = _SteerError(code, message or MESSAGES[code])
    returned = _ReturnedSteer(steer.input, steer.previous_response_id, msgspec.UNSET if ident is None else ident)
    return encode(_SteerFailed(error, returned, number))
