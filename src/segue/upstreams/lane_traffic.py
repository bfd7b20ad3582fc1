"""Whose the messages are on a WebSocket whose server offers lanes, and in which lanes nothing runs. Pure.

Theory. A lane is at rest until a turn is asked for in it; with its terminal event, or an error, it is at rest again.
Servers tag every event with its lane, so that a message says whose it is. A turn may be given up while it runs: its
events still come, and nobody reads them. All lanes here have names, so that an error without one is about the whole
connection, or about a create that the server could not attribute. If one turn alone has no answer yet, it is that
turn's. If several have none, nobody knows whose it is: the outcome of each of them is unknown. A server that names a
lane that is not there, or answers in one where nothing was asked, has lost count, and what else it says cannot be
believed. Not here: sockets and queues (`provider_socket`), and which turn gets a lane (`socket_lanes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.lanes import tag

#: So many lanes of one socket are used at most, whatever its server offers. OpenAI runs 16 turns at once.
MOST_LANES = 32
#: What the lanes are called. The same few names serve as long as a socket lives: servers count different ones.
LANE_NAMES = tuple(str(number) for number in range(MOST_LANES))
_NUMBERS: Mapping[str, int] = MappingProxyType({name: number for number, name in enumerate(LANE_NAMES)})

_OF_A_RESPONSE = "response."
_ERRORS = frozenset({"error", "response.error"})
_TERMINAL = _ERRORS | {"response.completed", "response.failed", "response.incomplete"}
_NULL = msgspec.Raw(b"null")


class _LanedHead(msgspec.Struct):
    type: str | None = None
    stream_id: str | None = None
    error: msgspec.Raw = _NULL


_heads = msgspec.json.Decoder(_LanedHead)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: How an event ends whose server puts the lane last, as gateways of this project do.
_TAGS = tuple(tag(name) for name in LANE_NAMES)

#: `event`: for whoever reads the turn of the lane; `unread`: of a turn that was given up; `stray`: of no turn, and
#: harmless; `connection`: an error of the whole connection, after which the outcomes of turns are unknown;
#: `violation`: the server has broken the rules.
What = Literal["event", "unread", "stray", "connection", "violation"]


class Received(NamedTuple):
    """What a message is; `lanes` are those that it concerns.

    `at_rest`: nothing runs in the lane after it; `failed`: it is an error. `retires`: the server may close the
    connection, so that no turn should begin on it.
    """

    what: What
    lanes: tuple[int, ...] = ()
    at_rest: bool = False
    failed: bool = False
    retires: bool = False


_STRAY, _VIOLATION = Received("stray"), Received("violation")


def without_lane(event: bytes, lane: int) -> bytes | None:
    """Return an event as it would have come without its lane, which is nothing to the client of the turn.

    Return None if it cannot be read as an object.
    """
    if event.endswith(_TAGS[lane]):
        return event[: -len(_TAGS[lane])] + b"}"
    try:
        members = _objects.decode(event)
        members.pop("stream_id", None)
        return encode(members)
    except UNREADABLE:
        return None


class LaneTraffic:
    """The lanes of one socket, by their numbers."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._running: dict[int, bool] = {}  # whether something has come of the turn that was asked for
        self._unread: set[int] = set()

    def is_at_rest(self, lane: int) -> bool:
        """Tell whether nothing runs in a lane."""
        return lane not in self._running

    def ask(self, lane: int) -> None:
        """Note that a turn is asked for in a lane."""
        assert lane not in self._running, "one turn at a time"
        self._running[lane] = False

    def give_up(self, lane: int) -> None:
        """Note that nobody reads the turn of a lane any more; it still runs."""
        if lane in self._running:
            self._unread.add(lane)

    def is_alone_unanswered(self, lane: int) -> bool:
        """Tell whether of all turns that were asked for, only that of this lane has no answer yet."""
        return self._unanswered() == [lane]

    def receive(self, data: bytes) -> Received:
        """Take a message, and say what it is."""
        try:
            head = _heads.decode(data)
        except UNREADABLE:
            return _VIOLATION
        kind = head.type
        failed = kind in _ERRORS or (kind is None and head.error != _NULL)
        of_a_turn = failed or (kind is not None and kind.startswith(_OF_A_RESPONSE))
        if head.stream_id is None:
            return self._receive_error() if failed else _VIOLATION if of_a_turn or kind is None else _STRAY
        lane = _NUMBERS.get(head.stream_id)
        if lane is None or lane >= self._lanes or kind is None:
            return _VIOLATION
        if lane not in self._running:
            return _VIOLATION if of_a_turn else _STRAY
        if not of_a_turn:
            return Received(self._reader_of(lane), (lane,))
        return self._pass_on(lane, ends=kind in _TERMINAL, failed=failed)

    def _pass_on(self, lane: int, *, ends: bool, failed: bool, retires: bool = False) -> Received:
        what = self._reader_of(lane)
        if ends:
            del self._running[lane]
            self._unread.discard(lane)
        else:
            self._running[lane] = True
        return Received(what, (lane,), at_rest=ends, failed=failed, retires=retires)

    def _receive_error(self) -> Received:
        """Take an error that names no lane."""
        unanswered = self._unanswered()
        if len(unanswered) == 1:
            return self._pass_on(unanswered[0], ends=True, failed=True, retires=True)
        read = tuple(lane for lane in unanswered if lane not in self._unread)
        self._unread.update(read)
        return Received("connection", read, retires=True)

    def _reader_of(self, lane: int) -> Literal["event", "unread"]:
        return "unread" if lane in self._unread else "event"

    def _unanswered(self) -> list[int]:
        return [lane for lane, answered in self._running.items() if not answered]
