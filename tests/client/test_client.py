"""A client makes sessions of one server, and closes what it opened."""

from __future__ import annotations

import subprocess
import sys

import pytest

import segue
from segue import client as package
from segue.client.client import AsyncClient, open_links
from segue.client.errors import ConnectionFailedError
from segue.client.settings import ConnectionSettings, SessionSettings
from segue.client.turn import ServerLinks
from tests.client.memory_transport import MemoryLinks


def test_a_client_passes_on_what_it_is_told() -> None:
    links, told = MemoryLinks(), list[ConnectionSettings]()

    def opened(settings: ConnectionSettings) -> ServerLinks:
        told.append(settings)
        return links.open()

    client = AsyncClient("http://h/v1/", "key", transport="http", headers={"X": "y"}, links=opened, deflate=True)
    assert client.base_url == "http://h/v1"
    assert told == [ConnectionSettings(base_url="http://h/v1", api_key="key", headers=(("X", "y"),), deflate=True)]
    session = client.session("m", store=True, reasoning={"effort": "low"}, instructions="i", history=None)
    assert session.settings == SessionSettings(
        model="m", instructions="i", transport="http", store=True, fields={"reasoning": {"effort": "low"}}
    )
    assert client.session("m", transport="websocket").settings.transport == "websocket"


def test_settings_that_cannot_work_are_refused_at_once() -> None:
    client = AsyncClient(links=MemoryLinks().open)
    with pytest.raises(ValueError, match="history='id'"):
        client.session("m", history="id")
    with pytest.raises(ValueError, match="history='id'"):
        client.session_with(SessionSettings(model="m", history="id"))
    with pytest.raises(ValueError, match="stream"):
        client.session("m", stream=True)


@pytest.mark.parametrize(
    ("key", "headers", "what"),
    [
        ("sk-1\n", {}, "api_key"),
        ("sk\udcff1", {}, "api_key"),
        (None, {"X-Mine": "a\r\nb"}, "header 'X-Mine'"),
        (None, {"X\nMine": "a"}, "header"),
    ],
)
def test_what_cannot_be_sent_is_refused_when_the_client_is_made(
    key: str | None, headers: dict[str, str], what: str
) -> None:
    with pytest.raises(ValueError, match=f"The {what}.* cannot be sent") as caught:
        AsyncClient("http://127.0.0.1:1/v1", key, headers=headers)
    assert "sk" not in str(caught.value)


async def test_a_server_that_is_not_there_says_that_nothing_was_sent() -> None:
    async with AsyncClient("http://127.0.0.1:1/v1") as client:
        for transport in ("http", "websocket"):
            session = client.session("m", transport=transport, most_attempts=1)
            with pytest.raises(ConnectionFailedError):
                await session.send("hi").response()


async def test_a_client_that_was_not_used_has_opened_nothing() -> None:
    links = open_links(ConnectionSettings(base_url="http://127.0.0.1:1/v1"))
    assert (links.transport("http").kind, links.transport("websocket").kind) == ("http", "websocket")
    await links.aclose()


def test_the_clients_are_there_by_name_and_importing_segue_is_cheap() -> None:
    assert segue.AsyncClient is package.AsyncClient is AsyncClient
    assert segue.Client is package.Client
    for module in (segue, package):
        with pytest.raises(AttributeError, match="Other"):
            module.Other  # noqa: B018 - the attribute that is not there
    program = "import sys, segue, segue.client.recovery; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0
