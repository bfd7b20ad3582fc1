"""Links by ssh that are cut: the agent sees a pause, the provider one request, and the gateway there outlives it."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.ssh_address import SshAddress
from segue.sidecar.ssh_stream import SshSettings, why_unreachable
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, provided
from tests.faults.ssh_machines import FarMachine, OpenSshMachine, machine_of, without_openssh
from tests.faults.tunnels import body_of
from tests.sidecar.sidecars import Running, post, running
from tests.sidecar.ssh_machines import ECHO

#: Two names of the machine: the `ssh` of each sidecar can be told.
URLS = ("ssh://box", "ssh://other")
SETTINGS = SidecarSettings(
    gateways=(), connector=ConnectorSettings(connect_s=60.0), timeouts=LinkTimeouts(wait_s=60.0, give_up_s=60.0)
)
#: Long enough to be cut in the middle.
UPLOAD = random.Random(1).randbytes(3_000_000)
PIECES = tuple(random.Random(number).randbytes(2000) for number in range(20))
REPLY = b"".join(PIECES)
#: A first reply that the others have nothing in common with: they are not sent as what they have in common.
FIRST_REPLY = random.Random(2).randbytes(2000)

real_ssh = (pytest.mark.deep, without_openssh)


@pytest.fixture(params=[FarMachine, pytest.param(OpenSshMachine, marks=real_ssh)])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FarMachine]:
    """A machine that every `ssh` of this test leads to."""
    with machine_of(request.param, tmp_path) as made:
        yield made


@asynccontextmanager
async def sidecars(machine: FarMachine, provider: ScriptedProvider, count: int = 1) -> AsyncIterator[list[Running]]:
    """Run sidecars of this machine, and wait at the end until the gateway there has ended, since it was idle."""
    machine.install_segue(provider.url, idle_s=1.0)
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(running(url, settings=SETTINGS)) for url in URLS[:count]]
        async with asyncio.timeout(60):
            await asyncio.gather(*(one.linked() for one in made))
        yield made
    assert machine.running() == []
    async with asyncio.timeout(60):
        while machine.listens:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


async def ask(sidecar: Running, body: bytes) -> bytes:
    async with asyncio.timeout(60):
        return body_of(await sidecar.ask(post(body, target="/v1/messages")))


async def cut_while(sidecar: Running, cut: Callable[[], None], reached: Callable[[], bool]) -> None:
    """Cut the link as soon as something is so, and wait until the loss is noticed."""
    while not reached():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    cut()
    await sidecar.unlinked()


def carried(sidecar: Running) -> int:
    return sidecar.sidecar.stats.tunnel_bytes_up + sidecar.sidecar.stats.tunnel_bytes_down


def has_carried(sidecar: Running, goal: int) -> bool:
    return carried(sidecar) >= goal


def resumed(sidecar: Running) -> int:
    return sidecar.sidecar.report().resumes


async def test_cuts_are_pauses_and_two_sidecars_have_one_gateway_that_ends_when_idle(machine: FarMachine) -> None:
    gate = asyncio.Event()

    def script(asked: ReceivedRequest) -> Answer:
        pieces = (FIRST_REPLY,) if asked.body == UPLOAD else PIECES
        return Answer(pieces=pieces, gates={10: gate} if asked.body == b"{}" else {})

    async with provided(script) as provider, sidecars(machine, provider, 2) as (first, second):
        uploading = asyncio.create_task(ask(first, UPLOAD))
        sent = first.sidecar.stats.tunnel_bytes_up
        await cut_while(first, machine.cut, lambda: first.sidecar.stats.tunnel_bytes_up > sent + 200_000)
        assert provider.requests == [], "the upload was not complete"
        assert await uploading == FIRST_REPLY
        replying = asyncio.create_task(ask(first, b"{}"))
        heard = first.sidecar.stats.tunnel_bytes_down
        await cut_while(first, machine.cut, lambda: first.sidecar.stats.tunnel_bytes_down > heard + 5000)
        gate.set()
        assert await replying == REPLY
        assert await ask(second, b"[]") == REPLY
        assert [request.body for request in provider.requests] == [UPLOAD, b"{}", b"[]"]
        assert (resumed(first), resumed(second)) == (2, 0)
    assert machine.log.count("action=listen path=") == 1
    assert "action=end idle=True" in machine.log


@pytest.mark.deep
@without_openssh
@pytest.mark.parametrize("end", ["near", "far"])
async def test_either_end_of_openssh_may_be_killed_at_any_time(end: str, tmp_path: Path) -> None:
    """Again and again, while a body goes up and while a reply comes down."""
    with machine_of(OpenSshMachine, tmp_path) as machine:
        cut = machine.cut if end == "near" else machine.cut_far
        async with (
            provided(lambda _: Answer(pieces=PIECES, pace_s=0.1)) as provider,
            sidecars(machine, provider) as [sidecar],
        ):
            asking = asyncio.create_task(ask(sidecar, UPLOAD))
            for count in range(1, 4):
                await sidecar.linked()
                goal = carried(sidecar) + 4000
                await cut_while(sidecar, cut, partial(has_carried, sidecar, goal))
                await sidecar.linked()
                assert resumed(sidecar) == count
            assert await asking == REPLY
            assert [request.body for request in provider.requests] == [UPLOAD]


@pytest.mark.deep
@without_openssh
async def test_what_openssh_refuses_is_told_with_its_cure(tmp_path: Path) -> None:
    box, settings = SshAddress("box"), SshSettings(connect_s=60.0)
    with machine_of(OpenSshMachine, tmp_path) as machine:
        assert isinstance(machine, OpenSshMachine)

        async def why() -> str:
            failure = await why_unreachable(box, settings)
            return "" if failure is None else failure.reason

        assert "segue is not installed on box" in await why()
        machine.install("echo 'Unknown command ssh-relay' >&2; exit 1")
        assert "too old for ssh:// gateways, or does not run: Unknown command" in await why()
        machine.install(ECHO)
        assert await why() == ""
        machine.make_key("host")
        assert "the host key of box has changed, and ssh refuses it" in await why()
        (tmp_path / "known_hosts").unlink()
        assert "ssh does not know the host key of box" in await why()
        machine.trust()
        (tmp_path / "user.pub").write_text((tmp_path / "host.pub").read_text())
        assert "ssh could not log in to box without a question" in await why()


@pytest.mark.deep
@without_openssh
async def test_an_agent_runs_over_openssh(tmp_path: Path) -> None:
    """As a user calls it. The agent asks once, and the gateway there ends when it is idle."""
    agent = "import os, urllib.request as r; print(r.urlopen(os.environ['ANTHROPIC_BASE_URL'][:-10] + '/v1/x').read())"
    with machine_of(OpenSshMachine, tmp_path) as machine:
        async with provided(lambda _: Answer(pieces=(b"hello",))) as provider:
            machine.install_segue(provider.url, idle_s=1.0)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "segue", "run", "--gateway", "ssh://box", "--no-cache"),
                *("--", sys.executable, "-c", agent),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            printed, told = await process.communicate()
        assert (process.returncode, printed) == (0, b"b'hello'\n"), told.decode()
        assert told.startswith(b"segue: 1 request: ")
        async with asyncio.timeout(60):
            while machine.listens:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
