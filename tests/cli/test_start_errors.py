"""A server that cannot start says which address or file is the cause, and what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import pytest

from segue.cli.start_errors import start_error
from segue.listening import bind


async def _listen(host: str, port: int, *, by_asyncio: bool = False) -> OSError:
    """Return the error of listening there: asyncio words it in its own way."""
    loop = asyncio.get_running_loop()
    with pytest.raises(OSError, match=r".") as caught:
        await (loop.create_server(asyncio.Protocol, host, port) if by_asyncio else bind(host, port))
    return caught.value


@pytest.mark.parametrize("by_asyncio", [False, True])
async def test_a_port_that_is_taken_is_named(by_asyncio: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = str(start_error(await _listen("127.0.0.1", port, by_asyncio=by_asyncio)))
    assert told == (
        f"cannot start: cannot listen on 127.0.0.1:{port}: another program listens there; stop it, or choose another "
        "port (0 picks a free one)"
    )


async def test_an_address_that_this_machine_does_not_have_is_named() -> None:
    assert str(start_error(await _listen("192.0.2.1", 0))) == (
        "cannot start: cannot listen on 192.0.2.1:0: this machine has no such address"
    )


async def test_a_host_that_cannot_be_resolved_is_said_to_be_the_cause() -> None:
    error = await _listen("no such host.invalid", 1)
    assert str(start_error(error)).startswith("cannot start: the name of the address to listen on cannot be resolved (")


def _bind_error(code: int, host: str, port: int) -> OSError:
    """The error of asyncio where a system refuses an address, as root would not see it."""
    words = os.strerror(code).lower()
    return OSError(code, f"error while attempting to bind on address ({host!r}, {port}): {words}")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_bind_error(errno.EACCES, "10.0.0.1", 443), "cannot listen on 10.0.0.1:443: ports below 1024 are for root; "),
        (_bind_error(errno.EACCES, "::", 4747), "cannot listen on [::]:4747: permission denied"),
        (PermissionError(errno.EACCES, "Permission denied", "/var/segue.db"), "/var/segue.db: Permission denied"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError("odd"), "odd"),
        (ValueError("the store is from a later version"), "the store is from a later version"),
    ],
)
def test_other_causes_are_told_without_numbers(error: Exception, expected: str) -> None:
    assert str(start_error(error, "the gateway cannot start")).startswith(f"the gateway cannot start: {expected}")
