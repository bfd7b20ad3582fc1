"""Opening a connection: directly to the target, within its time, with keep-alive, and with TLS for https."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trustme

from segue.egress.network import client_tls, connect, keep_alive_options
from segue.http.routes import parse_target


class Dialled(httpcore.AsyncNetworkStream):
    """A stream that notes how TLS is started on it."""

    def __init__(self, tls_error: Exception | None = None) -> None:
        self.started: list[tuple[ssl.SSLContext, str | None, float | None]] = []
        self.closed = False
        self._tls_error = tls_error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
    ) -> httpcore.AsyncNetworkStream:
        self.started.append((ssl_context, server_hostname, timeout))
        if self._tls_error is not None:
            raise self._tls_error
        return self

    async def aclose(self) -> None:
        self.closed = True


class Dialler(httpcore.AsyncNetworkBackend):
    """A network that gives out one stream and notes where to."""

    def __init__(self, stream: Dialled) -> None:
        self.stream = stream
        self.dialled: list[tuple[Any, ...]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append((host, port, timeout, local_address, list(socket_options or ())))
        return self.stream


async def test_http_is_tcp_to_the_host_and_port_of_the_target() -> None:
    network = Dialler(Dialled())
    stream = await connect(parse_target("http://[::1]:8080/x"), network=network, tls=client_tls(), wait_s=3.0)
    assert stream is network.stream
    assert network.dialled == [("::1", 8080, 3.0, None, list(keep_alive_options()))]
    assert network.stream.started == []


async def test_https_is_tls_with_the_name_of_the_host_within_the_same_time_again() -> None:
    network, tls = Dialler(Dialled()), client_tls()
    assert await connect(parse_target("https://t.example"), network=network, tls=tls, wait_s=3.0) is network.stream
    assert network.dialled[0][:3] == ("t.example", 443, 3.0)
    assert network.stream.started == [(tls, "t.example", 3.0)]


async def test_a_connection_on_which_no_tls_starts_is_closed() -> None:
    network = Dialler(Dialled(httpcore.ConnectError("no")))
    with pytest.raises(httpcore.ConnectError):
        await connect(parse_target("https://t.example"), network=network, tls=client_tls(), wait_s=3.0)
    assert network.stream.closed


def test_servers_are_verified_and_offered_no_other_http_than_1_1(tmp_path: Path) -> None:
    for tls in (client_tls(), client_tls(authority_file(tmp_path))):
        assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_file_of_authorities_takes_the_place_of_the_systems(tmp_path: Path) -> None:
    authorities = client_tls(authority_file(tmp_path)).get_ca_certs()
    assert len(authorities) == 1


def authority_file(folder: Path) -> Path:
    path = folder / "authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_the_kernel_notices_within_two_minutes_that_a_machine_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    options = dict(option[1:] for option in keep_alive_options() if isinstance(option[2], int))
    assert options[socket.SO_KEEPALIVE] == 1
    silence_s = options[socket.TCP_KEEPIDLE] + options[socket.TCP_KEEPCNT] * options[socket.TCP_KEEPINTVL]
    assert silence_s == 120


def test_other_systems_keep_their_own_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert list(keep_alive_options()) == [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
