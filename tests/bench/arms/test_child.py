"""A child process serves what it is told to, answers what it has used, and is gone at the end whatever it does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.bench.arms import child
from segue.bench.arms.child import ChildError, launched
from segue.bench.arms.server import BURST, ServerSpec
from segue.bench.gateway import make_create
from segue.bench.meters.websocket_client import connect

SPEC = ServerSpec(kind="bare", deltas=12, delta_bytes=24, stamps=4, pace_s=0.001)

#: Says that it is ready, and does not end with its input.
STUBBORN = """
import signal, sys
print('{"host": "here", "port": 1, "loop": "none"}', flush=True)
sys.stdin.read()
signal.pause()
"""


async def test_usage_grows() -> None:
    async with launched(SPEC) as running:
        socket = await connect(running.host, running.port)
        before = await running.usage()
        await socket.turn(make_create(BURST, "Hello.", None))
        after = await running.settled()
        assert after.cpu_ns > before.cpu_ns
        socket.close()


async def test_a_child_that_does_not_start_is_an_error_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ChildError, match="ended with status 3"):
        async with launched(SPEC, "failing"):
            pass


async def test_a_child_has_the_environment_that_it_is_given_and_a_session_of_its_own(tmp_path: Path) -> None:
    ready = "import json, os; print(json.dumps({'host': os.environ['WHO'], 'port': os.getsid(0), 'loop': ''}))"
    (tmp_path / "telling.py").write_text(ready)
    async with launched(SPEC, "telling", environ={"WHO": "me", "PYTHONPATH": str(tmp_path)}) as running:
        assert running.host == "me"
        assert running.port != os.getsid(0)


async def test_a_child_runs_no_module_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`segue bench run` is started in folders that others have written, such as a cloned repository."""
    modules, cloned = tmp_path / "modules", tmp_path / "cloned"
    for folder, ready in ((modules, "here"), (cloned, "planted")):
        folder.mkdir()
        (folder / "told.py").write_text(f"""ready = '{{"host": "{ready}", "port": 1, "loop": ""}}'""")
    (modules / "telling.py").write_text("import told; print(told.ready)")
    monkeypatch.chdir(cloned)
    async with launched(SPEC, "telling", environ={"PYTHONPATH": str(modules)}) as running:
        assert running.host == "here"


async def test_a_child_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child, "_STOP_S", 0.05)
    async with launched(SPEC, "stubborn") as running:
        assert (running.host, running.port, running.loop) == ("here", 1, "none")
