"""TLS towards gateways: verified as by default, and resumed where the server lets it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from segue.sidecar import tls_sessions
from segue.sidecar.tls_sessions import ResumingContext, verifying_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def trusting(authority: trustme.CA, path: Path) -> ResumingContext:
    authority.cert_pem.write_to_path(path / "ca.pem")
    return verifying_context(str(path / "ca.pem"))


@asynccontextmanager
async def greeting(authority: trustme.CA, *names: str, version: ssl.TLSVersion | None = None) -> AsyncIterator[int]:
    """A server that says hello; yields its port."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if version is not None:
        tls.maximum_version = version
    authority.issue_cert(*names).configure_cert(tls)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def is_resumed(context: ResumingContext, port: int, name: str = "a.test") -> bool:
    """Connect, and remember the session; tell whether it was the last one's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    assert await reader.read() == b"hello"
    connection = writer.get_extra_info("ssl_object")
    context.remember(connection)
    writer.close()
    return bool(connection.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_second_connection_resumes_the_session_of_the_first(
    authority: trustme.CA, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = trusting(authority, tmp_path)
    async with greeting(authority, "a.test", version=version) as port:
        assert [await is_resumed(context, port) for _ in range(3)] == [False, True, True]


async def test_a_session_is_only_for_the_name_that_was_verified(authority: trustme.CA, tmp_path: Path) -> None:
    context = trusting(authority, tmp_path)
    async with greeting(authority, "a.test") as port:
        assert not await is_resumed(context, port)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"b\.test"):
            await is_resumed(context, port, "b.test")


async def test_a_server_that_knows_no_session_is_verified_anew(authority: trustme.CA, tmp_path: Path) -> None:
    context = trusting(authority, tmp_path)
    async with greeting(authority, "a.test") as port:
        assert not await is_resumed(context, port)
    async with greeting(authority, "a.test") as port:
        assert not await is_resumed(context, port)
    async with greeting(trustme.CA(), "a.test") as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await is_resumed(context, port)


async def test_only_so_many_sessions_are_kept(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_sessions, "_MAX_SESSIONS", 1)
    context = trusting(authority, tmp_path)
    async with greeting(authority, "a.test", "b.test") as port:
        assert not await is_resumed(context, port)
        assert not await is_resumed(context, port, "b.test")
        assert not await is_resumed(context, port)


def test_the_context_is_as_strict_as_the_default_one() -> None:
    default, ours = ssl.create_default_context(), verifying_context(None)
    for one in (default, ours):
        assert (one.verify_mode, one.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert ours.verify_flags == default.verify_flags
    assert ours.minimum_version == default.minimum_version
    assert ours.options == default.options


def test_a_connection_without_a_session_is_not_remembered() -> None:
    context = ResumingContext()
    context.remember(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a.test"))
