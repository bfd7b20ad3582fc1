"""Redis as it is deployed to survive a server: a primary with a replica under a Sentinel, and a cluster of six."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.stores.live.redis_servers import PROGRAM, RedisServer, discard

#: How long a server must be silent until the others take it for dead.
_SILENT_MS = "500"


class Deployment(NamedTuple):
    """The URL of a deployment, and its servers: primaries first."""

    url: str
    servers: Sequence[RedisServer]
    ports: Sequence[int]


def free_ports(count: int) -> list[int]:
    """Servers of one deployment tell each other their ports, so these have to be known beforehand."""
    with ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in bound]


@asynccontextmanager
async def sentinel_deployment() -> AsyncIterator[Deployment]:
    """A primary, its replica, and a Sentinel that makes the replica the primary when that one is gone."""
    first, second, watching = free_ports(3)
    async with AsyncExitStack() as stack:
        primary = started(stack, first)
        replica = started(stack, second, "--replicaof", "127.0.0.1", str(first), "--repl-diskless-sync-delay", "0")
        await _until(replica, "INFO replication", "'master_link_status': 'up'")
        folder = Path(tempfile.mkdtemp(prefix="sr"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"port {watching}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {first} 1\n"
            f"sentinel down-after-milliseconds main {_SILENT_MS}\nsentinel failover-timeout main 3000\n"
        )
        assert PROGRAM is not None, "tests that need it are skipped"
        sentinel = await asyncio.create_subprocess_exec(PROGRAM, str(settings), "--sentinel", stdout=DEVNULL)
        stack.push_async_callback(sentinel.wait)
        stack.callback(sentinel.kill)
        await _until_sentinel_knows(watching, second)
        yield Deployment(f"redis+sentinel://127.0.0.1:{watching}/main", (primary, replica), (first, second))


@asynccontextmanager
async def cluster_deployment() -> AsyncIterator[Deployment]:
    """Three primaries that share the slots, and a replica of each."""
    ports = free_ports(12)
    serving, buses = ports[:6], ports[6:]
    async with AsyncExitStack() as stack:
        servers = [
            started(
                stack,
                port,
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                str(bus),
                "--cluster-node-timeout",
                _SILENT_MS,
                "--repl-diskless-sync-delay",
                "0",
            )
            for port, bus in zip(serving, buses, strict=True)
        ]
        addresses = [f"127.0.0.1:{port}" for port in serving]
        command = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        made = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
        said, _ = await made.communicate()
        assert made.returncode == 0, said.decode()
        for server in servers:
            await _until(server, "CLUSTER INFO", "cluster_state:ok")
        for replica in servers[3:]:
            await _until(replica, "INFO replication", "'master_link_status': 'up'")
        yield Deployment(f"redis+cluster://{','.join(addresses[:3])}", servers, serving)


async def owner_of(deployment: Deployment, key: str) -> RedisServer:
    """Return the server of a cluster that is the primary of a key."""
    slot = int(str(await deployment.servers[0].command("CLUSTER", "KEYSLOT", key)))
    shards = str(await deployment.servers[0].command("CLUSTER", "NODES"))
    for server, port in zip(deployment.servers, deployment.ports, strict=True):
        line = next(line for line in shards.splitlines() if f"127.0.0.1:{port}@" in line)
        for owned in line.split()[8:]:
            first, _, last = owned.partition("-")
            if int(first) <= slot <= int(last or first):
                return server
    raise AssertionError(shards)


def started(stack: AsyncExitStack, port: int, *options: str) -> RedisServer:
    server = RedisServer(Path(tempfile.mkdtemp(prefix="sr")), "--bind", "127.0.0.1", *options, port=port)
    stack.callback(discard, server)
    server.start()
    return server


async def _until(server: RedisServer, question: str, answer: str) -> None:
    async with asyncio.timeout(60):
        while answer not in str(await server.command(*question.split())):  # noqa: ASYNC110 - a server elsewhere sets no event here
            await asyncio.sleep(0.02)


async def _until_sentinel_knows(sentinel: int, replica: int) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", sentinel)
                writer.write(b"SENTINEL REPLICAS main\r\n")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        known = await reader.read(65536)
                        if f"127.0.0.1:{replica}".encode() in known and b"\r\nok\r\n" in known:
                            writer.close()
                            return
                writer.close()
            await asyncio.sleep(0.05)
