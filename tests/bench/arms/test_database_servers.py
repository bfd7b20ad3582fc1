"""Servers for a measurement: they serve, and nothing of them is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.bench.arms import database_servers as servers
from segue.bench.arms.database_servers import DatabaseServers, ServersMissing
from tests.stores.live.redis_servers import PROGRAM


def test_a_database_has_a_url() -> None:
    made = DatabaseServers(Path("/srv/a b"), 1, 2, "unix:///srv/redis.sock?db=0")
    assert made.store("workers1") == "postgresql://segue@/workers1?host=/srv/a%20b"


async def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_postgres", lambda: None)
    with pytest.raises(ServersMissing, match=r"PostgreSQL \(initdb\) is not installed: `apt-get install postgresql"):
        async with servers.database_servers():
            pass


@pytest.mark.postgres
async def test_a_missing_redis_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.bench.arms.database_servers.shutil.which", lambda _: None)
    with pytest.raises(ServersMissing, match="Redis or Valkey"):
        async with servers.database_servers():
            pass


@pytest.mark.postgres
@pytest.mark.skipif(PROGRAM is None, reason="no redis-server")
async def test_both_serve_and_are_gone_at_the_end() -> None:
    async with servers.database_servers() as made:
        await made.create("mine")
        size, log, writes, users = await made.measure("mine")
        assert size > 1_000_000
        assert min(log, writes) > 0
        assert users == 0
        assert (made.folder / "redis.sock").exists()
        processes = [Path(f"/proc/{process}") for process in (made.postgres, made.redis)]
    assert not made.folder.exists()
    assert not any(process.exists() for process in processes)
