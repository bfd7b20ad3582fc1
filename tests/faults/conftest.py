"""What fault tests share."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest

from tests.faults.cluster.findings import FINDINGS, told
from tests.heard_tunnels import heard_tunnels

__all__ = ["heard_tunnels"]


@pytest.fixture
async def plain_loop() -> None:
    """Run without the loop's debug mode, which makes ten thousands of frames slow."""
    asyncio.get_running_loop().set_debug(False)


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every wait between the attempts of a turn end at once.

    Only the client's own waits: heartbeats and servers that never wait would keep the processor busy for nothing.
    """
    hurried = ModuleType("asyncio")
    vars(hurried).update(vars(asyncio))
    vars(hurried)["sleep"] = lambda _: asyncio.sleep(0)
    monkeypatch.setattr("segue.client.turn.asyncio", hurried)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the kill tests have seen, each and all together."""
    found = {
        report.nodeid.rpartition("::")[2]: value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == FINDINGS
    }
    for line in told(found):
        terminalreporter.write_line(line)
