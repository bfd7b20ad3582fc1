"""Which row of the configuration means a client's certificate; and over real TLS, what its holder may do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from msgspec.structs import replace

from segue.config import CertificateConfig, Config, KeyConfig, LimitsConfig, RouteConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.gateway.client_certificate import ClientCertificate, client_certificate
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.tls_sessions import ClientIdentity, verifying_context
from segue.upstreams.scripted import MODEL
from tests.gateway.test_server_tls import issue, router

SHOWN: Mapping[str, Any] = {
    "subject": ((("countryName", "DE"),), (("organizationName", "Acme"),), (("commonName", "build"),)),
    "subjectAltName": (
        ("DNS", "Build.Example"),
        ("URI", "spiffe://acme/Build"),
        ("IP Address", "192.0.2.1"),
        ("DirName", ((("commonName", "DNS:other"),),)),
    ),
    "notAfter": "Jan  5 09:34:43 2030 GMT",
}
READ = client_certificate(b"der", SHOWN)
DIGEST = hashlib.sha256(b"der").hexdigest()
TURN = {"model": MODEL, "input": "hi"}


def row(name: str = "build", **means: Any) -> CertificateConfig:  # noqa: ANN401 - any of its settings
    return CertificateConfig(name=name, tenant="ci", **means)


def test_a_certificate_is_known_by_its_digest_its_subject_or_a_name() -> None:
    assert (READ.sha256, READ.expires_at) == (DIGEST, 1893836083.0)
    for means in (
        {"sha256": DIGEST},
        {"subject": {"commonName": "build"}},
        {"subject": {"organizationName": "Acme", "commonName": "build"}},
        {"san": "DNS:build.example"},
        {"san": "URI:spiffe://acme/Build"},
        {"san": "IP Address:192.0.2.1"},
    ):
        assert READ.is_meant_by(row(**means)), means


@pytest.mark.parametrize(
    "means",
    [
        {},
        {"sha256": "0" * 64},
        {"subject": {"commonName": "Build"}},
        {"subject": {"commonName": "build", "organizationName": "Other"}},
        {"subject": {"localityName": "build"}},
        {"san": "URI:spiffe://acme/build"},
        {"san": "DNS:example"},
        {"san": "email:build"},
        {"san": "DNS:other"},
    ],
)
def test_what_is_not_the_same_means_another(means: dict[str, Any]) -> None:
    assert not READ.is_meant_by(row(**means))


def test_an_attribute_that_is_there_twice_says_nothing() -> None:
    twice = replace(READ, subject=(("commonName", "build"), ("commonName", "other")))
    assert not twice.is_meant_by(row(subject={"commonName": "build"}))
    assert client_certificate(b"x", {"notAfter": SHOWN["notAfter"]}) == ClientCertificate(
        hashlib.sha256(b"x").hexdigest(), (), frozenset(), READ.expires_at
    )


# --------------------------------------------------------------------------------------------------- over real TLS

SERVERS, CLIENTS = trustme.CA(), trustme.CA()


def identity(folder: Path, name: str, authority: trustme.CA = CLIENTS) -> ClientIdentity:
    """Write the certificate of a client, and its key."""
    made = authority.issue_cert(f"{name}.example", common_name=name, organization_name="Acme")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.cert_chain_pems[0].bytes())
    key.write_bytes(made.private_key_pem.bytes())
    return ClientIdentity(str(certificate), str(key))


def context(shown: ClientIdentity | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=SERVERS.cert_pem.bytes().decode())
    if shown is not None:
        made.load_cert_chain(shown.certificate, shown.key)
    return made


def config(folder: Path, *rows: CertificateConfig, required: bool = False, **more: Any) -> Config:  # noqa: ANN401 - any table
    (folder / "clients.pem").write_bytes(CLIENTS.cert_pem.bytes())
    server = replace(
        issue(SERVERS, folder),
        tls_client_ca=str(folder / "clients.pem"),
        tls_client_auth="required" if required else "optional",
        audit_log=str(folder / "audit.jsonl"),
    )
    upstream = UpstreamConfig(name="other", dialect="scripted", models=["other"])  # a reload would load a local model
    return Config(server=server, certificate=list(rows), upstream=[upstream], **more)


@asynccontextmanager
async def session(shown: ClientIdentity | None, url: str) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=context(shown))
    async with aiohttp.ClientSession(url, connector=connector) as client:
        yield client


async def asked(client: aiohttp.ClientSession, key: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with client.post("/v1/responses", json=TURN, headers=headers) as reply:
        return reply.status, await reply.json()


def audited(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


async def test_a_certificate_stands_for_its_tenant_over_http(tmp_path: Path) -> None:
    """With a key that is not ours, as SDKs send one in any case; a key that is ours wins."""
    build, other = identity(tmp_path, "build"), identity(tmp_path, "other")
    key = KeyConfig("alice", "alice", hashlib.sha256(b"sk-alice").hexdigest())
    rows = (row(subject={"commonName": "build"}, limits=LimitsConfig(requests_per_minute=3)),)
    async with serving(config(tmp_path, *rows, key=[key]), router()) as (_, url):
        async with session(build, url) as client:
            status, response = await asked(client)
            assert status == 200
            path = f"/v1/responses/{response['id']}"
            async with client.get(path, headers={"Authorization": "Bearer unused"}) as reply:
                assert reply.status == 200
            async with client.get(path, headers={"Authorization": "Bearer sk-alice"}) as reply:
                assert reply.status == 404, "it is of another tenant"
            async with client.get("/segue/usage") as reply:
                used = await reply.json()
            assert (used["tenant"], used["key"]) == ("ci", "build")
            async with client.get("/metrics") as reply:
                assert reply.status == 200
            assert [(await asked(client))[0] for _ in range(3)] == [200, 200, 429]
        async with session(other, url) as client:
            status, refused = await asked(client)
            assert (status, refused["error"]["code"]) == (401, "invalid_api_key")
            assert "is in no [[certificate]] table" in refused["error"]["message"]
            assert (await asked(client, "sk-alice"))[0] == 200
            async with client.get("/metrics") as reply:
                assert reply.status == 403
        async with session(None, url) as client:
            assert (await asked(client))[0] == 401
            assert (await asked(client, "sk-alice"))[0] == 200
    first = audited(tmp_path)[0]
    assert (first["action"], first["tenant"], first["key"], len(first["certificate"])) == ("read", "ci", "build", 64)


async def test_a_certificate_is_taken_away_and_given_without_a_restart(tmp_path: Path) -> None:
    """A WebSocket that is open asks again for each turn."""
    build = identity(tmp_path, "build")
    with_row, without = config(tmp_path, row(san="DNS:build.example")), config(tmp_path, row(sha256="0" * 64))
    async with (
        serving(with_row, router()) as (gateway, url),
        session(build, url) as client,
        client.ws_connect("/v1/responses") as socket,
    ):
        for settings, kind in ((with_row, "response.created"), (without, "error"), (with_row, "response.created")):
            await gateway.reload(settings)
            await socket.send_json({"type": "response.create", **TURN})
            assert (await socket.receive_json())["type"] == kind
            while kind != "error" and (await socket.receive_json())["type"] != "response.completed":
                pass


async def test_a_sidecar_shows_its_certificate_and_has_the_routes_of_it(tmp_path: Path) -> None:
    build = identity(tmp_path, "build")
    routes = [RouteConfig(target="self", mount="/own"), RouteConfig(target="self", mount="/closed")]
    settings = config(tmp_path, row(subject={"organizationName": "Acme"}, routes=["/own"]), route=routes, required=True)
    (tmp_path / "servers.pem").write_bytes(SERVERS.cert_pem.bytes())
    async with serving(settings, router()) as (_, url):
        connector = ConnectorSettings(cafile=str(tmp_path / "servers.pem"), identity=build)
        sidecar_settings = SidecarSettings(gateways=(url.replace("https", "wss"),), connector=connector)
        async with Sidecar(sidecar_settings) as sidecar, aiohttp.ClientSession(sidecar.url) as agent:
            for mount, status in (("/own", 200), ("/closed", 404)):
                async with agent.post(f"{mount}/v1/responses", json=TURN) as reply:
                    assert reply.status == status


@pytest.mark.parametrize("untrusted", [False, True])
async def test_without_a_certificate_that_is_trusted_nobody_gets_in_where_one_is_required(
    untrusted: bool, tmp_path: Path
) -> None:
    """What is wrong with it is in the audit log."""
    shown = identity(tmp_path, "build", trustme.CA()) if untrusted else None
    async with serving(config(tmp_path, row(subject={"commonName": "build"}), required=True), router()) as (
        gateway,
        url,
    ):
        async with session(shown, url) as client:
            with pytest.raises(aiohttp.ClientError):
                await asked(client)
        while len(gateway.connections):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
    lines = audited(tmp_path)
    assert [one["action"] for one in lines] == ["refused_certificate"]
    assert ("issuer certificate" if untrusted else "it shows no certificate") in lines[0]["reason"]


async def test_authorities_are_replaced_without_a_restart(tmp_path: Path) -> None:
    later = trustme.CA()
    early_client, later_client = identity(tmp_path, "early"), identity(tmp_path, "later", later)
    settings = config(tmp_path, row(subject={"organizationName": "Acme"}))

    async def welcome(gateway_url: str, shown: ClientIdentity) -> bool:
        async with session(shown, gateway_url) as client:
            try:
                return (await asked(client))[0] == 200
            except aiohttp.ClientError:
                return False

    async with serving(settings, router()) as (gateway, url):
        assert [await welcome(url, one) for one in (early_client, later_client)] == [True, False]
        (tmp_path / "clients.pem").write_bytes(later.cert_pem.bytes())
        await gateway.reload(settings)
        assert [await welcome(url, one) for one in (early_client, later_client)] == [False, True]


async def test_a_session_that_is_resumed_has_the_certificate_of_the_first(tmp_path: Path) -> None:
    """The sidecar resumes sessions, and then shows no certificate again (RFC 8446, 2.2)."""
    build = identity(tmp_path, "build")
    (tmp_path / "servers.pem").write_bytes(SERVERS.cert_pem.bytes())
    resuming = verifying_context(str(tmp_path / "servers.pem"), build)
    ask = b"GET /segue/usage HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with serving(config(tmp_path, row(subject={"commonName": "build"})), router()) as (_, url):
        for resumed in (False, True):
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=resuming)
            writer.write(ask)
            assert b'"key":"build"' in await reader.read()
            connection = writer.get_extra_info("ssl_object")
            assert connection.session_reused is resumed
            resuming.remember(connection)
            writer.close()
