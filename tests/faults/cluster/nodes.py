"""Three nodes, each a process of `segue serve`, over a PostgreSQL and a Redis of their own, behind a balancer.

All of it is real and on this machine: ports are free ones, files are in temporary folders. A node keeps its port when
it is started again, as a machine keeps its address. Not here: what is done to them when (`disturbances`), and who uses
them (`sessions`, `agents`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
import psycopg

from segue.testing.provider import ScriptedProvider, provided
from tests.faults.cluster.balancer import Balancer, balanced
from tests.faults.cluster.ledger import Ledger
from tests.faults.cluster.node_forks import NodeStart
from tests.faults.cluster.provider import AGENTS, LedgerProvider
from tests.faults.gateways import PATIENCE_S, READY, ROOT, until
from tests.postgres_server import PostgresServer, server_folder
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

TENANTS = ("ada", "bob", "cyd")
OPERATOR = "sk-operator"
NODES = 3
#: A short lease, so that a run meets many that end; a third of the command's own.
LEASE_S = 3.0
#: Every acknowledged change is in the file before the answer, so that a kill loses none.
_DURABLE = ("--appendonly", "yes", "--appendfsync", "no")
_DATABASE = "postgres"
#: How often it is looked whether a node that is not ready yet is still there.
_LOOK_S = 0.5
_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


def key_of(tenant: str) -> str:
    """Return the API key of a tenant."""
    return f"sk-{tenant}"


class NodeForks:
    """The process that starts nodes (`node_forks`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._starting = asyncio.Lock()

    async def start(self, node: NodeStart) -> int:
        """Start a node, and wait until it is ready; return its process id.

        One that could not start, since Redis did not answer it in time, is started again, as a supervisor does it.
        """
        assert self._process.stdin is not None
        async with self._starting:
            while True:
                self._process.stdin.write(msgspec.json.encode(node) + b"\n")
                pid = int((await self.line()).removeprefix("forked "))
                while Path(f"/proc/{pid}").exists():  # noqa: ASYNC240 - it is no file of a disk
                    with suppress(TimeoutError):
                        line = await self.line(_LOOK_S)
                        assert line.startswith(READY), f"{line}: see {node.log}"
                        return pid

    async def line(self, patience_s: float = 2 * PATIENCE_S) -> str:
        """Return the next line that it or a node prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(patience_s):
            return (await self._process.stdout.readline()).decode().strip()


class ClusterNode:
    """One node at its port, in whichever process it is."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.state: Literal["up", "down", "paused"] = "down"
        self.pid = 0
        self._reserved = socket.socket()  # others are not given the port while the node is away
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = int(self._reserved.getsockname()[1])

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.port}"

    async def kill(self) -> None:
        """End it at once, without a word."""
        self.state = "down"
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            await until(lambda: not Path(f"/proc/{self.pid}").exists())

    def pause(self) -> None:
        """Let it stand still. It keeps its connections, and its kernel goes on to accept new ones."""
        self.state = "paused"
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on as if nothing had been."""
        os.kill(self.pid, signal.SIGCONT)
        self.state = "up"

    def release(self) -> None:
        """Give the port back."""
        self._reserved.close()


class Cluster:
    """Everything while it runs."""

    def __init__(
        self, folder: Path, postgres: PostgresServer, redis: RedisServer, forks: NodeForks, lease_s: float | None
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.redis = redis
        self.ledger = Ledger()
        self.nodes = [ClusterNode(slot) for slot in range(NODES)]
        self.live_faults = 0
        """How often Redis went away or came back: what nodes were to write there meanwhile may be there or not."""
        self.node_faults = 0
        """How often a node went away, or came back, or stood still, or went on."""
        self.balancer: Balancer
        self.provider: ScriptedProvider
        self.model: LedgerProvider
        self._forks = forks
        self._lease_s = lease_s

    @property
    def log(self) -> Path:
        """Where all nodes log."""
        return self.folder / "nodes.log"

    def ports(self) -> list[int]:
        """Return the ports of the nodes that may be asked; those of all if there is none."""
        return [node.port for node in self.nodes if node.state == "up"] or [node.port for node in self.nodes]

    async def start_node(self, node: ClusterNode) -> None:
        """Start a node at its port."""
        arguments = ["serve", "--config", str(self.folder / "segue.toml"), "--port", str(node.port)]
        environment = {"SEGUE_TUNNEL_ADDRESS": node.url}
        node.pid = await self._forks.start(NodeStart(arguments, environment, str(self.log), self._lease_s))
        node.state = "up"

    async def restart_node(self, node: ClusterNode) -> None:
        """Kill a node, and start it again at once."""
        self.node_faults += 1
        await node.kill()
        await self.start_node(node)
        self.node_faults += 1

    def pause_node(self, node: ClusterNode) -> None:
        """Let a node stand still, also if somebody else has let it go on."""
        self.node_faults += 1
        node.pause()

    def resume_node(self, node: ClusterNode) -> None:
        """Let a node go on as if nothing had been."""
        node.resume()
        self.node_faults += 1

    async def cut_database(self) -> None:
        """End all connections of all nodes to the database, in whatever they are."""
        url = self.postgres.url(_DATABASE)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )

    async def restart_database(self) -> None:
        """Kill the database with all its processes, and start it again."""
        await asyncio.to_thread(self.postgres.stop, signal.SIGKILL)
        await asyncio.to_thread(self.postgres.start)

    async def restart_redis(self, *, with_data: bool) -> None:
        """Kill Redis, and start it again with all that it had, or with nothing."""
        self.live_faults += 1
        self.redis.kill()
        if not with_data:
            shutil.rmtree(self.redis.socket.parent / "appendonlydir")
        await asyncio.to_thread(self.redis.start)
        self.live_faults += 1

    async def leases(self) -> list[str]:
        """Return the keys of the leases that nodes have."""
        found = await self.redis.command("KEYS", "segue:{nodes}:lease:*")
        assert isinstance(found, list)
        return found

    def write_config(self) -> None:
        """Write the configuration that all nodes have."""
        keys = "".join(
            f'[[key]]\nname = "{tenant}"\ntenant = "{tenant}"\nsha256 = "{_digest(key_of(tenant))}"\n'
            for tenant in TENANTS
        )
        operator = f'[[key]]\nname = "op"\ntenant = "op"\noperator = true\nsha256 = "{_digest(OPERATOR)}"\n'
        (self.folder / "segue.toml").write_text(
            f'[server]\nstore = "{self.postgres.url(_DATABASE)}"\nlive = "{self.redis.url()}"\n'
            f'[[upstream]]\nname = "p"\ndialect = "responses"\nmodels = ["m"]\nbase_url = "{self.provider.url}/v1"\n'
            f'[[route]]\npath = "{AGENTS}"\ntarget = "{self.provider.url}"\n' + keys + operator
        )


@asynccontextmanager
async def clustered(folder: Path, seed: int, *, lease_s: float | None = LEASE_S) -> AsyncIterator[Cluster]:
    """Run three nodes around a block; at the end everything is killed."""
    async with AsyncExitStack() as stack:
        forks = await stack.enter_async_context(_forking(folder))  # it imports while the servers start
        redis = await asyncio.to_thread(temporary_server, *_DURABLE)
        stack.callback(discard, redis)
        place = stack.enter_context(server_folder())
        postgres = PostgresServer(place)
        await asyncio.to_thread(postgres.create)
        await asyncio.to_thread(postgres.start)
        stack.callback(postgres.stop, signal.SIGKILL)
        cluster = Cluster(folder, postgres, redis, forks, lease_s)
        cluster.model = LedgerProvider(cluster.ledger, seed)
        cluster.provider = await stack.enter_async_context(provided(cluster.model.answer))
        await forks.line()
        cluster.balancer = await stack.enter_async_context(balanced(cluster.ports, seed))
        cluster.write_config()
        for node in cluster.nodes:
            stack.callback(node.release)
            stack.push_async_callback(node.kill)
            await cluster.start_node(node)
        yield cluster


@asynccontextmanager
async def _forking(folder: Path) -> AsyncIterator[NodeForks]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.cluster.node_forks"),
        env={**kept, "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield NodeForks(process)
    finally:
        if process.returncode is None and process.stdin is not None:
            process.stdin.close()
        await process.communicate()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
