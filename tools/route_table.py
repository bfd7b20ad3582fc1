"""The table of the gateway's routes: who may ask them, as the application wraps their handlers, and what they do.

Not here: the page that shows it (`generate_docs`).
"""

from __future__ import annotations

import re
import time

from aiohttp import web

from segue.config import Config, ServerConfig
from segue.gateway.api.application import build_application
from segue.gateway.app import Gateway
from segue.stores.memory import MemoryStore
from segue.upstreams.router import Router
from tools.markdown import code, table

_ROUTES = {
    ("POST", "/v1/responses"): "Run a turn. The reply is one JSON object, or with `stream: true` server-sent events.",
    (
        "GET",
        "/v1/responses",
    ): "With an upgrade: WebSocket mode. Else [the stored responses](#lists-of-responses), by page.",
    ("GET", "/v1/responses/{id}"): "A stored or running response, or with `stream=true` the events of a kept turn.",
    ("POST", "/v1/responses/input_tokens"): "How many tokens an input would have. See below.",
    ("POST", "/v1/responses/compact"): "What is left of a history when its model sums it up. See below.",
    ("POST", "/v1/responses/{id}/cancel"): "Stop a background turn.",
    ("DELETE", "/v1/responses/{id}"): "Delete a stored response. Its id resolves to nothing at once.",
    ("GET", "/v1/responses/{id}/input_items"): "Everything the response saw. Query: `limit`, `order`, `after`.",
    ("POST", "/v1/conversations"): "Make a conversation, with `items` and `metadata` if you like. See below.",
    ("GET", "/v1/conversations/{id}"): "A conversation.",
    ("POST", "/v1/conversations/{id}"): "Replace its `metadata`.",
    ("DELETE", "/v1/conversations/{id}"): "Delete it. What the histories of its responses need of it stays.",
    ("GET", "/v1/conversations/{id}/items"): "Its items. Query: `limit`, `order`, `after`.",
    ("POST", "/v1/conversations/{id}/items"): "Add `items`, at most 20; answers with the list of them.",
    ("GET", "/v1/conversations/{id}/items/{item}"): "One of its items.",
    ("DELETE", "/v1/conversations/{id}/items/{item}"): "Take an item out; answers with the conversation.",
    ("POST", "/v1/messages"): "Run a turn as the Messages API does; see [Messages](messages.md).",
    ("POST", "/v1/messages/count_tokens"): "How many tokens a request of that API would have.",
    ("POST", "/v1/chat/completions"): "The same for clients of Chat Completions; see [Chat](chat.md).",
    ("GET", "/v1/models"): "The models that can be named: those of the configuration, and what upstreams list.",
    ("GET", "/v1/models/{id}"): "One model. A name that a pattern of the configuration takes is answered too.",
    ("GET", "/segue/capabilities"): "What this gateway offers and its limits; see [Capabilities](capabilities.md).",
    ("GET", "/segue/tunnel"): "Upgrade to the tunnel of a sidecar.",
    ("GET", "/segue/usage"): "What the key and its tenant have used, and what is left of their limits. See below.",
    ("GET", "/segue/conversations/{id}"): "The stored conversation that ends in a response, as a "
    "[file](../spec/conversation.md); with `as=responses`, `as=chat` or `as=messages`, the request that made the last "
    "answer, for that API: `path`, `body`, and `warnings` of what was left out.",
    ("POST", "/segue/conversations"): "Takes such a file in. Answers with the `id` to continue, how many `turns` the "
    "file has, and how many of them were `imported`: the others were there.",
    ("DELETE", "/segue/tenants/{tenant}"): "Erases what a tenant has, or with `before` (unix seconds) the stored "
    "responses that are older; answers with a [receipt](../how-to/erase.md#the-receipt), which lists them with "
    "`ids=true`. A key may erase its own tenant, one with `operator` any.",
    ("GET", "/segue/diagnostics"): "Where the routes lead, and which providers this gateway reaches. See below.",
    ("POST", "/segue/diagnostics/transfer"): "Bytes to time: reads a body, and answers with `bytes` random ones.",
    ("GET", "/healthz"): "Whether the process answers.",
    ("GET", "/segue/nodes"): "The gateways that share what is live, each with its address and whether it is leaving.",
    ("GET", "/readyz"): "Whether the gateway is to get turns, and how its store, Redis and upstreams are; "
    "503 if not: see [Is it well](../how-to/operate.md#is-it-well).",
    ("GET", "/metrics"): "Metrics for Prometheus.",
}
_WHO = {
    "keyed": "a key, if any are configured",
    "private": "a key; without keys and `hosts`, this machine",
    "operators_only": "a key with `operator`; without keys and `hosts`, this machine",
}


def routes() -> str:
    """Write the table of routes."""
    config = Config(server=ServerConfig(store="memory:"))
    gateway = Gateway(config, Router([]), MemoryStore(), time.time)
    application = build_application(
        gateway.services,
        gateway.tunnel,
        diagnostics=gateway.diagnostics,
        connections=gateway.connections,
        erasure=gateway.erasure,
    )
    rows = []
    for route in application.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if route.method == "HEAD":  # aiohttp adds it to a GET
            continue
        rows.append((code(f"{route.method} {path}"), _who(route), _ROUTES[route.method, path]))
    assert len(rows) == len(_ROUTES), "a route of _ROUTES is gone"
    return table(("request", "who may", "what it does"), rows)


def _who(route: web.AbstractRoute) -> str:
    wrapper = re.match(r"(\w+)\.<locals>", route.handler.__qualname__)
    return "everybody" if wrapper is None else _WHO[wrapper[1]]
