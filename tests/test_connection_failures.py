"""Why there is no connection, told without addresses to clients, and with advice to whoever runs the program."""

from __future__ import annotations

import errno
import socket
import ssl

import aiohttp
import pytest

from segue.connection_failures import ConnectionFailure, connection_failure


def _with_context(error: Exception, below: Exception) -> Exception:
    error.__context__ = below
    return error


@pytest.mark.parametrize(
    ("error", "what", "told"),
    [
        (ConnectionRefusedError(111, "x"), "it refuses connections", "it refuses connections; is it running, at this"),
        (
            socket.gaierror(-2, "Name or service not known"),
            "its name cannot be resolved",
            "its name cannot be resolved (Name or service not known); check the name",
        ),
        (
            OSError(errno.ENETUNREACH, "Connect call failed ('10.0.0.7', 80)"),
            "no network leads to it",
            "no network leads to it; check the address",
        ),
        (
            OSError(errno.EHOSTUNREACH, "10.0.0.7"),
            "no network leads to it",
            "no network leads to it; check the address",
        ),
        (TimeoutError(errno.ETIMEDOUT, "10.0.0.7"), "it does not answer", "it does not answer; does a firewall"),
        (OSError(errno.ECONNRESET, "10.0.0.7"), "connection reset by peer", "connection reset by peer"),
        (
            ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"),
            "no TLS connection comes about",
            "no TLS connection comes abo",
        ),
        (_with_context(ValueError("x"), ConnectionRefusedError()), "it refuses connections", "it refuses connections"),
        (ExceptionGroup("x", [ValueError("y"), ConnectionRefusedError()]), "it refuses connections", "it refuses"),
        (ValueError("http://10.0.0.7"), "the connection failed", "the connection failed"),
    ],
)
def test_the_innermost_cause_is_told_without_an_address(error: Exception, what: str, told: str) -> None:
    found = connection_failure(error)
    assert found.what == what
    assert str(found).startswith(told)
    assert "10.0.0.7" not in str(found)


async def test_the_errors_of_the_http_client_are_understood() -> None:
    """As it raises them: for a port where nobody listens, and for a name that does not exist (RFC 6761, 6.4)."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        whats = [f"http://127.0.0.1:{closed.getsockname()[1]}", "http://nowhere.invalid"]
        found = []
        async with aiohttp.ClientSession() as client:
            for url in whats:
                with pytest.raises(aiohttp.ClientConnectorError) as caught:
                    await client.get(url)
                found.append(connection_failure(caught.value).what)
    assert found == ["it refuses connections", "its name cannot be resolved"]


def test_what_is_not_known_is_left_out() -> None:
    assert str(ConnectionFailure("a")) == "a"
    assert str(ConnectionFailure("a", "b")) == "a (b)"
    assert str(ConnectionFailure("a", advice="c")) == "a; c"
