"""The rules of a request head, on bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.error_replies import FailureCode
from segue.http.heads import Line, RequestHead
from segue.http.origins import OriginPolicy
from segue.http.request_rules import Framing, RequestRefusal, check_caller, check_head, head_end, kind_of

NONE = Framing(None, chunked=False)


def head(*lines: bytes, first: bytes = b"POST /v1/messages HTTP/1.1", host: bytes = b"Host: localhost:4748") -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


def framing_of(data: bytes) -> Framing | None:
    found = check_head(data)
    return None if isinstance(found, RequestRefusal) else found.framing


def code(found: object) -> FailureCode | None:
    return found.code if isinstance(found, RequestRefusal) else None


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([], NONE),
        ([b"Content-Length: 0"], Framing(0, chunked=False)),
        ([b"content-LENGTH:  17 "], Framing(17, chunked=False)),
        ([b"Transfer-Encoding: Chunked"], Framing(None, chunked=True)),
        ([b"X-Empty:", b"X-Obs: \xff\t\x80", b"!#$%&'*+-.^_`|~: odd but a token"], NONE),
    ],
)
def test_good_heads_pass(lines: list[bytes], framing: Framing) -> None:
    assert framing_of(head(*lines)) == framing


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 3"],
        [b"Content-Length: 3", b"Content-Length: 3"],
        [b"Content-Length: 3", b"CONTENT-length: 4"],
        [b"Content-Length: 3, 3"],
        [b"Content-Length: +3"],
        [b"Content-Length: 0x3"],
        [b"Content-Length: -1"],
        [b"Content-Length:"],
        [b"Content-Length: 1_0"],
        [b"Content-Length: " + b"9" * 30],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"X-A: 1", b" folded"],
        [b"X-A: 1", b"\tfolded"],
        [b" X-A: first is folded"],
        [b"X-A : space before the colon"],
        [b"X-A"],
        [b": no name"],
        [b"X A: 1"],
        [b"X-\xe9: 1"],
        [b"X-A: \x01"],
        [b"X-A: \x7f"],
        [b"X-A: \x0b"],
        [b"Host: localhost"],
        [b"host: localhost:4748"],
    ],
)
def test_ambiguous_lines_are_refused(lines: list[bytes]) -> None:
    assert code(check_head(head(*lines))) == "invalid_request"


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b""])
def test_other_transfer_encodings_are_not_implemented(coding: bytes) -> None:
    assert code(check_head(head(b"Transfer-Encoding: " + coding))) == "unsupported_transfer_encoding"


@pytest.mark.parametrize(
    "first",
    [
        b"GET http://example.org/ HTTP/1.1",
        b"CONNECT example.org:443 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /a b HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET /\t HTTP/1.1",
        b"GET / http/1.1",
        b"GET /",
        b"G(T / HTTP/1.1",
        b"GET / HTTP/11.1",
        b"",
    ],
)
def test_other_request_lines_are_refused(first: bytes) -> None:
    assert code(check_head(head(first=first))) == "invalid_request"


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"3.0"])
def test_other_versions_are_refused_as_such(version: bytes) -> None:
    assert code(check_head(head(first=b"GET / HTTP/" + version))) == "unsupported_http_version"
    assert code(check_head(b"PRI * HTTP/2.0\r\n\r\n")) == "unsupported_http_version"


def test_a_host_is_needed_and_old_clients_send_no_chunks() -> None:
    assert code(check_head(head(host=b""))) == "invalid_request"
    assert framing_of(head(first=b"GET / HTTP/1.0")) == NONE
    assert code(check_head(head(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0"))) == "invalid_request"


@pytest.mark.parametrize("odd", [b"\n", b"\r", b"\x00", b"\n\n", b"\r\r\n"])
def test_bare_ends_of_lines_are_refused_before_the_head_is_whole(odd: bytes) -> None:
    assert code(head_end(b"GET / HTTP/1.1\r\nX: a" + odd + b"b", 1000)) == "invalid_request"
    assert code(head_end(b"GET / HTTP/1.1" + odd + b"Host: localhost\r\n\r\n", 1000)) == "invalid_request"
    whole = b"GET / HTTP/1.1\r\n\r\n"
    assert head_end(whole + odd, 1000) == len(whole)


def test_what_is_not_http_is_refused_at_its_first_byte() -> None:
    assert code(head_end(b"\x16\x03\x01", 1000)) == "invalid_request"


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"A", b" ", b"\x00", b"GET /", b"\r\n\r\n"]), max_size=12))
def test_where_a_head_ends_does_not_depend_on_how_it_arrives(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    limit = 12
    at_once = head_end(data, limit)
    start = 0
    found: int | RequestRefusal | None = None
    for end in range(len(data) + 1):
        found = head_end(data[:end], limit, start=start)
        if found is not None:
            break
        start = end
    assert found == at_once


def test_a_head_has_a_limit() -> None:
    data = head(b"X: " + b"y" * 100)
    assert head_end(data, len(data)) == len(data)
    assert code(head_end(data, len(data) - 1)) == "request_head_too_large"
    assert head_end(data[:50], 51) is None


def caller(*lines: tuple[bytes, bytes], admission: OriginPolicy | None = None) -> FailureCode | None:
    allowed = OriginPolicy(["box.example"], ["https://ours.example"]) if admission is None else admission
    return code(check_caller([Line(*line) for line in lines], allowed))


@pytest.mark.parametrize("host", [b"localhost", b"127.0.0.1:4748", b"[::1]:4748", b"a.localhost:1", b"BOX.example."])
def test_hosts_of_ours_pass(host: bytes) -> None:
    assert caller((b"host", host)) is None


@pytest.mark.parametrize("host", [b"evil.example", b"", b"localhost.evil.example", b"127.0.0.1@evil.example", b"\xff"])
def test_other_hosts_are_forbidden(host: bytes) -> None:
    assert caller((b"Host", host)) == "forbidden_host"
    assert caller((b"Host", host), admission=OriginPolicy(["*"], [])) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(b"Origin", b"http://localhost:4748")], None),
        ([(b"Origin", b"https://ours.example")], None),
        ([(b"Origin", b"http://localhost:4749")], "forbidden_origin"),
        ([(b"Origin", b"https://evil.example")], "forbidden_origin"),
        ([(b"Origin", b"null")], "forbidden_origin"),
        ([(b"Origin", b"http://localhost:4748"), (b"origin", b"https://evil.example")], "forbidden_origin"),
        ([(b"Sec-Fetch-Site", b"cross-site")], "forbidden_origin"),
        ([(b"Sec-Fetch-Site", b"Same-Site")], "forbidden_origin"),
        ([(b"Sec-Fetch-Site", b"same-origin")], None),
        ([(b"Sec-Fetch-Site", b"none")], None),
    ],
)
def test_pages_of_others_are_forbidden(lines: list[tuple[bytes, bytes]], expected: FailureCode | None) -> None:
    assert caller((b"Host", b"localhost:4748"), *lines) == expected


UPGRADE = (
    (b"Upgrade", b"WebSocket"),
    (b"Connection", b"keep-alive, Upgrade"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)


def kind(
    *lines: tuple[bytes, bytes], method: bytes = b"GET", framing: Framing = NONE, version: bytes = b"1.1"
) -> object:
    request = RequestHead(method, b"/", tuple(Line(*line) for line in lines))
    found = kind_of(request, framing, version=version)
    return found.code if isinstance(found, RequestRefusal) else found


def test_a_websocket_upgrade_is_told_from_other_requests() -> None:
    assert kind(*UPGRADE) == "websocket"
    assert kind(*UPGRADE, version=b"1.0") == "http"
    assert kind(*UPGRADE[:1], *UPGRADE[2:]) == "http"
    assert kind((b"Upgrade", b"h2c"), (b"Connection", b"Upgrade, HTTP2-Settings")) == "http"
    assert kind() == "http"


def test_a_wrong_websocket_upgrade_is_refused() -> None:
    assert kind(*UPGRADE, method=b"POST") == "invalid_request"
    assert kind(*UPGRADE, framing=Framing(3, chunked=False)) == "invalid_request"
    assert kind(*UPGRADE, framing=Framing(None, chunked=True)) == "invalid_request"
    assert kind(*UPGRADE[:3]) == "invalid_request"
    assert kind(*UPGRADE[:3], (b"Sec-WebSocket-Key", b"short")) == "invalid_request"
    assert kind(*UPGRADE[:3], (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZQ==")) == "invalid_request"
    assert kind(*UPGRADE, UPGRADE[3]) == "invalid_request"
    assert kind(*UPGRADE[:2], (b"Sec-WebSocket-Version", b"8"), UPGRADE[3]) == "invalid_request"


def test_a_refused_caller_learns_which_setting_allows_it() -> None:
    policy = OriginPolicy((), ())
    host = check_caller([Line(b"Host", b"host.docker.internal:4748")], policy)
    page = check_caller([Line(b"Host", b"localhost"), Line(b"Origin", b"vscode-file://vscode-app")], policy)
    assert host is not None
    assert page is not None
    assert "'host.docker.internal:4748' is not served here. Add its name to [sidecar] hosts" in host.message
    assert "[sidecar] origins" in page.message
