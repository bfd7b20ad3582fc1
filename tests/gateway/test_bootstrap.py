"""From the configuration to upstreams: what is judged only there, and what all gateways of a configuration share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue.config import Config, ConfigError, KeyConfig, RouteConfig, TenantConfig, UpstreamConfig
from segue.dialects.provider_families import FAMILIES
from segue.dialects.provider_profiles import ProviderProfile
from segue.engine.upstream import LocalUpstream
from segue.gateway import bootstrap
from segue.gateway.bootstrap import (
    build_profile,
    build_router,
    build_routes,
    provider_targets,
    tenant_secrets,
    why_no_local_model,
)
from segue.upstreams.http import HttpUpstream
from segue.upstreams.interface import Upstream
from segue.upstreams.scripted import ScriptedUpstream
from segue.upstreams.websocket import WebSocketUpstream

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
        ({"provider": "openia"}, "upstream 'u': provider 'openia' is unknown; known providers: openai, azure, "),
        ({"compat": {"strm": 1}}, "upstream 'u': compat: unknown key 'strm'; known keys: omitted_fields, "),
        ({"compat": {"text_parts": "one"}}, "upstream 'u': compat: text_parts: Invalid enum value 'one'"),
        (
            {"compat": {"text_parts": "list"}, "dialect": "responses"},
            "upstream 'u': compat: text_parts means nothing to the dialect 'responses'; leave it out",
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
    assert build_router(Config(upstream=[up])).find("m", "ann") is not None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ProviderProfile()),
        ({"base_url": "https://API.OpenAI.com/v1"}, FAMILIES["openai"].profile),
        ({"base_url": "https://api.openai.com:443/v1"}, FAMILIES["openai"].profile),
        ({"base_url": "https://mine.openai.azure.com/openai/v1"}, FAMILIES["azure"].profile),
        ({"base_url": "https://openai.azure.com.example/v1"}, ProviderProfile()),
        ({"provider": "gemini"}, FAMILIES["gemini"].profile),
        ({"base_url": "https://api.openai.com/v1", "provider": "gemini"}, FAMILIES["gemini"].profile),
        ({"return_reasoning": False}, ProviderProfile(returned_reasoning="never")),
        (
            {"compat": {"text_parts": "string", "omitted_fields": ["stream_options"]}},
            ProviderProfile(text_parts="string", omitted_fields=("stream_options",)),
        ),
        (
            {"provider": "openai", "compat": {"output_limit_field": "max_tokens"}},
            msgspec.structs.replace(FAMILIES["openai"].profile, output_limit_field="max_tokens"),
        ),
    ],
)
def test_the_provider_says_what_its_server_refuses(settings: dict[str, Any], expected: ProviderProfile) -> None:
    """Named, or else known by the host of the address; the configuration has the last word on every single field."""
    assert build_profile(msgspec.convert({**BASE, **settings}, UpstreamConfig)) == expected


def test_a_tenants_secret_is_the_same_in_all_gateways_of_a_configuration() -> None:
    """Whatever keys others get, and a tenant itself besides its first one."""
    one, other = tenant_secrets(KEYS), tenant_secrets([KEYS[2], KEYS[0]])
    assert (one("ann"), one("bob")) == (other("ann"), other("bob")) == (bytes(32), b"\x22" * 32)


def test_without_keys_a_secret_is_drawn() -> None:
    one, other = tenant_secrets([]), tenant_secrets([])
    assert one("local") == one("local") != other("local")
    assert len(one("local")) == 32


# --- which upstream --------------------------------------------------------------------------------------------------


def upstream_of(model: str, *configured: UpstreamConfig) -> tuple[Upstream, str] | None:
    found = build_router(Config(upstream=list(configured))).find(model, "ann")
    return None if found is None else (found.upstreams[0], found.model)


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
def test_a_provider_is_reached_over_http_under_the_name_it_is_configured_for(dialect: str) -> None:
    up = msgspec.convert({**BASE, "dialect": dialect, "models": ["gpt-*"], "model_as": "other"}, UpstreamConfig)
    found = upstream_of("gpt-5", up)
    assert found is not None
    upstream, model = found
    assert isinstance(upstream, HttpUpstream)
    assert (upstream.name, model) == ("u", "other")


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        ({}, False),
        ({"base_url": "https://api.anthropic.com/v1"}, True),
        ({"base_url": "https://API.anthropic.com"}, True),
        ({"base_url": "http://api.anthropic.com/v1"}, False),
        ({"base_url": "https://api.anthropic.com.example/v1"}, False),
        ({"base_url": "https://api.anthropic.com/v1", "message_threads": False}, False),
        ({"base_url": "https://api.anthropic.com/v1", "dialect": "chat"}, False),
        ({"message_threads": True}, True),
    ],
)
def test_only_anthropics_own_service_keeps_threads_without_being_told(settings: dict[str, Any], threads: bool) -> None:
    up = msgspec.convert({**BASE, "dialect": "messages", **settings}, UpstreamConfig)
    found = upstream_of("m", up)
    assert found is not None
    assert isinstance(found[0], HttpUpstream)
    assert (found[0].continuations is not None) == threads


def test_a_responses_server_is_reached_over_websockets_where_that_is_configured() -> None:
    settings = {"dialect": "responses", "transport": "websocket", "websocket_idle": 7, "websocket_idle_s": 8}
    found = upstream_of("m", msgspec.convert({**BASE, **settings}, UpstreamConfig))
    assert found is not None
    assert isinstance(found[0], WebSocketUpstream)
    laned = upstream_of("m", msgspec.convert({**BASE, **settings, "websocket_lanes": 16}, UpstreamConfig))
    assert laned is not None
    assert isinstance(laned[0], WebSocketUpstream)
    assert (found[0].limits.lanes, laned[0].limits.lanes) == (None, 16)
    openai = {**settings, "base_url": "https://api.openai.com/v1"}
    warm = upstream_of("m", msgspec.convert({**BASE, **openai}, UpstreamConfig))
    assert warm is not None
    assert isinstance(warm[0], WebSocketUpstream)
    assert (found[0].warms_up, warm[0].warms_up) == (False, True)
    plain = upstream_of("m", msgspec.convert({**BASE, "dialect": "responses"}, UpstreamConfig))
    assert plain is not None
    assert not isinstance(plain[0], WebSocketUpstream)


def test_a_tenant_that_wants_nothing_kept_changes_the_upstreams_that_keep_something() -> None:
    """Others stay as they are, with all that they hold."""
    ups = [
        msgspec.convert({**BASE, "dialect": dialect, "name": dialect, "models": [dialect]}, UpstreamConfig)
        for dialect in ("chat", "messages")
    ]
    before = build_router(Config(upstream=ups))
    after = build_router(Config(upstream=ups, tenant=[TenantConfig("ann", zero_retention=True)]), before)
    same = [one.upstream is other.upstream for one, other in zip(before.rules, after.rules, strict=True)]
    assert same == [True, False, True]


def test_the_scripted_model_is_always_there_after_what_is_configured() -> None:
    everything = UpstreamConfig(name="all", dialect="scripted", models=["*"])
    other = UpstreamConfig(name="other", dialect="scripted", models=["other"])
    first, second = upstream_of("scripted", everything), upstream_of("scripted", other)
    assert first is not None
    assert second is not None
    assert (tuple(first[0].models), second[0].models) == (("*",), ("scripted",))
    assert isinstance(second[0], ScriptedUpstream)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Decide whether a local model can run here; returns what it would set in the process."""

    def decide(reason: str | None, *, policy: bool = False) -> list[str]:
        done: list[str] = []
        monkeypatch.setattr(bootstrap, "find_model", lambda _: Path("/models/bundled.gguf"))
        monkeypatch.setattr(bootstrap, "why_unavailable", lambda _: reason)
        monkeypatch.setattr(bootstrap, "has_openmp_policy", lambda: policy)
        monkeypatch.setattr(bootstrap, "shorten_spinning", lambda: done.append("shorten_spinning"))
        return done

    return decide


def test_without_upstreams_the_bundled_model_answers(local: Callable[..., list[str]]) -> None:
    done = local(None)
    found = upstream_of("smollm2")
    assert found is not None
    assert isinstance(found[0], LocalUpstream)
    assert why_no_local_model() is None
    assert done == ["shorten_spinning"]


def test_without_a_local_model_the_log_says_why(
    local: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "segue.gateway")
    local("no engine")
    assert upstream_of("smollm2") is None
    assert upstream_of("scripted") is not None
    assert why_no_local_model() == "no engine"
    assert "no local model: no engine; only 'scripted' is offered" in caplog.text


def test_a_configured_local_model_must_be_able_to_run(local: Callable[..., list[str]]) -> None:
    up = UpstreamConfig(
        name="mine", dialect="local", models=["m"], model_file="/m.gguf", chat_template_file="/t", kv_directory="/kv"
    )
    local("the file is not there")
    with pytest.raises(ConfigError, match="upstream 'mine': the file is not there"):
        upstream_of("m", up)
    done = local(None, policy=True)
    found = upstream_of("m", up)
    assert found is not None
    assert isinstance(found[0], LocalUpstream)
    assert done == [], "the user has decided how threads wait"


def test_routes_that_make_no_sense_are_mistakes_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"^\[\[route\]\] '/m' target: 'nowhere' is not"):
        build_routes(Config(route=[RouteConfig(target="nowhere", mount="/m")]))
    assert build_routes(Config(route=[RouteConfig(target="self", mount="/m")])).routes


def test_the_servers_of_upstreams_are_known_as_far_as_their_addresses_are_plain() -> None:
    rows = [
        {**BASE, "name": "a", "base_url": "https://a.example:444/v1"},
        {**BASE, "name": "b", "base_url": "https://b.example/v1/../x"},
        {"name": "s", "dialect": "scripted", "models": ["s"]},
    ]
    config = Config(upstream=[msgspec.convert(row, UpstreamConfig) for row in rows])
    assert [target.url for target in provider_targets(config)] == ["https://a.example:444/v1"]
