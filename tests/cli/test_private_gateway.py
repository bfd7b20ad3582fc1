"""What a gateway for one user has of the user's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.cli.private_gateway import private_gateway
from segue.config import CertificateConfig, Config, KeyConfig, ListenerConfig, RouteConfig, ServerConfig, TunnelConfig

OWN = [RouteConfig(mount="/openai", target="self")]
FILE = Path("segue.toml")
KEY = KeyConfig("run", "run", "0" * 64)


def test_what_is_for_others_is_left_out() -> None:
    config = Config(
        server=ServerConfig(
            host="0.0.0.0",  # noqa: S104 - it is left out
            port=1,
            tls_cert="c",
            tls_key="k",
            tls_client_ca="a",
            tls_client_auth="required",
        ),
        certificate=[CertificateConfig(name="c", tenant="c", sha256="2" * 64)],
        tunnel=TunnelConfig(address="wss://gateway.example.com", max_sessions=7),
        listener=[ListenerConfig(port=2)],
        key=[KeyConfig("alice", "alice", "1" * 64)],
        route=[RouteConfig(path="/v1", target="https://api.example.com")],
    )
    made, router = private_gateway(config, FILE, keys=[KEY], named=False)
    assert (made.server.host, made.server.port, made.server.store) == ("127.0.0.1", 0, "memory:")
    assert (made.tunnel.address, made.tunnel.max_sessions) == ("", 7)
    assert (made.listener, made.key, made.certificate, made.route) == ([], [KEY], [], config.route)
    tls = made.server.tls_cert, made.server.tls_key, made.server.tls_client_ca, made.server.tls_client_auth
    assert tls == (None, None, None, "optional"), "it speaks plain HTTP within this machine"
    assert router is not None
    assert router.models() == ["scripted"]


@pytest.mark.parametrize(
    ("store", "found", "route", "named", "expected"),
    [
        ("sqlite:///own.db", FILE, OWN, False, "sqlite:///own.db"),
        ("sqlite:///own.db", FILE, [], False, "memory:"),
        ("sqlite:///own.db", None, OWN, False, "memory:"),
        (ServerConfig().store, FILE, OWN, False, "memory:"),  # the default is a file of the working folder
        (ServerConfig().store, FILE, OWN, True, "sqlite:///segue.db"),
    ],
)
def test_the_store_and_the_models_are_for_routes_to_the_gateways_own_api(
    store: str, found: Path | None, route: list[RouteConfig], expected: str, *, named: bool
) -> None:
    config = Config(server=ServerConfig(store=store), route=route)
    made, router = private_gateway(config, found, keys=(), named=named)
    assert made.server.store == expected
    assert (router is None) is (bool(route) and found is not None)
