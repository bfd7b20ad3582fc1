"""The handshake of a WebSocket: what asks for one, and which answer accepts it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from segue.http.heads import Line
from segue.http.websocket import accept_value, binary_frame, handshake_lines, is_accepted, says_no_websocket

#: The example of RFC 6455, 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ACCEPTED = (
    Line(b"Upgrade", b"websocket"),
    Line(b"Connection", b"Upgrade"),
    Line(b"Sec-WebSocket-Accept", ACCEPT),
)


def test_the_accept_value_is_that_of_the_rfcs_example() -> None:
    assert accept_value(KEY) == ACCEPT


def test_the_lines_that_ask_offer_version_13_and_no_extension() -> None:
    assert handshake_lines(KEY) == (
        Line(b"Upgrade", b"websocket"),
        Line(b"Connection", b"Upgrade"),
        Line(b"Sec-WebSocket-Key", KEY),
        Line(b"Sec-WebSocket-Version", b"13"),
    )


@pytest.mark.parametrize(
    "lines",
    [
        ACCEPTED,
        tuple(Line(line.name.lower(), line.value) for line in reversed(ACCEPTED)),
        (Line(b"Upgrade", b"WebSocket"), Line(b"Connection", b"keep-alive, upgrade"), ACCEPTED[2]),
        (*ACCEPTED, Line(b"Sec-WebSocket-Protocol", b"chat"), Line(b"Connection", b"x")),
    ],
)
def test_an_answer_accepts_whatever_the_case_and_order_of_its_lines(lines: tuple[Line, ...]) -> None:
    assert is_accepted(KEY, iter(lines))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ACCEPTED[1:],
        (ACCEPTED[0], ACCEPTED[2]),
        ACCEPTED[:2],
        (*ACCEPTED[:2], Line(b"Sec-WebSocket-Accept", ACCEPT.lower())),
        (*ACCEPTED, Line(b"Sec-WebSocket-Accept", ACCEPT)),
        (*ACCEPTED, Line(b"Upgrade", b"h2c")),
        (Line(b"Upgrade", b"websocket, h2c"), *ACCEPTED[1:]),
        (*ACCEPTED, Line(b"Sec-WebSocket-Extensions", b"permessage-deflate")),
    ],
)
def test_an_answer_that_lacks_a_line_or_says_something_else_does_not_accept(lines: tuple[Line, ...]) -> None:
    assert not is_accepted(KEY, lines)


def test_the_answer_to_another_key_does_not_accept() -> None:
    assert not is_accepted(b"AAAAAAAAAAAAAAAAAAAAAA==", ACCEPTED)


@given(st.sampled_from([0, 1, 3, 125, 126, 1000, 65_535, 65_536]), st.none() | st.binary(min_size=4, max_size=4))
def test_a_binary_message_is_one_frame(size: int, mask: bytes | None) -> None:
    payload = bytes(number % 251 for number in range(size))
    reader = Connection(ConnectionType.CLIENT if mask is None else ConnectionType.SERVER)
    reader.receive_data(binary_frame(payload, mask))
    [message] = reader.events()
    assert isinstance(message, BytesMessage)
    assert (bytes(message.data), message.message_finished) == (payload, True)


@pytest.mark.parametrize(
    ("status", "page", "says"),
    [
        (426, False, True),
        (404, False, True),
        (200, False, True),
        (301, False, True),
        (403, True, True),
        (403, False, False),
        (503, True, False),
        (503, False, False),
        (501, False, True),
    ],
)
def test_which_answers_to_an_upgrade_say_that_there_are_no_websockets(status: int, *, page: bool, says: bool) -> None:
    assert says_no_websocket(status, page=page) is says
