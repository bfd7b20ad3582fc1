"""`segue usage` shows what a key has used; whatever answers instead of a gateway is told in a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from segue.config import Config, KeyConfig, LimitsConfig
from segue.gateway.admin.usage import UsageRoutes
from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import Quotas
from segue.protocol.codec import encode
from segue.protocol.responses import usage
from tests.cli.conftest import Command


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives one answer; yields its URL, and the keys that it was sent."""
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["Authorization"])
            self.send_response(status if self.path == "/segue/usage" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", keys
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def report() -> bytes:
    limits = LimitsConfig(requests_per_minute=1200, turns=4)
    key = KeyConfig("laptop", "alice", sha256(b"k").hexdigest(), limits=limits)
    quotas = Quotas(Config(key=[key], limits=LimitsConfig(tokens_per_minute=100_000)))
    principal = Principal("alice", "laptop")
    quotas.end(quotas.begin(principal, 60.0), usage(12_345, 678), 60.0, model="gpt-5")
    return encode(UsageRoutes(quotas, lambda: 60.0, 0.0).report(principal))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("SEGUE_AGENT_KEY", "sk-k")


def test_counts_and_what_is_left_are_shown_side_by_side(command: Command) -> None:
    with answering(200, report()) as (url, keys):
        status, printed, told = command("usage", "--base-url", url)
    assert (status, told, keys) == (0, "", ["Bearer sk-k"])
    lines = [re.sub(r"\s{2,}", " | ", line.strip()) for line in printed.splitlines()]
    assert lines[0] == "tenant alice, key laptop; since 1970-01-01 00:00 UTC, when the gateway began"
    assert "input tokens | 12,345 | 12,345" in lines
    assert "gpt-5 | 1 | 12,345 | 0 | 678" in lines
    assert "turns under way | 0 of 4 | 0" in lines
    assert "requests a minute, left | 1,199 of 1,200" in lines
    assert "tokens a minute, left | 86,977 of 100,000" in lines
    assert max(map(len, printed.splitlines())) <= 80


def test_it_is_printed_as_json_for_scripts(command: Command) -> None:
    with answering(200, report()) as (url, _):
        status, printed, _ = command("usage", "--base-url", url, "--json")
    assert status == 0
    assert json.loads(printed)["of_key"]["remaining"] == {"requests": 1199}


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"", "does not know this key"),
        (404, b"{}", r"is no segue gateway, or an old one \(status 404\)"),
        (200, b"<html>", r"is no segue gateway, or an old one \(status 200\)"),
    ],
)
def test_what_answers_otherwise_is_told(status: int, body: bytes, message: str, command: Command) -> None:
    with answering(status, body) as (url, _):
        code, printed, told = command("usage", "--base-url", url)
    assert (code, printed) == (2, "")
    assert re.search(message, told.replace("\n", " "))


def test_nobody_there_is_told(command: Command) -> None:
    code, _, told = command("usage", "--base-url", "http://127.0.0.1:1/v1")
    assert code == 2
    assert "no gateway answers at http://127.0.0.1:1/segue/usage" in told.replace("\n", " ")
