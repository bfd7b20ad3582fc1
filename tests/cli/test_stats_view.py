"""`segue sidecar --stats` draws what a running sidecar has counted, until that sidecar ends."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from segue.cli import stats_view
from segue.cli.stats_view import run_stats
from segue.config import ConfigError
from segue.sidecar.app import SidecarSettings
from segue.sidecar.stats import SidecarReport
from tests.cli.conftest import own_file
from tests.sidecar.sidecars import running
from tests.terminals import terminal_of


class Sidecar:
    """Answers with one more exchange each time, three times; then it has ended."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def fetch(self, host: str, port: int, token: str | None) -> SidecarReport:
        assert token is None
        self.asked.append((host, port))
        if len(self.asked) > 3:
            raise ConfigError("no sidecar answers")
        return SidecarReport(
            exchanges=len(self.asked),
            agent_bytes_in=1000,
            parked=0,
            link="up",
            gateway="wss://g",
            rtt_s=None,
            recent=[],
        )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; the user's own file is below it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.mark.parametrize("terminal", [False, True])
def test_on_a_terminal_the_picture_follows_the_sidecar_and_elsewhere_it_is_shown_once(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar, shown, slept = Sidecar(), io.StringIO(), list[float]()
    console = terminal_of(file=shown, force_terminal=terminal, width=100, color_system=None)
    monkeypatch.setattr(stats_view, "fetch", sidecar.fetch)
    monkeypatch.setattr(stats_view, "terminal", lambda: console)
    monkeypatch.setattr("time.sleep", slept.append)
    assert run_stats(None, "127.0.0.1:9") == 0
    assert sidecar.asked == [("127.0.0.1", 9)] * (4 if terminal else 1)
    assert len(slept) == (3 if terminal else 0)
    assert "1 request: " in shown.getvalue()
    assert ("3 requests: " in shown.getvalue()) == terminal


def test_the_address_is_that_of_the_configuration_unless_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = Sidecar()
    monkeypatch.setenv("SEGUE_SIDECAR_PORT", "4999")
    monkeypatch.setattr(stats_view, "fetch", sidecar.fetch)
    monkeypatch.setattr(stats_view, "terminal", lambda: terminal_of(file=io.StringIO()))
    assert [run_stats(None, None), run_stats(None, "5000"), run_stats(None, "[::1]:1")] == [0, 0, 0]
    assert sidecar.asked == [("127.0.0.1", 4999), ("127.0.0.1", 5000), ("::1", 1)]


def test_the_configuration_is_the_users_own_and_not_the_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar = Sidecar()
    monkeypatch.setattr(stats_view, "fetch", sidecar.fetch)
    monkeypatch.setattr(stats_view, "terminal", lambda: terminal_of(file=io.StringIO()))
    (folder / "segue.toml").write_text('[sidecar]\nhost = "127.0.0.2"\nport = 1\n')
    own_file(folder, "[sidecar]\nport = 5001\n")
    assert run_stats(None, None) == 0
    assert "segue.toml in this folder is not read" in capsys.readouterr().err
    assert run_stats(folder / "segue.toml", None) == 0
    assert capsys.readouterr().err == ""
    assert sidecar.asked == [("127.0.0.1", 5001), ("127.0.0.2", 1)]


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3")])  # noqa: S104 - not listened on
def test_a_sidecar_that_listens_everywhere_is_asked_by_loopback(
    host: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = Sidecar()
    monkeypatch.setenv("SEGUE_SIDECAR_HOST", host)
    monkeypatch.setattr(stats_view, "fetch", sidecar.fetch)
    monkeypatch.setattr(stats_view, "terminal", lambda: terminal_of(file=io.StringIO()))
    run_stats(None, None)
    assert sidecar.asked == [(asked, 4748)]


async def test_a_sidecar_that_others_are_led_to_says_that_it_shows_nothing() -> None:
    settings = SidecarSettings(gateways=(), hosts=("agents.example",))
    async with running("ws://127.0.0.1:1", settings=settings) as sidecar:
        address = urlsplit(sidecar.sidecar.url)
        assert address.hostname is not None
        assert address.port is not None
        with pytest.raises(ConfigError, match="to nobody if it has hosts"):
            await asyncio.to_thread(stats_view.fetch, address.hostname, address.port)
