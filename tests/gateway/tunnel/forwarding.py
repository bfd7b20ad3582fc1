"""A gateway whose tunnel leads to a scripted provider, and requests for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from segue.config import Config, KeyConfig, RouteConfig, ServerConfig, TunnelConfig
from segue.gateway.app import Gateway, serving
from segue.http.heads import Line, RequestHead, values
from segue.testing.provider import Answer, MessageScript, Script, ScriptedProvider, provided
from segue.tunnel.client import TunnelRequest
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.gateway.peer import Answer as PeerAnswer

POST = RequestHead(
    b"POST",
    b"/v1/messages?beta=true",
    (Line(b"X-Api-Key", b"secret"), Line(b"accept", b"a"), Line(b"Accept", b"b"), Line(b"X-Empty", b"")),
)
GET = RequestHead(b"GET", b"/v1/models", (Line(b"Authorization", b"Bearer k"),))
KEY = KeyConfig("alice", "alice", hashlib.sha256(b"sk-alice").hexdigest())


def post(document: bytes) -> TunnelRequest:
    return TunnelRequest(POST, document)


@asynccontextmanager
async def running(
    script: Script,
    *,
    keys: list[KeyConfig] | None = None,
    target: str | None = None,
    messages: MessageScript | None = None,
    server: ServerConfig | None = None,
    **tunnel: object,
) -> AsyncIterator[tuple[Gateway, str, ScriptedProvider]]:
    """A gateway whose tunnel leads to a provider."""
    async with provided(script, messages) as provider:
        config = Config(
            server=server or ServerConfig(port=0, store="memory:"),
            tunnel=TunnelConfig(**tunnel),  # type: ignore[arg-type]  # the settings of one test
            route=[RouteConfig(path="/v1", target=target or provider.url), RouteConfig(mount="/own", target="self")],
            key=keys or [],
        )
        router = Router([ModelRule(ScriptedUpstream(), (MODEL,))])
        async with serving(config, router) as (gateway, url):
            yield gateway, url, provider


def ok(_: object) -> Answer:
    return Answer(lines=(Line(b"X-One", b"1"), Line(b"x-one", b"2")), pieces=(b"hello ", b"world"))


def error_of(answer: PeerAnswer) -> tuple[int, str]:
    assert answer.head is not None
    return answer.head.status, json.loads(answer.body)["error"]["code"]


def advice_of(answer: PeerAnswer) -> list[bytes]:
    """What clients are told about sending the request again."""
    assert answer.head is not None
    return values(answer.head.lines, b"x-should-retry")
