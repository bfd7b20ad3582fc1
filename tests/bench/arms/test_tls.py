"""A throw-away authority, and TLS that ends before a plain server."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from segue.bench.arms import tls
from segue.bench.arms.tls import Authority, terminated, why_no_tls
from segue.extras import how_to_add
from segue.testing.provider import Answer, provided

ASKED = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def exchanged(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection(*address, ssl=context)
    writer.write(ASKED)
    said = await reader.read()
    writer.close()
    return said


async def what_came(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
    """Read until the connection ends, in whatever way."""
    try:
        return await exchanged(address, context)
    except OSError:
        return b""


async def test_a_plain_server_answers_over_tls() -> None:
    authority = Authority()
    big = b"x" * 300_000
    async with (
        provided(lambda _: Answer(pieces=(big,), framing="length")) as provider,
        terminated(provider.host, provider.port, authority.server_context()) as address,
    ):
        assert (await exchanged(address, authority.client_context())).endswith(big)
        assert provider.requests[0].raw_head == ASKED


async def test_who_does_not_know_the_authority_does_not_trust_it(tmp_path: Path) -> None:
    authority, other = Authority(), Authority()
    authority.write(tmp_path / "authority.pem")
    async with (
        provided(lambda _: Answer()) as provider,
        terminated(provider.host, provider.port, authority.server_context()) as address,
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await exchanged(address, other.client_context())
        known = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
        assert (await exchanged(address, known)).startswith(b"HTTP/1.1 200 ")
        assert len(provider.requests) == 1


async def test_a_reset_of_the_server_cuts_the_answer() -> None:
    authority = Authority()
    cut = Answer(pieces=(b"x" * 100_000,), framing="length", cut_after=10)
    async with (
        provided(lambda _: cut) as provider,
        terminated(provider.host, provider.port, authority.server_context()) as address,
    ):
        assert len(await what_came(address, authority.client_context())) < 1000


async def test_without_a_server_the_connection_ends() -> None:
    authority = Authority()
    async with terminated("127.0.0.1", 1, authority.server_context()) as address:
        assert await what_came(address, authority.client_context()) == b""


async def test_connections_that_are_open_are_dropped_at_the_end() -> None:
    authority = Authority()
    gate = asyncio.Event()
    async with provided(lambda _: Answer(before=gate)) as provider:
        async with terminated(provider.host, provider.port, authority.server_context()) as address:
            asking = asyncio.create_task(what_came(address, authority.client_context()))
            await provider.seen(1)
        await provider.abandoned(0)
        assert await asking == b""


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_tls() is None
    monkeypatch.setattr(tls, "find_spec", lambda _: None)
    assert how_to_add("bench") in str(why_no_tls())
