"""Streams by ssh: what they carry, how they end, and what is told when there is none."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest

from segue.sidecar import ssh_stream
from segue.sidecar.install_source import InstallSource
from segue.sidecar.ssh_address import SshAddress
from segue.sidecar.ssh_stream import SshFailedError, SshSettings, open_stream, why_unreachable
from tests.sidecar.ssh_machines import ECHO, READY, SshDouble
from tests.terminals import in_terminal, line_of

BOX = SshAddress("box", "me", 2222)
SETTINGS = SshSettings(connect_s=30.0)


async def test_a_stream_carries_bytes_both_ways_and_ends_its_ssh(box: SshDouble) -> None:
    box.install(ECHO)
    loop, data = asyncio.get_running_loop(), os.urandom(300_000)
    stream = await open_stream(BOX, SETTINGS)
    sending = loop.create_task(loop.sock_sendall(stream.socket, data))
    received = b""
    while len(received) < len(data):
        received += await loop.sock_recv(stream.socket, 65536)
    await sending
    assert received == data
    assert "-l me -p 2222 -- box exec sh -c" in box.arguments[0]
    assert len(box.running()) == 1
    await stream.aclose()
    await stream.aclose()  # a second time changes nothing
    assert box.running() == []


@pytest.mark.parametrize(
    ("before", "segue", "reason", "persistent"),
    [
        ("", None, "segue is not installed on box", True),
        ("", "echo oops >&2; exit 2", "too old for ssh:// gateways, or does not run: oops", True),
        ("", "printf '\\nsegue-ssh FAILED no room\\n'; exit 1", "no gateway on box: no room", True),
        ("", "printf 'segue-ssh READY 2 9.9\\n'; exec cat", "box has 9.9", True),
        ("echo 'me@box: Permission denied (publickey).' >&2; exit 255", ECHO, "could not log in to box", True),
        ("echo 'ssh: no route' >&2; exit 255", ECHO, "ssh failed: ssh: no route", False),
        ("echo hello; exec sleep 1000", ECHO, "did not reach box in time", False),
    ],
)
async def test_what_fails_is_told_and_leaves_no_ssh(
    box: SshDouble, before: str, segue: str | None, reason: str, *, persistent: bool
) -> None:
    box.answer(before)
    if segue is not None:
        box.install(segue)
    quick = SshSettings(connect_s=0.2 if "sleep" in before else 30.0)
    failure = await why_unreachable(BOX, quick)
    assert failure is not None
    assert reason in failure.reason
    assert failure.persistent is persistent
    assert box.running() == []


async def test_a_gateway_that_can_be_reached_is_no_failure(box: SshDouble) -> None:
    box.install(f"echo 'Welcome!'; {ECHO}")
    assert await why_unreachable(BOX, SETTINGS) is None
    assert box.running() == []


async def test_once_logged_in_the_far_side_has_time_to_start(box: SshDouble) -> None:
    box.install(f"read line <{box.folder}/go; {ECHO}")
    os.mkfifo(box.folder / "go")
    loop = asyncio.get_running_loop()
    opening = loop.create_task(open_stream(BOX, SshSettings(connect_s=0.3)))
    await asyncio.wait((opening,), timeout=0.4)
    assert not opening.done()
    await asyncio.to_thread((box.folder / "go").write_text, "\n")
    await (await opening).aclose()


async def test_segue_is_fetched_where_it_may_be(box: SshDouble) -> None:
    box.install(f'echo "$*" >"{box.folder}/fetched"; {ECHO}', name="uvx")
    await (await open_stream(BOX, SshSettings(install=InstallSource("segue==1.2.3")))).aclose()
    assert (box.folder / "fetched").read_text() == "--from segue==1.2.3 segue ssh-relay\n"


async def test_an_ssh_that_does_not_end_is_killed(box: SshDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_stream, "_END_S", 0.05)
    box.answer("trap '' TERM; while :; do sleep 1; done")
    assert await why_unreachable(BOX, SshSettings(connect_s=0.2)) is not None
    assert box.running() == []


async def test_whoever_gives_up_while_it_ends_leaves_no_ssh(box: SshDouble) -> None:
    box.answer("trap '' TERM")
    box.install(f"{READY}; while :; do sleep 1; done")  # neither a signal nor the end of its input ends it
    stream = await open_stream(BOX, SETTINGS)
    closing = asyncio.create_task(stream.aclose())
    await asyncio.sleep(0)  # it waits for its ssh
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert box.running() == []


async def test_whoever_gives_up_leaves_no_ssh(box: SshDouble) -> None:
    box.answer("exec sleep 1000")
    opening = asyncio.get_running_loop().create_task(open_stream(BOX, SETTINGS))
    while not box.running():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert box.running() == []


@pytest.mark.parametrize("rounds", range(6))
async def test_whoever_gives_up_at_once_leaves_nothing(box: SshDouble, rounds: int) -> None:
    """At each step of the loop: no process, no socket (pytest fails a test for an open one)."""
    box.answer("exec sleep 1000")
    opening = asyncio.get_running_loop().create_task(open_stream(BOX, SETTINGS))
    for _ in range(rounds):
        await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    gc.collect()
    assert box.running() == []


async def test_without_a_program_ssh_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SshFailedError, match="there is no program ssh here: install the client of OpenSSH"):
        await open_stream(BOX, SETTINGS)
    (tmp_path / "ssh").write_text("")
    (tmp_path / "ssh").chmod(0o755)
    with pytest.raises(SshFailedError, match=r"ssh cannot be run: .*Exec format error"):
        await open_stream(BOX, SETTINGS)


#: Opens a stream as `segue run` does, and says what came of it, and whose the keys of the terminal are then.
OPENER = """
import asyncio, os, sys
from segue.sidecar.foreground import has_terminal
from segue.sidecar.ssh_address import SshAddress
from segue.sidecar.ssh_stream import SshFailedError, SshSettings, open_stream
async def main():
    print("can ask" if has_terminal() else "cannot ask", flush=True)
    stream = None
    try:
        stream = await open_stream(SshAddress("box"), SshSettings(), attended=True)
    except SshFailedError as error:
        print(error.failure.reason, flush=True)
    else:
        print("open", flush=True)
    print("ours" if has_terminal() else "not ours", flush=True)
    sys.stdin.readline()
    if stream is not None:
        await stream.aclose()
asyncio.run(main())
"""
ASKS = 'read answer </dev/tty; [ "$answer" = secret ] || exit 255'


@pytest.mark.parametrize(
    ("keys", "outcome"),
    [
        (b"secret\n", "open"),
        (b"wrong\n", "ssh failed without a word"),
        (b"\x03", "ssh was interrupted before it was connected"),
        (b"\x1a", "ssh was interrupted before it was connected"),  # stopped, so that nobody could answer
    ],
)
async def test_a_person_answers_what_ssh_asks_and_then_has_the_terminal_back(
    box: SshDouble, keys: bytes, outcome: str
) -> None:
    box.answer(ASKS)
    box.install(ECHO)
    async with in_terminal([sys.executable, "-c", OPENER], stdin="terminal") as (process, keyboard):
        assert await line_of(process) == "can ask"
        while not box.processes or os.tcgetpgrp(keyboard) != box.processes[-1]:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        os.write(keyboard, keys)
        assert await line_of(process) == outcome
        assert await line_of(process) == "ours"
        assert len(box.running()) == (outcome == "open")
        os.write(keyboard, b"\n")
        assert await process.wait() == 0
    assert box.running() == []


async def test_without_a_terminal_nobody_is_asked(box: SshDouble) -> None:
    box.install(ECHO)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OPENER),
        start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert printed == b"cannot ask\nopen\nnot ours\n"
    assert process.returncode == 0
