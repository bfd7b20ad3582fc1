"""From the configuration to upstreams: what is judged only there, and what all gateways of a configuration share."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest

from segue.config import Config, ConfigError, KeyConfig, UpstreamConfig
from segue.gateway.bootstrap import build_router, tenant_secrets

BASE = {"name": "u", "dialect": "chat", "models": ["m"], "base_url": "http://127.0.0.1:9/v1"}
KEYS = [
    KeyConfig(name="one", tenant="ann", sha256="0" * 64),
    KeyConfig(name="two", tenant="ann", sha256="1" * 64),
    KeyConfig(name="three", tenant="bob", sha256="2" * 64),
]


def error_of(**settings: Any) -> str:  # noqa: ANN401 - any setting
    up = msgspec.convert({**BASE, **settings}, UpstreamConfig)
    with pytest.raises(ConfigError) as caught:
        build_router(Config(upstream=[up]))
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"body": {"messages": []}}, "upstream 'u': body.messages is a field that the gateway writes itself"),
        ({"body": {"a": 1, "stream": False}}, "body.stream is a field that the gateway writes itself; leave it out"),
        ({"body": {"input": "x"}, "dialect": "responses"}, "body.input is a field that the gateway writes itself"),
        (
            {"body": {"max_tokens": 1}, "dialect": "messages"},
            "body.max_tokens is a field that the gateway writes itself",
        ),
        ({"body": {"id_slot": 1}, "slots": 2}, "body.id_slot is a field that the gateway writes because of slots"),
        (
            {"body": {"cache_prompt": False}, "slots": 2},
            "body.cache_prompt is a field that the gateway writes because of",
        ),
        ({"body": {"a": {"b": [float("nan")]}}}, "upstream 'u': body holds what JSON does not have"),
        ({"body": {"a": date(2026, 1, 1)}}, "upstream 'u': body holds what JSON does not have"),
        ({"affinity_header": "X Y"}, "upstream 'u': affinity_header 'X Y' is not the name of a header"),
        ({"affinity_header": "Host"}, "affinity_header 'Host' has a meaning of its own; name another header"),
        (
            {"affinity_header": "X-A", "headers": ["x-a: b"]},
            "affinity_header 'X-A' is in headers too: which one is sent?",
        ),
    ],
)
def test_what_would_break_requests_is_refused(settings: dict[str, Any], expected: str) -> None:
    """Before anything is sent."""
    assert expected in error_of(**settings)


def test_what_is_left_to_the_configuration_is_taken() -> None:
    """`max_tokens` is a default in one API, and the gateway's own setting in the other."""
    body = {"max_tokens": 100, "cache_salt": "s", "id_slot": 0, "a": {"b": [1, 0.5, True, "x"]}}
    up = msgspec.convert({**BASE, "body": body, "affinity_header": "X-Session-ID"}, UpstreamConfig)
    assert build_router(Config(upstream=[up])).find("m") is not None


def test_a_tenants_secret_is_the_same_in_all_gateways_of_a_configuration() -> None:
    """Whatever keys others get, and a tenant itself besides its first one."""
    one, other = tenant_secrets(KEYS), tenant_secrets([KEYS[2], KEYS[0]])
    assert (one("ann"), one("bob")) == (other("ann"), other("bob")) == (bytes(32), b"\x22" * 32)


def test_without_keys_a_secret_is_drawn() -> None:
    one, other = tenant_secrets([]), tenant_secrets([])
    assert one("local") == one("local") != other("local")
    assert len(one("local")) == 32
