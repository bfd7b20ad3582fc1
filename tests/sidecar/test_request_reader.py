"""Requests out of bytes, however the bytes were cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.heads import Line, RequestHead
from segue.http.origins import OriginPolicy
from segue.http.request_rules import RequestRefusal
from segue.sidecar.request_reader import ContinueAwaited, ParsedRequest, RequestReader, RequestSource

MAX_HEAD = 400
MAX_BODY = 1000
HOST = Line(b"Host", b"localhost")


def reader() -> RequestReader:
    return RequestReader(OriginPolicy([], []), max_head=MAX_HEAD, max_body=MAX_BODY)


def read_all(pieces: list[bytes]) -> list[ParsedRequest | RequestRefusal]:
    """Read a connection to its end or its first refusal, answering each request at once."""
    one = reader()
    found: list[ParsedRequest | RequestRefusal] = []
    for piece in pieces:
        one.receive(piece)
        while (event := one.next_event()) is not None:
            if isinstance(event, ContinueAwaited):
                continue
            found.append(event)
            if isinstance(event, RequestRefusal):
                return found
            one.next_cycle()
    return found


REQUESTS = [
    b"GET /a?b=%7E HTTP/1.1\r\nHost: localhost\r\nx-One: 1\r\nX-one: 2\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /e HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    (
        b"\r\n\r\nPUT /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n"
    ),
    b"QUERY /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
]
REFUSED = [
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\nHost: localhost\n\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * MAX_HEAD,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"z" * 1001,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\r\n",
    b"\x16\x03\x01\x02",
]


@given(
    st.lists(st.sampled_from(REQUESTS), max_size=4),
    st.sampled_from([b"", *REFUSED]),
    st.lists(st.integers(0, 1500), max_size=20),
)
def test_any_cuts_give_the_same_requests(requests: list[bytes], last: bytes, cuts: list[int]) -> None:
    data = b"".join(requests) + last
    at_once = read_all([data])
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert read_all([data[a:b] for a, b in itertools.pairwise(edges) if a < b]) == at_once
    assert read_all([data[at : at + 1] for at in range(len(data))]) == at_once
    assert len(at_once) == len(requests) + bool(last)
    assert [isinstance(found, RequestRefusal) for found in at_once] == [False] * len(requests) + [True] * bool(last)


@given(st.sampled_from(REQUESTS + REFUSED), st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3)), max_size=4))
def test_nothing_that_an_agent_sends_is_an_error_of_the_reader(data: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, change in changes:
        data = data[:at] + change + data[at + len(change) // 2 :]
    found = read_all([data])
    assert read_all([data[at : at + 1] for at in range(len(data))]) == found
    for one in found:
        if isinstance(one, ParsedRequest):
            assert one.head.target.startswith(b"/")
            assert b"\n" not in b"".join(name + value for name, value in one.head.lines)


def test_no_body_an_empty_body_and_a_body_are_three_things() -> None:
    bodies = [found.body for found in read_all(REQUESTS) if isinstance(found, ParsedRequest)]
    assert bodies == [None, b"hello", b"", b"hello!", b"hi"]


def test_a_head_is_kept_as_it_came() -> None:
    (found,) = read_all([REQUESTS[0]])
    lines = (Line(b"x-One", b"1"), Line(b"X-one", b"2"))
    assert isinstance(found, ParsedRequest)
    source = RequestSource(None, "localhost", (b"Host", b"x-One", b"X-one"))
    assert found == ParsedRequest("http", RequestHead(b"GET", b"/a?b=%7E", lines), None, None, source)


@pytest.mark.parametrize(
    ("data", "code"),
    list(
        zip(
            REFUSED,
            [
                "forbidden_host",
                "invalid_request",
                "request_head_too_large",
                "request_too_large",
                "request_too_large",
                "invalid_request",
                "unsupported_http_version",
                "invalid_request",
                "invalid_request",
            ],
            strict=True,
        )
    ),
)
def test_refusals_have_their_codes(data: bytes, code: str) -> None:
    (found,) = read_all([data])
    assert isinstance(found, RequestRefusal)
    assert found.code == code


def test_a_body_of_exactly_the_limit_passes() -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    plain = head + b"Content-Length: 1000\r\n\r\n" + b"z" * 1000
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"z" * 1000 + b"\r\n0\r\n\r\n"
    assert [found.body for found in read_all([plain, chunked]) if isinstance(found, ParsedRequest)] == [b"z" * 1000] * 2


def test_phases_and_what_is_held() -> None:
    one = reader()
    assert (one.next_event(), one.phase, one.held) == (None, "idle", 0)
    one.receive(b"POST / HT")
    assert (one.next_event(), one.phase) == (None, "head")
    one.receive(b"TP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n")
    assert (one.next_event(), one.phase) == (ContinueAwaited(), "body")
    assert one.next_event() is None
    one.receive(b"abc")
    assert (one.next_event(), one.phase, one.held) == (None, "body", 3)
    one.receive(b"defGET")
    found = one.next_event()
    assert isinstance(found, ParsedRequest)
    assert (found.body, one.phase, one.held) == (b"abcdef", "answer", 6)
    with pytest.raises(RuntimeError):
        one.next_event()
    one.next_cycle()
    assert (one.next_event(), one.phase, one.held) == (None, "head", 0)


def test_a_websocket_upgrade_keeps_its_key_for_the_handshake() -> None:
    data = (
        b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: a, b\r\nX: y\r\n\r\n"
    )
    one = reader()
    one.receive(data + b"\x81\x80abcd")
    found = one.next_event()
    lines = (Line(b"Sec-WebSocket-Protocol", b"a, b"), Line(b"X", b"y"))
    assert isinstance(found, ParsedRequest)
    head = RequestHead(b"GET", b"/v1/responses", lines)
    assert found == ParsedRequest("websocket", head, None, b"dGhlIHNhbXBsZSBub25jZQ==", found.source)
    assert found.source.host == "localhost"


@pytest.mark.parametrize(
    ("peer", "fields", "expected"),
    [
        ("127.0.0.1", b"Host: localhost:4748\r\n", True),
        ("192.0.2.1", b"Host: localhost:4748\r\n", False),
        (None, b"Host: localhost:4748\r\n", False),
        ("127.0.0.1", b"Host: ours.example\r\n", False),
        ("127.0.0.1", b"Host: localhost\r\nConnection: via\r\nVIA: 1.1 proxy\r\n", False),
    ],
)
def test_a_request_from_this_machine_is_told_from_one_through_a_proxy(
    peer: str | None, fields: bytes, *, expected: bool
) -> None:
    one = RequestReader(OriginPolicy(["ours.example"], []), max_head=MAX_HEAD, max_body=MAX_BODY, peer=peer)
    one.receive(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")
    found = one.next_event()
    assert isinstance(found, ParsedRequest)
    assert found.source.local is expected
