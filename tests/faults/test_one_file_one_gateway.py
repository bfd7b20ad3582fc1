"""A store file belongs to one gateway at a time, and one that cannot have it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.clients import http
from tests.faults.gateways import refused, serving


async def test_a_second_gateway_says_why_it_cannot_start(tmp_path: Path) -> None:
    """It names the file, who has it and what to do, prints no ready line, and leaves the first one in peace."""
    store = f"sqlite:///{tmp_path}/segue.db"
    async with serving(tmp_path, "--store", store) as process, http(process.url) as client:
        kept = (await client.turn())["id"]
        status, printed, log = await refused(tmp_path, "--store", store)
        assert (status, printed) == (2, "")
        assert f"{tmp_path}/segue.db is in use by process {process.pid}" in log
        assert "name another file" in log
        assert "Traceback" not in log
        assert await client.status(kept) == 200
        assert (await client.turn(previous_response_id=kept))["status"] == "completed"


async def test_the_same_file_by_another_name_is_the_same_file(tmp_path: Path) -> None:
    """A link, or a relative path, does not get around the lock."""
    (tmp_path / "link.db").symlink_to(tmp_path / "segue.db")
    async with serving(tmp_path, "--store", f"sqlite:///{tmp_path}/segue.db"):
        for name in ("link.db", f"../{tmp_path.name}/segue.db"):
            status, _, log = await refused(tmp_path, "--store", f"sqlite:///{name}")
            assert (status, "is in use" in log) == (2, True)


async def test_a_killed_gateway_leaves_the_file_free(tmp_path: Path) -> None:
    """The lock dies with its process, however that ends."""
    store = f"sqlite:///{tmp_path}/segue.db"
    async with serving(tmp_path, "--store", store) as process:
        process.kill()
        await process.ended()
    async with serving(tmp_path, "--store", store) as process, http(process.url) as client:
        assert (await client.turn())["status"] == "completed"


@pytest.mark.parametrize(
    "content", [b"this is no database, but somebody's notes" * 100, b"SQLite format 3\0" + b"x" * 4096]
)
async def test_a_file_that_is_no_store_is_left_alone(content: bytes, tmp_path: Path) -> None:
    """It is refused with a reason, and nothing is written into it."""
    (tmp_path / "notes.db").write_bytes(content)
    status, printed, log = await refused(tmp_path, "--store", f"sqlite:///{tmp_path}/notes.db")
    assert (status, printed) == (2, "")
    assert "notes.db" in log
    assert "Traceback" not in log
    assert (tmp_path / "notes.db").read_bytes() == content


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """The gateway that comes second leaves with a reason."""
    async with serving(tmp_path, "--store", "memory:") as process:
        port = process.url.rpartition(":")[2]
        store = f"sqlite:///{tmp_path}/segue.db"
        status, printed, log = await refused(tmp_path, "--store", store, port=port)
        assert (status, printed) == (2, "")
        assert f"cannot listen on 127.0.0.1:{port}: another program listens there" in log
        assert "Traceback" not in log
