"""Opening a store by its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.stores.interface import StoreError
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.stores.store_url import check_url, file_of, open_store
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


@pytest.mark.parametrize("url", ["memory:", "sqlite:///segue.db", "sqlite:////nowhere/segue.db?synchronous=normal"])
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
