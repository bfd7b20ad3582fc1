"""Three nodes, each a process of `segue serve`, over a PostgreSQL and a Redis of their own, behind a balancer.

Before the balancer is a sidecar for each tenant, a process of `segue sidecar`, and before the database a link. All of
it is real and on this machine: ports are free ones, files are in temporary folders. A process keeps its port when it is
started again, as a machine keeps its address. Not here: the processes themselves (`processes`), what is done to them
when (`disturbances`), and who uses them (`sessions`, `agents`).
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psycopg
from redis.exceptions import RedisError

from segue.testing.link import EmulatedLink, linked
from segue.testing.provider import ScriptedProvider, provided
from tests.faults.cluster.balancer import Balancer, balanced
from tests.faults.cluster.command_forks import CommandStart
from tests.faults.cluster.ledger import Ledger
from tests.faults.cluster.processes import ClusterProcess, CommandForks, ReservedPort, forking
from tests.faults.cluster.provider import AGENTS, LedgerProvider
from tests.faults.cluster.running_turns import RunningTurns
from tests.postgres_server import QUICK, PostgresServer, server_folder
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

TENANTS = ("ada", "bob", "cyd", "dan")
#: Who may have so many turns and requests of agents under way at once, at all nodes together.
LIMITED, MOST_TURNS = "dan", 2
#: For so long after Redis went away or came back a node may not have said there what it has begun.
_UNWRITTEN_S = 4.0
OPERATOR = "sk-operator"
NODES = 3
#: A short lease, so that a run meets many that end; a third of the command's own.
LEASE_S = 3.0
#: Every acknowledged change is in the file before the answer, so that a kill loses none.
_DURABLE = ("--appendonly", "yes", "--appendfsync", "no")
_DATABASE = "postgres"
_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


def key_of(tenant: str) -> str:
    """Return the API key of a tenant."""
    return f"sk-{tenant}"


class Cluster:
    """Everything while it runs."""

    def __init__(
        self, folder: Path, postgres: PostgresServer, redis: RedisServer, forks: CommandForks, lease_s: float | None
    ) -> None:
        self.folder = folder
        self.postgres = postgres
        self.redis = redis
        self.ledger = Ledger(self.place_losses)
        self.nodes = [ClusterProcess(str(number)) for number in range(NODES)]
        self.sidecars = {tenant: ClusterProcess(tenant) for tenant in TENANTS}
        self.live_faults = 0
        """How often Redis went away or came back: what nodes were to write there meanwhile may be there or not."""
        self.data_losses = 0
        """How often Redis lost its data, or was about to: it may be lost in between."""
        self.balancer: Balancer
        self.database: EmulatedLink
        self.provider: ScriptedProvider
        self.model: LedgerProvider
        self._forks = forks
        self._lease_s = lease_s
        self._live_fault_at = float("-inf")

    @property
    def log(self) -> Path:
        """Where all nodes log."""
        return self.folder / "nodes.log"

    @property
    def node_faults(self) -> int:
        """How often a node went away, or came back, or stood still, or went on."""
        return sum(node.faults for node in self.nodes)

    @property
    def all_up(self) -> bool:
        """Whether all nodes run."""
        return all(node.state == "up" for node in self.nodes)

    def place_losses(self) -> int | None:
        """Return how often places may have been lost, in Redis or with the lease of a node; None: just now."""
        unsure = asyncio.get_running_loop().time() < self._live_fault_at + _UNWRITTEN_S
        return None if unsure else self.live_faults + sum(node.stops for node in self.nodes)

    def ports(self) -> list[int]:
        """Return the ports of the nodes that may be asked; those of all if there is none."""
        return [node.port for node in self.nodes if node.state == "up"] or [node.port for node in self.nodes]

    def note_live_fault(self) -> None:
        """Note that Redis goes away, or comes back."""
        self.live_faults += 1
        self._live_fault_at = asyncio.get_running_loop().time()

    async def start_node(self, node: ClusterProcess) -> None:
        """Start a node at its port."""
        arguments = ["serve", "--config", str(self.folder / "segue.toml"), "--port", str(node.port)]
        environment = {"SEGUE_TUNNEL_ADDRESS": node.url}
        await node.start(self._forks, CommandStart(arguments, environment, str(self.log), self._lease_s))

    async def start_sidecar(self, sidecar: ClusterProcess) -> None:
        """Start a sidecar at its port. What it keeps on disk is its own, as on a machine of an agent."""
        gateway = self.balancer.url.replace("http", "ws", 1)
        arguments = ["sidecar", "--gateway", gateway, "--listen", f"127.0.0.1:{sidecar.port}"]
        environment = {"SEGUE_SIDECAR_KEY": key_of(sidecar.name), "SEGUE_SIDECAR_CACHE_DIR": f"bases-{sidecar.name}"}
        await sidecar.start(self._forks, CommandStart(arguments, environment, str(self.log)))

    async def restart_node(self, node: ClusterProcess) -> None:
        """Kill a node, and start it again at once."""
        await node.kill()
        await self.start_node(node)

    async def restart_sidecar(self, sidecar: ClusterProcess) -> None:
        """Kill a sidecar, and start it again at once."""
        await sidecar.kill()
        await self.start_sidecar(sidecar)

    async def end_database_sessions(self) -> None:
        """Let the database end the sessions of all nodes, in whatever they are."""
        url = self.postgres.url(_DATABASE)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute(_END_SESSIONS)

    async def restart_database(self) -> None:
        """Kill the database with all its processes, and start it again."""
        await asyncio.to_thread(self.postgres.stop, signal.SIGKILL)
        await asyncio.to_thread(self.postgres.start)

    async def restart_redis(self, *, with_data: bool) -> None:
        """Kill Redis, and start it again with all that it had, or with nothing."""
        self.note_live_fault()
        self.data_losses += not with_data
        self.redis.kill()
        if not with_data:
            shutil.rmtree(self.redis.socket.parent / "appendonlydir")
        await asyncio.to_thread(self.redis.start)
        self.data_losses += not with_data
        self.note_live_fault()

    async def lease_of(self, node: ClusterProcess) -> str | None:
        """Return the key of the lease of a node; None if it has none, or Redis is away."""
        latest: tuple[float, str] | None = None
        with suppress(RedisError, OSError):
            found = await self.redis.command("KEYS", "segue:{nodes}:lease:*")
            assert isinstance(found, list)
            for key in found:
                lease = await self.redis.command("HMGET", key, "address", "started_at")
                assert isinstance(lease, list)
                if lease[0] == node.url and (latest is None or float(lease[1]) > latest[0]):
                    latest = float(lease[1]), key  # it may have had others, in processes that were killed
        return None if latest is None else latest[1]

    async def has_lease(self, lease: str) -> bool:
        """Tell whether a lease is not over yet, or Redis is away."""
        with suppress(RedisError, OSError):
            return await self.redis.command("EXISTS", lease) == 1
        return True

    def write_config(self) -> None:
        """Write the configuration that all nodes have."""
        keys = "".join(
            f'[[key]]\nname = "{tenant}"\ntenant = "{tenant}"\nsha256 = "{_digest(key_of(tenant))}"\n'
            for tenant in TENANTS
        )
        operator = f'[[key]]\nname = "op"\ntenant = "op"\noperator = true\nsha256 = "{_digest(OPERATOR)}"\n'
        store = f"postgresql://segue@{self.database.host}:{self.database.port}/{_DATABASE}"
        (self.folder / "segue.toml").write_text(
            f'[server]\nstore = "{store}"\nlive = "{self.redis.url()}"\nthreads = "durable"\n'
            f'[[upstream]]\nname = "p"\ndialect = "responses"\nmodels = ["m"]\nbase_url = "{self.provider.url}/v1"\n'
            f'[[route]]\npath = "{AGENTS}"\ntarget = "{self.provider.url}"\n'
            f'[[tenant]]\nname = "{LIMITED}"\nlimits = {{turns = {MOST_TURNS}}}\n' + keys + operator
        )


@asynccontextmanager
async def clustered(folder: Path, seed: int, *, lease_s: float | None = LEASE_S) -> AsyncIterator[Cluster]:
    """Run three nodes and the sidecars around a block; at the end everything is killed."""
    async with AsyncExitStack() as stack:
        forks = await stack.enter_async_context(forking(folder))  # it imports while the servers start
        redis = await asyncio.to_thread(temporary_server, *_DURABLE)
        stack.callback(discard, redis)
        place = stack.enter_context(server_folder())
        port = ReservedPort()
        stack.callback(port.release)
        listening = {"listen_addresses": "127.0.0.1", "port": str(port.number)}
        postgres = PostgresServer(place, {**QUICK, **listening})
        await asyncio.to_thread(postgres.create)
        await asyncio.to_thread(postgres.start)
        stack.callback(postgres.stop, signal.SIGKILL)
        cluster = Cluster(folder, postgres, redis, forks, lease_s)
        cluster.database = await stack.enter_async_context(linked("127.0.0.1", port.number))
        cluster.model = LedgerProvider(cluster.ledger, seed, limited=LIMITED)
        cluster.provider = await stack.enter_async_context(provided(cluster.model.answer))
        running = RunningTurns(cluster.provider, cluster.ledger, most=MOST_TURNS)
        cluster.model.on_limited = running.begin
        await forks.line()
        cluster.balancer = await stack.enter_async_context(balanced(cluster.ports, seed))
        cluster.write_config()
        for process in (*cluster.nodes, *cluster.sidecars.values()):
            stack.callback(process.release)
            stack.push_async_callback(process.kill)
        for node in cluster.nodes:
            await cluster.start_node(node)
        for sidecar in cluster.sidecars.values():
            await cluster.start_sidecar(sidecar)
        yield cluster


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
