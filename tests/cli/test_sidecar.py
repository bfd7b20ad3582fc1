"""`segue sidecar` as a user calls it."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from segue.cli.sidecar import about_token, load_sidecar, parse_address, proxy_of, settings_of
from segue.cli.stats_view import fetch
from segue.config import ConfigError, SidecarConfig
from segue.peer_credentials.lookup import PeerUsers
from segue.sidecar import app as sidecar_app
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.tls_sessions import ClientIdentity
from tests.cli.conftest import Command, own_file
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.proxies import connect_proxy
from tests.sidecar.sidecars import running


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a test goes into the user's cache directory, or comes from the user's own file."""
    monkeypatch.setenv("SEGUE_SIDECAR_CACHE", "false")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


async def started(folder: Path, *arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start a sidecar, and return it and the line that says that it is ready."""
    command = [sys.executable, "-m", "segue", "sidecar", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    return process, (await process.stdout.readline()).decode()


async def test_it_says_where_it_listens_and_at_the_end_what_it_counted(tmp_path: Path) -> None:
    async with fake_gateway() as gateway:
        process, ready = await started(
            tmp_path, "--gateway", gateway.url, "--listen", "127.0.0.1:0", "--key", "secret", "--no-cache"
        )
        assert ready.startswith("segue: sidecar listening on http://127.0.0.1:")
        address = ready.rpartition("//")[2].strip()
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"GET /anthropic/v1/models?key=hidden HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        shown = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "segue", "sidecar", "--stats", "--listen", address),
            stdout=asyncio.subprocess.PIPE,
        )
        picture, _ = await shown.communicate()
        process.send_signal(signal.SIGTERM)
        printed, logged = await process.communicate()
    assert process.returncode == 0
    told = json.loads(printed)
    assert (told["exchanges"], told["links"], told["link"]) == (1, 1, "up")
    assert gateway.upgrades[0]["authorization"] == "Bearer secret"
    assert "/anthropic/v1/models" in picture.decode()
    assert b"path=/anthropic/v1/models status=200 outcome=completed" in logged
    for secret in (b"secret", b"hidden"):
        assert secret not in printed + logged


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which gateway?"),
        ((), "config/segue/segue.toml"),
        (("--gateway", "example.com"), "not the address of a gateway"),
        (("--gateway", "ws://127.0.0.1:1", "--listen", "nowhere"), "not an address to listen on"),
        (("--gateway", "wss://a", "--cafile", "no.pem"), "cannot start"),
        (("--stats", "--listen", "127.0.0.1:1"), "no sidecar answers at 127.0.0.1:1: it refuses connections"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], said: str, command: Command) -> None:
    status, printed, told = command("sidecar", *arguments)
    assert (status, printed) == (2, "")
    assert told.startswith("segue: ")
    assert said in told
    assert "Traceback" not in told


async def test_the_users_own_file_names_the_gateway_and_paths_beside_it(tmp_path: Path) -> None:
    """The file of the working folder names others, and is not read."""
    folder = tmp_path / "cloned"
    folder.mkdir()
    async with fake_gateway() as mine, fake_gateway() as evil:
        own_file(tmp_path, f'[sidecar]\ngateways = ["{mine.url}"]\nport = 0\ncache_dir = "kept"\n')
        (folder / "segue.toml").write_text(f'[sidecar]\ngateways = ["{evil.url}"]\nhosts = ["evil.example"]\n')
        process, ready = await started(folder, "--cache")
        reader, writer = await asyncio.open_connection(*ready.rpartition("//")[2].strip().split(":"))
        body = b"x" * 5000
        writer.write(b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        process.send_signal(signal.SIGTERM)
        _, logged = await process.communicate()
        assert (len(mine.upgrades), len(evil.upgrades)) == (1, 0)
    notice = b"segue: segue.toml in this folder is not read; use --config segue.toml if you trust it\n"
    assert logged.count(notice) == 1
    assert [path.name for path in folder.iterdir()] == ["segue.toml"]
    assert (tmp_path / "config" / "segue" / "kept").is_dir()


def test_a_mistake_in_the_users_own_file_names_it(command: Command, tmp_path: Path) -> None:
    own = own_file(tmp_path, '[sidecar]\ngateway = "wss://g"\n')
    status, _, told = command("sidecar")
    assert status == 2
    assert told == f"segue: {own}: [sidecar]: unknown key 'gateway'; did you mean gateways?\n"
    (tmp_path / "mine.toml").write_text(own.read_text())
    status, _, told = command("sidecar", "--config", "mine.toml")
    assert (status, str(own) in told) == (2, False)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:4748", ("::1", 4748)),
        ("4748", (None, 4748)),
        (":4748", (None, 4748)),
    ],
)
def test_an_address_is_a_host_and_a_port_or_a_port(text: str, address: tuple[str | None, int]) -> None:
    assert parse_address(text) == address


async def test_the_view_is_told_what_a_sidecar_has_counted() -> None:
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        await sidecar.post(b"{}")
        host, _, port = sidecar.sidecar.url.rpartition("//")[2].partition(":")
        report = await asyncio.to_thread(fetch, host, int(port))
    assert (report.exchanges, report.queued, report.link) == (1, 0, "up")


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_proxies")
async def test_the_proxy_of_the_environment_is_asked_for_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect_proxy(1) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://alice:hunter2@127.0.0.1:{proxy.port}")
        process, _ = await started(tmp_path, "--gateway", "wss://gateway.invalid", "--listen", "0")
        async with asyncio.timeout(60):
            while not proxy.asked:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        process.terminate()
        _, told = await process.communicate()
    assert proxy.asked[0].startswith(b"CONNECT gateway.invalid:443 ")
    assert b"hunter2" not in told


SOCKS = "socks5://alice:hunter2@proxy:1080"


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize("gateway", ["ws://gateway.invalid", "wss://here.invalid", "ftp://no"])
def test_a_proxy_of_the_environment_that_is_not_needed_need_not_be_usable(
    monkeypatch: pytest.MonkeyPatch, gateway: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", SOCKS)
    monkeypatch.setenv("NO_PROXY", "here.invalid")
    assert proxy_of(SidecarConfig(gateways=[gateway])) is None


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize(
    ("config", "source"),
    [
        (SidecarConfig(gateways=["wss://gateway.invalid"]), "ALL_PROXY"),
        (SidecarConfig(gateways=["ws://gateway.invalid"], proxy=SOCKS), r"\[sidecar\] proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_the_name_of_its_source(
    monkeypatch: pytest.MonkeyPatch, config: SidecarConfig, source: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", SOCKS)
    with pytest.raises(ConfigError, match=f"^{source}: only an HTTP proxy can be used") as caught:
        proxy_of(config)
    assert "hunter2" not in str(caught.value)
    assert proxy_of(SidecarConfig(gateways=["wss://gateway.invalid"], proxy="")) is None


def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    assert settings_of(SidecarConfig(key_file=str(tmp_path / "key"))).connector.key == "sk-1"
    with pytest.raises(ConfigError, match="cannot read the key file"):
        settings_of(SidecarConfig(key_file=str(tmp_path / "none")))


TOKEN = "a-token-of-sixteen"


def test_who_may_use_it_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert (settings_of(load_sidecar(None).config.sidecar).access, settings_of(SidecarConfig()).token) == ("user", None)
    monkeypatch.setenv("SEGUE_SIDECAR_ACCESS", "token")
    monkeypatch.setenv("SEGUE_SIDECAR_TOKEN", TOKEN)
    settings = settings_of(load_sidecar(None).config.sidecar)
    assert (settings.access, settings.token) == ("token", TOKEN)
    assert settings_of(load_sidecar(None, access="anyone").config.sidecar).access == "anyone"
    for bad in ("short", "with/slash/in/the/middle", "x" * 200):
        monkeypatch.setenv("SEGUE_SIDECAR_TOKEN", bad)
        with pytest.raises(ConfigError) as caught:
            load_sidecar(None)
        assert bad not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "terminal", "said"),
    [
        (
            SidecarSettings(gateways=("ws://g",), access="token", token=TOKEN),
            False,
            "base URLs begin with /TOKEN, with the",
        ),
        (SidecarSettings(gateways=("ws://g",), access="token"), True, "until this sidecar ends"),
        (
            SidecarSettings(gateways=("ws://g",)),
            True,
            "this platform does not tell whose a connection is, so base URLs",
        ),
    ],
)
def test_agents_that_need_a_token_are_announced(
    settings: SidecarSettings, terminal: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar_app, "peer_users", lambda: PeerUsers(()))
    monkeypatch.setattr("sys.stderr", type("Screen", (io.StringIO,), {"isatty": lambda _: terminal})())
    sidecar = Sidecar(settings)
    assert said in about_token(sidecar)
    assert (str(sidecar.access.token) in about_token(sidecar)) is terminal


def test_a_token_that_nobody_would_know_is_not_drawn_for_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with pytest.raises(ConfigError, match="set SEGUE_SIDECAR_TOKEN"):
        about_token(Sidecar(SidecarSettings(gateways=("ws://g",), access="token")))


async def test_the_counters_are_shown_by_the_token_of_the_settings() -> None:
    settings = SidecarSettings(gateways=("ws://g",), access="token", token=TOKEN)
    async with running("ws://127.0.0.1:1", settings=settings) as sidecar:
        port = int(sidecar.sidecar.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match="to its own user only"):
            await asyncio.to_thread(fetch, "127.0.0.1", port)
        assert (await asyncio.to_thread(fetch, "127.0.0.1", port, TOKEN)).exchanges == 0


def test_a_certificate_to_show_is_tried_at_the_start(tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("build.example")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    good = settings_of(SidecarConfig(client_cert=str(certificate), client_key=str(key))).connector.identity
    assert good == ClientIdentity(str(certificate), str(key))
    assert settings_of(SidecarConfig()).connector.identity is None
    pair = SidecarConfig(client_cert=str(certificate), client_key=str(certificate))
    with pytest.raises(ConfigError, match="they are no certificate with its key"):
        settings_of(pair)
    with pytest.raises(ConfigError, match=r"cannot use .*none.pem and .*k.pem: No such file or directory"):
        settings_of(SidecarConfig(client_cert=str(tmp_path / "none.pem"), client_key=str(key)))
    encrypted = serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    key.write_bytes(encrypted)
    with pytest.raises(ConfigError, match="the key has a password"):
        settings_of(SidecarConfig(client_cert=str(certificate), client_key=str(key)))
