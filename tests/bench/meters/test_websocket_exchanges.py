"""On a WebSocket an exchange is a message of the agent and all that comes before the next one."""

from __future__ import annotations

import pytest
from wsproto.connection import CLIENT, Connection
from wsproto.events import Message, Ping

from segue.bench.meters.observed_exchange import ObservedExchange
from segue.bench.meters.websocket_exchanges import SocketObserver


class Watched:
    """A WebSocket that is read along with: the agent's end of it, and the exchanges so far."""

    def __init__(self) -> None:
        self.ended: list[ObservedExchange] = []
        self.observer = SocketObserver("/v1/responses", self.ended.append)
        self._agent = Connection(CLIENT)

    def say(self, text: str, now: float, *, piece: int | None = None, whole: bool = True) -> int:
        """Send a message of the agent, in pieces of so many bytes; return its size on the wire."""
        data = self._agent.send(Message(text, message_finished=whole))
        size = len(data) if piece is None else piece
        for at in range(0, len(data), size):
            self.observer.see_up(data[at : at + size], now)
        return len(data)


def frame(text: bytes, kind: int = 0x81) -> bytes:
    """Return a short frame of the server."""
    return bytes([kind, len(text)]) + text


@pytest.mark.parametrize("piece", [None, 1, 7])
def test_each_message_begins_an_exchange(piece: int | None) -> None:
    watched = Watched()
    sizes = []
    for turn in (1.0, 2.0):
        sizes.append(watched.say("x" * 200, turn, piece=piece))
        watched.observer.see_down(frame(b"first"), turn + 0.25)
        watched.observer.see_down(frame(b"last") + frame(b"", 0x89), turn + 0.5)
    assert [one.begun_at for one in watched.ended] == [1.0]
    watched.observer.see_end(9.0)
    assert watched.ended == [
        ObservedExchange(
            begun_at=turn,
            method="WS",
            path="/v1/responses",
            status=101,
            up_wire_bytes=size,
            up_payload_bytes=200,
            down_wire_bytes=15,
            down_payload_bytes=9,
            first_at=turn + 0.25,
            ended_at=turn + 0.5,
            whole=True,
        )
        for turn, size in zip((1.0, 2.0), sizes, strict=True)
    ]


def test_a_message_of_several_frames_is_one() -> None:
    watched = Watched()
    watched.say("be", 1.0, whole=False)
    watched.say("gun", 2.0)
    watched.observer.see_end(3.0)
    (one,) = watched.ended
    assert (one.up_payload_bytes, one.ended_at, one.whole) == (5, 3.0, False)


def test_pings_and_a_silent_end_are_no_exchange() -> None:
    watched = Watched()
    watched.observer.see_up(Connection(CLIENT).send(Ping()), 1.0)
    watched.observer.see_down(frame(b"", 0x8A), 2.0)
    watched.observer.see_end(3.0)
    assert watched.ended == []


def test_what_cannot_be_read_is_counted_as_one_exchange() -> None:
    watched = Watched()
    compressed = b"\xc1\x85\x00\x00\x00\x00hello"
    for _ in range(2):
        watched.observer.see_up(compressed, 1.0)
        watched.observer.see_down(b"\xc1\x03abc", 2.0)
    watched.observer.see_end(3.0)
    (one,) = watched.ended
    assert (one.up_wire_bytes, one.down_wire_bytes) == (2 * len(compressed), 10)


@pytest.mark.parametrize("last", ["response.completed", "response.incomplete", "response.failed", "error"])
def test_the_last_event_of_a_response_ends_its_exchange(last: str) -> None:
    watched = Watched()
    terminal = frame(f'{{"type":"{last}","text":"\u00fc"}}'.encode())
    for turn in (1.0, 3.0):
        watched.say('{"type":"response.create"}', turn)
        watched.observer.see_down(frame(b'{"type":"response.created"}'), turn + 0.25)
        assert len(watched.ended) == turn // 2
        watched.observer.see_down(terminal[:9], turn + 0.5)
        watched.observer.see_down(terminal[9:], turn + 1.0)
    assert [(one.begun_at, one.ended_at, one.whole) for one in watched.ended] == [(1.0, 2.0, True), (3.0, 4.0, True)]
    sizes = {(one.down_payload_bytes, one.down_wire_bytes) for one in watched.ended}
    assert sizes == {(27 + len(terminal) - 2, 29 + len(terminal))}
