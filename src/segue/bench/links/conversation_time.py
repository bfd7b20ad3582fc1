"""How long a conversation takes on a link, computed: the timing model of the emulated link, in time that nobody waits.

    computed = compute_task(turns, profile, setup_rtts=2.0, tokens_s=65)
    computed.task_s, computed.turns[0].ttft_s

The client sends a request. When all of it has arrived, the model writes one token after the other. The next request
leaves when the last byte of the answer has come. So windows, idle times, rates and losses are those of the emulation
(`segue.testing.pacing`). The time of programs and of tools is not in it, and the bytes of an answer are spread evenly
over its tokens. On a link that loses nothing, tokens that fit into one segment travel together; the first and the last
are always on their own, and segments in between matter only where the link is slower than the model.
Not here: the closed formula for one transfer (`transfer_time`), and measuring the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from segue.testing.pacing import SEGMENT_BYTES, LinkProfile, Pacer

_CONNECTION = 1


class TurnLoad(msgspec.Struct, frozen=True):
    """What a turn carries each way, and how many tokens the model writes in it."""

    up_bytes: int
    down_bytes: int
    tokens: int


class ComputedTurn(msgspec.Struct, frozen=True):
    """When a turn began, and how long it took until its first piece came, and its last. The first has the set-up."""

    at_s: float
    ttft_s: float
    time_s: float


class ComputedTask(msgspec.Struct, frozen=True):
    """All turns."""

    turns: tuple[ComputedTurn, ...]

    @property
    def task_s(self) -> float:
        """From the first byte of the set-up to the last of the last answer."""
        last = self.turns[-1]
        return last.at_s + last.time_s


def compute_task(
    turns: Sequence[TurnLoad], profile: LinkProfile, *, setup_rtts: float, tokens_s: float | None
) -> ComputedTask:
    """Compute a task on one connection, which takes `setup_rtts` round trips to set up.

    `tokens_s` None: the model writes at once. A link with losses has one random series per `profile.seed`.
    """
    linked = replace(profile, setup_rtts=setup_rtts)
    up, down = _Way(linked, linked.up_bytes_s, "up"), _Way(linked, linked.down_bytes_s, "down")
    together = 1 if linked.loss else SEGMENT_BYTES
    now, computed = 0.0, list[ComputedTurn]()
    for turn in turns:
        asked_at = up.carry([(now, turn.up_bytes)]).last_at
        answer = down.carry(pieces_of(turn, asked_at, tokens_s=tokens_s, together=together))
        computed.append(ComputedTurn(now, answer.first_at - now, answer.last_at - now))
        now = answer.last_at
    return ComputedTask(tuple(computed))


def pieces_of(turn: TurnLoad, begun_at: float, *, tokens_s: float | None, together: int) -> Sequence[tuple[float, int]]:
    """Return when the model sends how many bytes: tokens up to `together` bytes are one piece."""
    if tokens_s is None or turn.tokens < 1:
        return [(begun_at, turn.down_bytes)]
    each = max(1, together * turn.tokens // max(turn.down_bytes, 1))
    ends = [*range(1, turn.tokens - 1, each), *range(max(1, turn.tokens - 1), turn.tokens + 1)]
    sent, pieces = 0, list[tuple[float, int]]()
    for number in ends:
        written = turn.down_bytes * number // turn.tokens
        if written > sent:
            pieces.append((begun_at + number / tokens_s, written - sent))
        sent = written
    return pieces


class _Delivery(msgspec.Struct, frozen=True):
    first_at: float
    last_at: float


class _Way:
    """One direction of the connection."""

    def __init__(self, profile: LinkProfile, rate_bytes_s: float | None, name: str) -> None:
        self._pacer = Pacer(profile, rate_bytes_s, name, 0.0)
        self._pacer.open(_CONNECTION, 0.0)
        self._arrived: list[tuple[float, int]] = []

    def carry(self, pieces: Sequence[tuple[float, int]]) -> _Delivery:
        """Send pieces, each at its time; return when the whole of the first had arrived, and when everything had."""
        self._arrived = []
        for at, size in pieces:
            self._pass(until=at)
            self._pacer.send(_CONNECTION, size, at)
        self._pass(until=None)
        first, whole = pieces[0][1], sum(size for _, size in pieces)
        return _Delivery(self._when(first), self._when(whole))

    def _pass(self, *, until: float | None) -> None:
        """Let time pass until then, or until everything has arrived and was acknowledged."""
        while (next_at := self._pacer.next_at()) is not None and (until is None or next_at <= until):
            arrivals = self._pacer.arrived(next_at)
            self._arrived += [(next_at, arrival.size) for arrival in arrivals if arrival.what == "bytes"]

    def _when(self, wanted: int) -> float:
        """Return when so many bytes had arrived."""
        for at, size in self._arrived:
            wanted -= size
            if wanted <= 0:
                return at
        raise AssertionError("everything that is sent arrives")
