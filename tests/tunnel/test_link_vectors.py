"""Whole links as vectors: the checker finds nothing in them, each end takes them, and the fatal packets end a link."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from segue.testing.tunnel_checker import Way
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.events import LinkFailed, Opened, UploadData
from segue.tunnel.server import Node, TunnelServer
from tests.tunnel.checkers import new_checker
from tests.tunnel.pair import HEAD, failures
from tools.make_link_vectors import vectors

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "links.json").read_text(encoding="utf-8"))
BY_NAME = pytest.mark.parametrize("vector", VECTORS["links"], ids=lambda vector: vector["name"])


@BY_NAME
def test_nothing_is_against_the_text(vector: dict[str, Any]) -> None:
    checker = new_checker()
    for kind, *packet in vector["steps"]:
        if kind == "link":
            checker.link_opened()
        else:
            checker.sent(cast("Way", kind.removeprefix("lost-")), bytes.fromhex(packet[0]))
    assert checker.problems == []


@BY_NAME
def test_a_gateway_answers_the_hello_and_takes_the_first_request(vector: dict[str, Any]) -> None:
    gateway = TunnelServer(Node(b"node-1", b"", 1 << 20))
    gateway.link_opened(0.0)
    (_, hello), (_, welcome), (_, request) = vector["steps"][1:4]
    assert gateway.receive(bytes.fromhex(hello), 0.0) == []
    assert gateway.next_packet(0.0) == bytes.fromhex(welcome)
    opened, *others = gateway.receive(bytes.fromhex(request), 0.0)
    assert isinstance(opened, Opened)
    assert (opened.head.target, opened.has_body) == (b"/v1/messages", True)
    assert any(isinstance(event, UploadData) for event in others)


@pytest.mark.parametrize("vector", VECTORS["fatal"], ids=lambda vector: vector["name"])
def test_the_last_packet_ends_the_link(vector: dict[str, Any]) -> None:
    end: TunnelServer | TunnelClient = TunnelServer(Node(b"node-1", b"", 1 << 20))
    if vector["reader"] == "sidecar":
        end = TunnelClient()
        end.open(TunnelRequest(HEAD, b"document"))
    end.link_opened(0.0)
    *before, last = (bytes.fromhex(packet) for packet in vector["packets"])
    for packet in before:
        assert not failures(list(end.receive(packet, 0.0)))  # type: ignore[arg-type]  # events of either end
    assert isinstance(end.receive(last, 0.0)[-1], LinkFailed)


def test_the_file_is_what_this_version_sends() -> None:
    assert vectors() == VECTORS
