"""Failures: what is said when a target cannot be reached, hangs, or answers nonsense."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

import httpcore
import pytest
import trustme

from segue.egress.client import Egress
from segue.egress.errors import EgressError, egress_error
from segue.egress.limits import EgressLimits
from segue.egress.network import client_tls
from segue.egress.reply import StreamedReply
from segue.http.routes import SELF, Resolved, parse_target
from tests.egress.asking import Early, Greeting, error_of, fetch, request, to
from tests.egress.provider import CLOSE, HANG, RESET, Connection, Provider, Step, answer, chunk, chunked, cut, head
from tests.loop_clock import LoopClock


async def test_a_port_where_nobody_listens_is_said(egress: Egress) -> None:
    """With nothing sent."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        error = await error_of(egress, Resolved(target=parse_target(f"http://127.0.0.1:{port}"), path=b"/?k=secret"))
    assert (error.code, error.sent) == ("upstream_unreachable", False)
    assert error.message == f"127.0.0.1:{port} cannot be reached: it refuses connections; is it running, at this port?"


async def test_a_name_that_does_not_exist_is_said(egress: Egress) -> None:
    """The top-level domain is reserved for this (RFC 6761, 6.4)."""
    error = await error_of(egress, Resolved(target=parse_target("http://nowhere.invalid"), path=b"/"))
    assert (error.code, error.sent) == ("upstream_unreachable", False)
    assert error.message.startswith("nowhere.invalid cannot be reached: its name cannot be resolved")


class Silent(httpcore.AsyncNetworkBackend):
    """A network in which no connection comes about."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectTimeout(f"after {timeout}")


async def test_a_machine_that_does_not_answer_is_said() -> None:
    """With nothing sent."""
    async with Egress(network=Silent()) as egress:
        error = await error_of(egress, Resolved(target=parse_target("http://t.example"), path=b"/"))
        assert (error.code, error.sent) == ("upstream_timeout", False)
        assert "t.example accepts no connection" in error.message


async def test_a_provider_that_hangs_is_waited_for_as_long_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default for ever."""
    clock, limits = LoopClock(monkeypatch), EgressLimits(silence_s=60.0)
    async with Egress(limits=limits) as egress, Provider([[HANG], [head(200), HANG]]) as provider:
        asking = asyncio.create_task(error_of(egress, to(provider)))
        await provider.asked.wait()
        error = await clock.hurry(asking)
        assert (error.code, error.sent) == ("upstream_timeout", True)
        reply = await egress.open(to(provider), request(), b"")
        with pytest.raises(EgressError) as caught:
            await clock.hurry(reply.read())
        assert caught.value.code == "upstream_timeout"
        await provider.connections[1].closed.wait()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_an_answer_that_is_no_http_is_said(egress: Egress, raw: bytes) -> None:
    """Without a word of it."""
    async with Provider([[raw, HANG]]) as provider:
        error = await error_of(egress, to(provider))
        assert (error.code, error.sent) == ("upstream_protocol_error", True)
        assert error.message == f"127.0.0.1:{provider.port} does not answer in correct HTTP/1.1"
        await provider.connections[0].closed.wait()


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize(
    "raw", [answer(b"x" * 30), chunked([b"x" * 10, b"y" * 10, b"z" * 10])], ids=["length", "chunks"]
)
async def test_a_truncated_answer_is_never_taken_for_a_whole_one(egress: Egress, raw: bytes, how: Step) -> None:
    """Wherever it is cut; what came before the cut is given out, unless a reset dropped it."""
    begin = raw.index(b"\r\n\r\n") + 4
    everything = b"x" * 30 if raw.endswith(b"x") else b"x" * 10 + b"y" * 10 + b"z" * 10
    cuts = range(begin, len(raw))
    async with Provider([cut(raw, at, how) for at in cuts]) as provider:
        for _ in cuts:
            try:
                reply = await egress.open(to(provider), request(), b"{}")
            except EgressError as error:
                assert (how, error.code) == (RESET, "upstream_closed")  # noqa: PT017 - a reset may overtake the head
                continue
            got = bytearray()
            with pytest.raises(EgressError) as caught:
                await read_into(got, reply)
            assert (caught.value.code, caught.value.sent) == ("upstream_truncated", True)
            assert everything.startswith(got)
            with pytest.raises(EgressError):
                await reply.read()


async def read_into(got: bytearray, reply: StreamedReply) -> None:
    async for piece in reply.chunks():
        got += piece


async def test_a_head_that_is_cut_off_is_no_answer(egress: Egress) -> None:
    """At any byte."""
    raw = head(200, [b"Content-Length: 0"])
    cuts = range(1, len(raw))
    async with Provider([cut(raw, at) for at in cuts]) as provider:
        for _ in cuts:
            error = await error_of(egress, to(provider))
            assert error.code in {"upstream_protocol_error", "upstream_closed"}
            assert error.sent


async def test_a_broken_chunk_is_a_broken_answer(egress: Egress) -> None:
    """As if it had been cut."""
    raw = head(200, [b"Transfer-Encoding: chunked"]) + chunk(b"ok") + b"no number\r\n"
    async with Provider([[raw, HANG]]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        assert await reply.read() == b"ok"
        with pytest.raises(EgressError) as caught:
            await reply.read()
        assert caught.value.code == "upstream_truncated"
        await provider.connections[0].closed.wait()


async def test_a_request_whose_body_is_refused_gets_the_refusal(egress: Egress) -> None:
    """A provider may answer and close before it has read all."""

    async def refuse(connection: Connection) -> None:
        await connection.write(answer(b"too large", status=413, lines=[b"Connection: close"]))
        connection.writer.write_eof()
        while await connection.reader.read(65536):
            pass

    async with Early(refuse) as provider:
        got, body = await fetch(egress, provider, b"x" * 3_000_000)
        assert (got.status, body) == (413, b"too large")


async def test_there_may_be_no_own_api(egress: Egress) -> None:
    """As in the sidecar."""
    error = await error_of(egress, Resolved(target=SELF, path=b"/v1/responses"))
    assert (error.code, error.sent) == ("upstream_unreachable", False)


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    ca = trustme.CA()
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return ca, path


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_tls_is_spoken_with_a_server_of_an_authority_that_is_known(authority: tuple[trustme.CA, Path]) -> None:
    """HTTP/1.1, whatever else it offers; connections are kept."""
    ca, cafile = authority
    tls = server_tls(ca.issue_cert("127.0.0.1"))
    async with (
        Egress(tls=client_tls(cafile)) as egress,
        Provider([answer(b"1"), chunked([b"2" * 200_000])], tls=tls) as provider,
    ):
        assert (await fetch(egress, provider, b"x" * 1_000_000))[1] == b"1"
        assert (await fetch(egress, provider))[1] == b"2" * 200_000
        assert len(provider.connections) == 1
        assert provider.requests[0].body == b"x" * 1_000_000


@pytest.mark.parametrize(
    ("name", "is_known", "words"),
    [
        ("127.0.0.1", False, "unable to get local issuer certificate"),
        ("other.example", True, "IP address mismatch"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_said(
    authority: tuple[trustme.CA, Path], name: str, is_known: bool, words: str
) -> None:
    """With what to do; nothing was sent."""
    ca, cafile = authority
    tls = server_tls(ca.issue_cert(name))
    async with Egress(tls=client_tls(cafile if is_known else None)) as egress, Provider(tls=tls) as provider:
        error = await error_of(egress, to(provider))
        assert (error.code, error.sent) == ("upstream_unreachable", False)
        assert "its certificate is not accepted" in error.message
        assert words in error.message
        assert "cafile" in error.message


async def test_a_server_without_tls_is_said(egress: Egress) -> None:
    """A slip in the URL of a target."""

    async def speak(connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Greeting(speak) as provider:
        target = parse_target(provider.url.replace("http://", "https://"))
        error = await error_of(egress, Resolved(target=target, path=b"/"))
        assert (error.code, error.sent) == ("upstream_unreachable", False)
        assert "does it speak https at this port?" in error.message


async def test_tls_cut_in_an_answer_is_a_truncation(authority: tuple[trustme.CA, Path]) -> None:
    """As without TLS."""
    ca, cafile = authority
    tls = server_tls(ca.issue_cert("127.0.0.1"))
    async with (
        Egress(tls=client_tls(cafile)) as egress,
        Provider([cut(answer(b"x" * 30), 50)], tls=tls) as provider,
    ):
        with pytest.raises(EgressError) as caught:
            await fetch(egress, provider)
        assert caught.value.code == "upstream_truncated"


# ------------------------------------------------------------------------------------------------------------ the table


def unreachable(cause: BaseException | None) -> str:
    """What is said of a connection that failed for this cause."""
    error = httpcore.ConnectError("no")
    error.__cause__ = cause
    told = egress_error(error, "t.example", sent=False)
    assert (told.code, told.sent) == ("upstream_unreachable", False)
    return told.message


def context_of(error: Exception, context: Exception, *, suppressed: bool = False) -> Exception:
    error.__context__, error.__suppress_context__ = context, suppressed
    return error


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ConnectionRefusedError(), "it refuses connections; is it running, at this port?"),
        (OSError(113, "No route to host"), "no network leads to it"),
        (socket.gaierror(-2, "Name or service not known"), "its name cannot be resolved (Name or service not known)"),
        (ExceptionGroup("all", [ValueError(), OSError(101, "Network is unreachable")]), "no network leads to it"),
        (context_of(ValueError(), OSError(113, "No route to host")), "no network leads to it"),
        (context_of(ValueError(), OSError(113, "No route to host"), suppressed=True), "the connection failed"),
        (OSError(), "the connection failed"),
        (None, "the connection failed"),
    ],
)
def test_the_innermost_cause_says_why_there_is_no_connection(cause: BaseException | None, reason: str) -> None:
    assert unreachable(cause).startswith(f"t.example cannot be reached: {reason}")


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (httpcore.ConnectTimeout("x"), "upstream_timeout", "upstream_timeout"),
        (httpcore.ReadTimeout("x"), "upstream_timeout", "upstream_timeout"),
        (httpcore.ReadError("x"), "upstream_closed", "upstream_truncated"),
        (ConnectionResetError(), "upstream_closed", "upstream_truncated"),
        (httpcore.RemoteProtocolError("x"), "upstream_protocol_error", "upstream_truncated"),
    ],
)
def test_an_error_has_one_code_before_the_head_of_the_answer_and_one_after_it(
    error: Exception, before: str, after: str
) -> None:
    assert egress_error(error, "t", sent=True).code == before
    assert egress_error(error, "t", sent=True, answered=True).code == after
    assert egress_error(error, "t", sent=False).sent is False


def test_a_request_that_http_does_not_allow_was_not_sent_whatever_the_connection_believes() -> None:
    error = egress_error(httpcore.LocalProtocolError("x"), "t", sent=True)
    assert (error.code, error.sent) == ("invalid_request", False)
