"""A gateway, a hostile tenant and its neighbours, each in processes of their own; phases with the attack and without.

What counts is what a neighbour feels: how long its turns take beside an attack, and how long without it, in the same
run. Phases alternate, so that whatever else happens to the machine happens to both.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from tests.faults.gateways import READY, ROOT, until
from tests.faults.isolation.hostile_provider import MANNERS
from tests.faults.isolation.neighbours import SAMPLES, Neighbour, Plan, Sample, Way

HOSTILE_KEY = "sk-mallory"
#: What is still under way when an attack ends counts for neither.
SETTLE_S = 1.0
DESCRIPTORS = 1024
#: For what a process has to do before it goes on. Only a failing test waits so long.
PATIENCE_S = 100.0
#: Where logs are: a gateway's go to a pipe. A file on the disk of its store would make it wait until that is written.
_MEMORY = "/dev/shm" if sys.platform == "linux" else None  # noqa: S108 - a folder of its own is made there
#: So often it is looked what the gateway uses: it is busy with a turn at some of them.
_LOOKS = 10
#: So often at most, until it rests. Only a failing test, or a slow machine, looks more than some dozens of times.
_MOST_LOOKS = 1000


class Usage(msgspec.Struct, frozen=True):
    """What the gateway's process uses."""

    resident_bytes: int
    descriptors: int
    tasks: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial has shown. Times in seconds, by way."""

    alone: dict[Way, list[float]]
    attacked: dict[Way, list[float]]
    late: list[float]
    """How late a clock was beside the neighbours while the attack was on: what the machine adds to each turn."""
    faults: list[str]
    before: Usage
    after: Usage
    peak_bytes: int
    hostile_cpu: float
    gateway_cpu: float
    """Shares of one core while the attack was on."""
    ended: bool

    def ratio(self, of: float = 0.99) -> float:
        """By how much the attack makes a turn longer, at this quantile; the worst way."""
        return max(quantile(self.attacked[way], of) / quantile(self.alone[way], of) for way in self.alone)

    def slowdown(self, of: float, noise_s: float) -> float:
        """Return by how much a turn takes longer, in what is more than a stall that the machine itself may cause."""
        return max(
            max(0.0, quantile(self.attacked[way], of) - noise_s) / quantile(self.alone[way], of) for way in self.alone
        )

    def table(self) -> str:
        """Return a line for each way, and one for the gateway."""
        lines = []
        for way, alone in self.alone.items():
            beside = self.attacked[way]
            shown = [f"{quantile(times, of) * 1000:.1f}" for of in (0.5, 0.99) for times in (alone, beside)]
            lines.append(f"{way}: {len(alone)} and {len(beside)} turns; p50 {shown[0]} and {shown[1]} ms, ")
            lines[-1] += f"p99 {shown[2]} and {shown[3]} ms, longest {max(beside) * 1000:.0f} ms"
        shown = [f"{quantile(self.late, of) * 1000:.1f}" for of in (0.5, 0.99)]
        lines += [f"clock: p50 {shown[0]} ms late, p99 {shown[1]} ms"]
        resident = [size >> 20 for size in (self.before.resident_bytes, self.peak_bytes, self.after.resident_bytes)]
        lines += [f"times {self.ratio():.2f} at p99, {self.ratio(0.5):.2f} at p50"]
        lines += [f"{len(self.faults)} faults {self.faults[:3]}", f"MiB before, at most, after: {resident}"]
        lines += [f"cores: gateway {self.gateway_cpu:.2f}, hostile {self.hostile_cpu:.2f}; ended: {self.ended}"]
        lines += [f"{self.before} {self.after}"]
        return "\n".join(lines)


def quantile(times: Sequence[float], of: float) -> float:
    """Return the time within which this share of all was done."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(of * len(ordered)))]


class _Process:
    """A process and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await self._process.stdout.readline()).decode()
        assert line, "it has ended"
        return line

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def stop(self, within_s: float = PATIENCE_S) -> tuple[int | None, bytes]:
        """Ask it to end; return its status and what it said, or None if it does not."""
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                rest, _ = await self._process.communicate()
        except TimeoutError:
            return None, b""
        return self._process.returncode, rest

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def cpu_s(self) -> float:
        """Return the processor time that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


class Trial:
    """All processes while they run, the folder of their logs, and the file in which the samples will be."""

    def __init__(
        self, logs: Path, samples: Path, gateway: _Process, hostile: _Process, neighbours: _Process, url: str
    ) -> None:
        self._logs = logs
        self._samples = samples
        self._gateway = gateway
        self._hostile = hostile
        self._neighbours = neighbours
        self._url = url
        self._pace = 1.0

    async def run(
        self, attacks: Sequence[str], *, rounds: int, alone_s: float, attacked_s: float, pace: float = 1.0
    ) -> Outcome:
        """Alternate phases; end everything and return what was seen."""
        self._pace = pace
        await asyncio.sleep(SETTLE_S)
        before = await self._resting()
        watching = asyncio.create_task(self._peak())
        alone: list[tuple[float, float]] = []
        attacked: list[tuple[float, float]] = []
        cpu = [0.0, 0.0]
        for _ in range(rounds):
            alone.append(await self._phase([], alone_s))
            used = [one.cpu_s() for one in (self._gateway, self._hostile)]
            attacked.append(await self._phase(attacks, attacked_s))
            now = [one.cpu_s() for one in (self._gateway, self._hostile)]
            cpu = [total + after - first for total, after, first in zip(cpu, now, used, strict=True)]
        alone.append(await self._phase([], alone_s))
        peak = await _stopped(watching)
        after = await self._resting(before)
        status, _ = await self._neighbours.stop()
        assert status == 0, "the neighbours failed"
        samples = msgspec.json.decode(self._samples.read_bytes(), type=list[Sample])
        ended, _ = await self._gateway.stop()
        beside, without = _by_way(_within(samples, attacked)), _by_way(_within(samples, alone))
        late = beside.pop("clock")
        del without["clock"]
        return Outcome(
            alone=without,
            attacked=beside,
            late=late,
            faults=[f"{one.way}: {one.fault}" for one in samples if one.fault is not None],
            before=before,
            after=after,
            peak_bytes=peak,
            gateway_cpu=cpu[0] / (rounds * attacked_s),
            hostile_cpu=cpu[1] / (rounds * attacked_s),
            ended=ended == 0,
        )

    async def _phase(self, attacks: Sequence[str], length_s: float) -> tuple[float, float]:
        self._hostile.say(json.dumps([self._url, self._pace, list(attacks)]))
        await self._hostile.line()
        if not attacks:
            await asyncio.sleep(SETTLE_S)
        began = time.monotonic()
        await asyncio.sleep(length_s)
        return began, time.monotonic()

    async def _usage(self) -> Usage:
        return Usage(self._gateway.resident_bytes(), self._gateway.descriptors(), await self._tasks())

    async def _tasks(self) -> int:
        log = self._logs / "gateway.log"
        told = len(log.read_text("utf-8"))
        os.kill(self._gateway.pid, signal.SIGUSR1)
        await until(lambda: "tasks=" in log.read_text("utf-8")[told:])
        return int(re.findall(r"tasks=(\d+)", log.read_text("utf-8")[told:])[-1])

    async def _resting(self, before: Usage | None = None) -> Usage:
        """Return what is used between turns; wait for a while until it is not more than before."""
        least = await self._usage()
        for count in range(_MOST_LOOKS):
            await asyncio.sleep(0.05)
            now = await self._usage()
            pairs = zip(msgspec.structs.astuple(least), msgspec.structs.astuple(now), strict=True)
            least = Usage(*(min(pair) for pair in pairs))
            rests = before is None or (least.descriptors <= before.descriptors and least.tasks <= before.tasks)
            if rests and count > _LOOKS:
                break
        return least

    async def _peak(self) -> int:
        peak = 0
        try:
            while True:
                peak = max(peak, self._gateway.resident_bytes())
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            return peak


async def _stopped(watching: asyncio.Task[int]) -> int:
    watching.cancel()
    return await watching


def _within(samples: Sequence[Sample], phases: Sequence[tuple[float, float]]) -> list[Sample]:
    return [one for one in samples if any(began <= one.due_at < ended for began, ended in phases)]


def _by_way(samples: Sequence[Sample]) -> dict[Way, list[float]]:
    ways: dict[Way, list[float]] = {}
    for one in samples:
        ways.setdefault(one.way, []).append(one.took_s)
    return dict(sorted(ways.items()))


#: Small budgets, so that it shows in the memory of the process if they are not kept.
_BUDGETS = """
[server]
drain_s = 2.0
memory_budget_bytes = 67108864
uploads_bytes = 67108864
events_bytes = 33554432
[tunnel]
away_s = 3.0
uploads_bytes = 67108864
bases_bytes = 16777216
"""


#: A tiny model that takes from the machine what a real one does: one of its two cores, of which the event loop and the
#: neighbours have the other, and a cache of as many cells. To change a sequence takes the longer, the more there are.
_MODEL = """
[[upstream]]
name = "tiny"
dialect = "local"
models = ["tiny"]
threads = 1
kv_bytes = 4194304
"""


def configuration(provider_port: int, neighbours: Sequence[Neighbour], model: Path | None) -> str:
    """Return the configuration of the gateway under attack."""
    own = f"http://127.0.0.1:{provider_port}"
    keys = [HOSTILE_KEY, *(one.key for one in neighbours)]
    parts = [_BUDGETS]
    parts += ['[[route]]\nmount = "/own"\ntarget = "self"\n', f'[[route]]\nmount = "/hole"\ntarget = "{own}/hole"\n']
    parts += [f'[[key]]\nname = "{key}"\ntenant = "{key}"\nsha256 = "{_sha256(key)}"\n' for key in keys]
    parts += [
        f'[[upstream]]\nname = "{name}"\ndialect = "chat"\nbase_url = "{own}/{name}"\nmodels = ["{name}"]\n'
        for name in MANNERS
        if name not in ("hang", "hole")
    ]
    parts.append(
        f'[[upstream]]\nname = "mixed"\ndialect = "chat"\nbase_url = "{own}/mixed"\nmodels = ["hang", "good"]\n'
        "idle_timeout_s = 1.0\nattempts = 1\n"
    )
    if model is not None:
        parts.append(f'{_MODEL}model_file = "{model}"\n')
    return "\n".join(parts)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@asynccontextmanager
async def trial(
    folder: Path, neighbours: Sequence[Neighbour], *, model: Path | None = None, beside_others: bool = False
) -> AsyncIterator[Trial]:
    """Start all processes. `beside_others`: other programs use the machine."""
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory(dir=_MEMORY)))

        async def start(*command: str, log: str) -> _Process:
            kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
            places = {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
            with (logs / log).open("ab") as stderr:
                process = _Process(
                    await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        *command,
                        cwd=folder,
                        env={**kept, **places},
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=stderr,
                        limit=1 << 26,
                    )
                )
            stack.push_async_callback(process.kill)
            return process

        here = "tests.faults.isolation"
        hostile = await start(f"{here}.hostile", HOSTILE_KEY, "equal" if beside_others else "idle", log="hostile.log")
        port = int(await hostile.line())
        config = folder / "segue.toml"
        config.write_text(configuration(port, neighbours, model), "utf-8")
        serve = ("serve", "--config", str(config), "--port", "0")
        gateway = await start(f"{here}.watched_command", str(DESCRIPTORS), *serve, log="gateway.log")
        url = (await gateway.line()).removeprefix(READY).strip()
        plan = msgspec.json.encode(Plan(url, list(neighbours))).decode()
        living = await start(f"{here}.neighbours", plan, log="neighbours.log")
        assert await living.line() == "ready\n"
        yield Trial(logs, folder / SAMPLES, gateway, hostile, living, url)
