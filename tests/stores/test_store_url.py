"""Opening a store by its URL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segue.stores.interface import StoreError
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.stores.store_url import check_url, file_of, open_copy_end, open_store
from segue.testing.store_conformance import sample_record


async def test_memory_url_opens_a_store_in_memory() -> None:
    """`memory:` names the store in memory."""
    store = await open_store("memory:")
    assert isinstance(store, MemoryStore)
    await store.aclose()


@pytest.mark.parametrize("options", ["", "?synchronous=NORMAL", "?synchronous=full"])
async def test_relative_url_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """Three slashes: a path from here, with or without an option."""
    monkeypatch.chdir(tmp_path)
    store = await open_store(f"sqlite:///a%20b.db{options}")
    assert isinstance(store, SqliteStore)
    await store.append(sample_record("root"))
    await store.aclose()
    assert "a b.db" in names_in(tmp_path)


async def test_absolute_url_is_an_absolute_path(tmp_path: Path) -> None:
    """Four slashes: a path from the root."""
    store = await open_store(f"sqlite:///{tmp_path}/segue.db")
    await store.aclose()
    assert "segue.db" in names_in(tmp_path)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory:///",
        "segue.db",
        "sqlite:",
        "sqlite:///",
        "sqlite://segue.db",
        "sqlite:segue.db",
        "sqlite:///:memory:",
        "sqlite:///stores/",
        "sqlite:///segue.db#part",
        "sqlite:///segue.db?synchronous=OFF",
        "sqlite:///segue.db?synchronous",
        "sqlite:///segue.db?mode=ro",
        "mysql://localhost/segue",
    ],
)
async def test_other_urls_are_refused_with_what_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The error lists the possible URLs, and no file is created."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"possible are: memory: .* sqlite:///segue\.db .* sqlite:////var"):
        await open_store(url)
    with pytest.raises(ValueError, match=r"possible are: memory: .* sqlite:///segue\.db .* sqlite:////var"):
        check_url(url)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    [
        "memory:",
        "sqlite:///segue.db",
        "sqlite:////nowhere/segue.db?synchronous=normal",
        "postgresql://host/db?wait_s=2",
    ],
)
def test_checking_a_url_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The file need not exist, nor its directory."""
    monkeypatch.chdir(tmp_path)
    check_url(url)
    assert names_in(tmp_path) == []


async def test_a_password_is_not_repeated() -> None:
    """A message may end up in a log: it shows the host, not the password."""
    with pytest.raises(ValueError, match=r"'redis://…@host/0' is not a store") as caught:
        await open_store("redis://user:hunter2@host/0")
    assert "hunter2" not in str(caught.value)


async def test_an_unopenable_file_is_a_store_error(tmp_path: Path) -> None:
    """The URL is good; its directory does not exist."""
    with pytest.raises(StoreError, match="No such file or directory: check that its directory exists"):
        await open_store(f"sqlite:///{tmp_path}/nowhere/segue.db")


def test_the_file_of_a_store_is_known() -> None:
    assert file_of("memory:") is None
    assert file_of("sqlite:///a%20b.db?synchronous=NORMAL") == Path("a b.db")
    with pytest.raises(ValueError, match="is not a store"):
        file_of("x")
    assert file_of("postgresql://host/db") is None


async def test_a_database_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the message says what to install, and names no password."""
    for module in ("store", "postgres_copying"):
        monkeypatch.setitem(sys.modules, f"segue.stores.postgres.{module}", None)
    url = "postgresql://me:hunter2@host/db"
    for opening in (open_store(url), open_copy_end(url, new=False)):
        with pytest.raises(
            StoreError, match=r"psycopg is not installed .*: install segue with its extra cluster"
        ) as caught:
            await opening
        assert "hunter2" not in str(caught.value)


async def test_a_database_that_is_away_is_a_store_error(tmp_path: Path) -> None:
    url = f"postgresql:///db?host={tmp_path}"
    for opening in (open_store(url), open_copy_end(url, new=True)):
        with pytest.raises(StoreError, match="No such file or directory"):
            await opening


async def test_an_end_of_a_copy_outlives_its_process(tmp_path: Path) -> None:
    """A source is there; a target may be new."""
    url = f"sqlite:///{tmp_path}/new.db"
    for wrong, told in (("memory:", "is in a gateway alone"), (url, "there is no file")):
        with pytest.raises(ValueError, match=told):
            await open_copy_end(wrong, new=False)
    end = await open_copy_end(url, new=True)
    assert [page async for page in end.turns()] == []
    await end.aclose()
