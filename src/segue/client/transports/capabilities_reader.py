"""Asks a server what it offers: once, at its root, and only a server that may be a gateway of ours.

A server that does not know the question offers what its documentation says, or nothing. Not here: what the answer
means (`segue.client.capabilities`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from yarl import URL

from segue.client.capabilities import (
    MAX_OBJECT_BYTES,
    OPENAI_SERVICE,
    ServerCapabilities,
    documented_capabilities,
    read_capabilities_header,
    read_capabilities_object,
)
from segue.client.transports.http_exchange import ServerExchanges
from segue.client.transports.interface import TransportFault
from segue.protocol.capabilities import HEADER

_PATH = ("segue", "capabilities")
_OK = 200
#: A server that is busy, and proxies whose server is away (RFC 9110, 15.6; RFC 6585, 4).
_NOT_NOW = frozenset({429, 502, 503, 504})


async def fetch_capabilities(server: ServerExchanges) -> ServerCapabilities | None:
    """Ask the server; None if it cannot say at the moment.

    Raises `TransportFault` if it does not answer: the create that waits for this was not sent.
    """
    documented = documented_capabilities(server.base_url.host or "")
    if documented is OPENAI_SERVICE:
        return documented
    try:
        told = await _ask(server)
        return None if told is None else read_capabilities_object(told) or documented
    except TransportFault as fault:
        if fault.fault.kind == "unreadable":
            return documented
        raise TransportFault(msgspec.structs.replace(fault.fault, delivered="no")) from fault


async def _ask(server: ServerExchanges) -> bytes | None:
    """Return the object; empty if the server has none, and None if it is busy or away."""
    response = await server.send("GET", _url(server.base_url), accept="application/json")
    if response.status != _OK:
        response.close()
        return None if response.status in _NOT_NOW else b""
    return await server.read(response, MAX_OBJECT_BYTES)


def _url(base_url: URL) -> URL:
    """Return where a gateway says it: beside the API's version, also where a proxy has put both under a prefix."""
    base_url = base_url.with_query(None)
    return (base_url.parent if base_url.name == "v1" else base_url.origin()).joinpath(*_PATH)


def told_capabilities(headers: Mapping[str, str]) -> ServerCapabilities | None:
    """Return what the head of an answer says; None if it says nothing."""
    header = headers.get(HEADER)
    return None if header is None else read_capabilities_header(header)
