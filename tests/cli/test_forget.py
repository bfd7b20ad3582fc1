"""`segue forget`: by a running gateway, or in a store that none uses; what it prints is a receipt."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from segue.stores.sqlite import SqliteStore
from segue.testing.store_conformance import ALICE, BOB, sample_id, sample_record
from segue.upstreams.scripted import ScriptedUpstream
from tests.cli.background_gateway import BackgroundGateway
from tests.cli.conftest import Command


def filled(path: Path) -> str:
    """Make a store with responses of two tenants; return its URL."""

    async def fill() -> None:
        store = await SqliteStore.open(path)
        for record in (sample_record("one"), sample_record("two", "one"), sample_record("one", tenant=BOB)):
            await store.append(record)
        await store.aclose()

    asyncio.run(fill())
    return f"sqlite:///{path}"


def test_a_store_that_no_gateway_uses_is_opened(command: Command, tmp_path: Path) -> None:
    url = filled(tmp_path / "segue.db")
    status, printed, told = command("forget", "--tenant", ALICE, "--store", url, "--ids")
    receipt = json.loads(printed)
    assert (status, told) == (0, "")
    assert (receipt["object"], receipt["tenant"], receipt["responses"]) == ("segue.erasure", ALICE, 2)
    assert receipt["ids"] == sorted([sample_id("one"), sample_id("two")])
    assert receipt["left"] == {"records": 0, "size_bytes": 0}
    status, printed, _ = command("forget", "--tenant", BOB, "--store", url, "--before", "9999d")
    assert (status, json.loads(printed)["responses"], json.loads(printed)["left"]["records"]) == (0, 0, 1)


def test_a_running_gateway_is_asked(command: Command, tmp_path: Path) -> None:
    with BackgroundGateway(ScriptedUpstream()) as gateway:
        status, printed, told = command(
            *("forget", "--tenant", "a b", "--before", "2020-01-01", "--output", "receipt.json"),
            *("--base-url", gateway.url),
        )
    assert (status, printed, told) == (0, "", "")
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert (receipt["tenant"], receipt["before"], "ids" in receipt) == ("a b", 1577836800.0, False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--store", "sqlite:///none.db"), "--store: there is no file none.db"),
        (("--store", "memory:"), "--store: memory: is in a gateway alone"),
        (("--store", "x"), "--store: 'x' is not a store"),
        (("--before", "soon"), "'soon' is no time"),
        (("--before", "2999-01-01"), "'2999-01-01' is still to come"),
        (("--base-url", "http://127.0.0.1:1/v1"), "no gateway answers"),
    ],
)
def test_what_cannot_be_is_told(command: Command, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    """And no store is made."""
    status, printed, said = command("forget", "--tenant", "a", *arguments)
    assert (status, printed) == (2, "")
    assert told in " ".join(said.split())
    assert not list(tmp_path.glob("*.db*"))


def test_a_store_that_a_gateway_uses_is_not_opened(command: Command, tmp_path: Path) -> None:
    url = filled(tmp_path / "segue.db")

    async def hold() -> tuple[int, str, str]:
        store = await SqliteStore.open(tmp_path / "segue.db")
        try:
            return await asyncio.to_thread(command, "forget", "--tenant", ALICE, "--store", url)
        finally:
            await store.aclose()

    status, _, told = asyncio.run(hold())
    assert status == 2
    assert "is in use by process" in " ".join(told.split())
