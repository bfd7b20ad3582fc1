"""The observer tells exchanges apart, counts them exactly, and keeps nothing of their content."""

from __future__ import annotations

import msgspec
import pytest

from segue.bench.meters.http_exchanges import HttpObserver
from segue.bench.meters.observed_exchange import ObservedExchange

POST = b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: h\r\nX-Api-Key: secret\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
STREAM = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\ndata:\r\n",
    b"2\r\n\n\n\r\n",
    b"0\r\n\r\n",
)
UPGRADE = b"GET /v1/responses HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
MASKED = b"\x81\x85\x00\x00\x00\x00hello"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class Watched:
    """A connection that is read along with, and the exchanges that have ended on it."""

    def __init__(self) -> None:
        self.ended: list[ObservedExchange] = []
        self.observer = HttpObserver(self.ended.append)

    @property
    def only(self) -> ObservedExchange:
        (one,) = self.ended
        return one


def test_a_streamed_exchange() -> None:
    watched = Watched()
    for at in range(0, len(POST), 11):
        watched.observer.see_up(POST[at : at + 11], 1.0 + at / 1000)
    for number, piece in enumerate(STREAM):
        assert watched.ended == []
        watched.observer.see_down(piece, 2.0 + number)
    assert watched.only == ObservedExchange(
        begun_at=1.0,
        method="POST",
        path="/v1/messages",
        status=200,
        up_wire_bytes=len(POST),
        up_payload_bytes=5,
        down_wire_bytes=sum(map(len, STREAM)),
        down_payload_bytes=7,
        first_at=3.0,
        ended_at=5.0,
        whole=True,
    )
    assert b"secret" not in msgspec.json.encode(watched.only)


def test_exchanges_follow_each_other_on_one_connection() -> None:
    watched = Watched()
    for number, request in enumerate((POST, GET, POST)):
        watched.observer.see_up(request, number)
        watched.observer.see_down(WHOLE, number + 0.5)
    watched.observer.see_end(9.0)
    assert [(one.method, one.path, one.begun_at, one.ended_at, one.whole) for one in watched.ended] == [
        ("POST", "/v1/messages", 0, 0.5, True),
        ("GET", "/v1/models", 1, 1.5, True),
        ("POST", "/v1/messages", 2, 2.5, True),
    ]


def test_a_request_that_does_not_wait_belongs_to_the_next_exchange() -> None:
    watched = Watched()
    watched.observer.see_up(GET + POST, 1.0)
    watched.observer.see_down(WHOLE, 2.0)
    watched.observer.see_down(WHOLE, 3.0)
    assert [(one.path, one.up_wire_bytes) for one in watched.ended] == [
        ("/v1/models", len(GET)),
        ("/v1/messages", len(POST)),
    ]


def test_a_head_has_no_body_and_a_hundred_is_no_answer() -> None:
    watched = Watched()
    watched.observer.see_up(GET.replace(b"GET", b"HEAD"), 1.0)
    watched.observer.see_down(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n", 2.0)
    assert (watched.only.status, watched.only.down_payload_bytes, watched.only.whole) == (404, 0, True)


def test_after_an_upgrade_each_message_of_the_agent_is_an_exchange() -> None:
    watched = Watched()
    watched.observer.see_up(UPGRADE, 1.0)
    watched.observer.see_down(UPGRADED + b"\x81\x02hi", 2.0)
    assert (watched.only.status, watched.only.whole, watched.only.down_wire_bytes) == (101, True, len(UPGRADED))
    watched.observer.see_up(MASKED, 3.0)
    watched.observer.see_down(b"\x81\x03yes", 4.0)
    watched.observer.see_end(5.0)
    _, message = watched.ended
    assert (message.method, message.path, message.up_payload_bytes) == ("WS", "/v1/responses", 5)
    assert (message.down_payload_bytes, message.ended_at, message.whole) == (5, 4.0, True)


@pytest.mark.parametrize(
    ("down", "status", "whole"),
    [
        (b"", None, False),
        (b"".join(STREAM[:2]), 200, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nyes", 200, True),
    ],
)
def test_a_connection_that_ends_ends_its_exchange(down: bytes, status: int | None, whole: bool) -> None:
    watched = Watched()
    watched.observer.see_up(GET, 1.0)
    if down:
        watched.observer.see_down(down, 2.0)
    watched.observer.see_end(3.0)
    assert (watched.only.status, watched.only.ended_at, watched.only.whole) == (status, 3.0, whole)
    watched.observer.see_end(4.0)
    assert len(watched.ended) == 1


@pytest.mark.parametrize(("up", "down"), [(b"\x16\x03\x01 TLS\r\n\r\n", b"reply"), (GET, b"no HTTP\r\n\r\n")])
def test_what_is_no_http_is_counted_all_the_same(up: bytes, down: bytes) -> None:
    watched = Watched()
    watched.observer.see_up(up, 1.0)
    watched.observer.see_down(down, 2.0)
    watched.observer.see_up(b"more", 3.0)
    watched.observer.see_end(4.0)
    assert (watched.only.status, watched.only.whole) == (None, False)
    assert (watched.only.up_wire_bytes, watched.only.down_wire_bytes) == (len(up) + 4, len(down))
