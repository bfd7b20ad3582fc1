"""The gateway's ports with a certificate: TLS 1.2 and later, and a new certificate without a restart."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from msgspec.structs import replace

from segue.config import Config, ConfigError, ServerConfig, load
from segue.gateway.app import Gateway, serving
from segue.gateway.reload import restart_needed
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream


def issue(authority: trustme.CA, folder: Path) -> ServerConfig:
    """Write a certificate for this machine, and return the settings that name it."""
    made = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return ServerConfig(port=0, store="memory:", tls_cert=str(certificate), tls_key=str(key))


def router() -> Router:
    return Router([ModelRule(ScriptedUpstream(), (MODEL,))])


async def certificate_of(url: str, context: ssl.SSLContext) -> bytes | None:
    host, _, port = url.removeprefix("https://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    assert found is None or isinstance(found, bytes)
    return found


async def test_ports_speak_tls_and_take_a_new_certificate_at_a_reload(tmp_path: Path) -> None:
    """A connection keeps the one that it began with."""
    authority = trustme.CA()
    client_side = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    server = issue(authority, tmp_path)
    async with (
        serving(Config(server=server), router()) as (gateway, url),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_side)) as client,
        client.ws_connect(f"{url}/v1/responses") as socket,
    ):
        assert url.startswith("https://127.0.0.1:")
        async with client.post(f"{url}/v1/responses", json={"model": MODEL, "input": "hi"}) as reply:
            assert reply.status == 200
        before = await certificate_of(url, client_side)
        issue(authority, tmp_path)
        await gateway.reload(Config(server=server))
        after = await certificate_of(url, client_side)
        assert before is not None
        assert after not in {before, None}
        (tmp_path / "cert.pem").write_text("no certificate")
        with pytest.raises(ConfigError, match="are no certificate with its key"):
            await gateway.reload(Config(server=server))
        assert await certificate_of(url, client_side) == after
        await socket.send_json({"type": "response.create", "model": MODEL, "input": "hi"})
        assert (await socket.receive_json())["type"] == "response.created"


async def test_an_old_version_of_tls_and_plain_http_are_refused(tmp_path: Path) -> None:
    authority = trustme.CA()
    old = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(Config(server=issue(authority, tmp_path)), router()) as (_, url):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await certificate_of(url, old)
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.ClientError):
                await client.get(url.replace("https", "http") + "/healthz")


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("none.pem", "key.pem", "cannot read {folder}/none.pem: No such file or directory"),
        ("cert.pem", "none.pem", "cannot read {folder}/none.pem: No such file or directory"),
        ("key.pem", "cert.pem", "{folder}/key.pem and {folder}/cert.pem are no certificate with its key"),
    ],
)
async def test_files_that_cannot_be_used_stop_the_start(
    certificate: str, key: str, message: str, tmp_path: Path
) -> None:
    server = issue(trustme.CA(), tmp_path)
    bad = replace(server, tls_cert=str(tmp_path / certificate), tls_key=str(tmp_path / key))
    with pytest.raises(ConfigError) as caught:
        await Gateway.open(Config(server=bad), router())
    assert str(caught.value).startswith(message.format(folder=tmp_path))


@pytest.mark.parametrize(
    ("text", "said"), [(None, "No such file or directory"), ("nothing", "it holds no certificates")]
)
async def test_authorities_that_cannot_be_read_stop_the_start(text: str | None, said: str, tmp_path: Path) -> None:
    server = replace(issue(trustme.CA(), tmp_path), tls_client_ca=str(tmp_path / "ca.pem"))
    if text is not None:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(ConfigError, match=f"cannot read .*ca.pem: {said}"):
        await Gateway.open(Config(server=server), router())


def test_a_certificate_without_its_key_is_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text('[server]\ntls_cert = "cert.pem"\n')
    with pytest.raises(ConfigError, match="tls_cert and tls_key belong together"):
        load(file, {})


def test_other_files_need_no_restart_but_tls_itself_does() -> None:
    plain, one, other = (
        Config(server=ServerConfig(tls_cert=name, tls_key=name)) for name in (None, "one.pem", "other.pem")
    )
    assert restart_needed(one, other) == []
    assert restart_needed(one, replace(one, server=replace(one.server, tls_client_ca="ca.pem"))) == []
    assert restart_needed(plain, one) == ["server.tls_cert", "server.tls_key"]
