"""`segue sidecar`: runs a sidecar until a signal, and prints its counters at the end."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from segue.cli.loop import run
from segue.cli.start_errors import start_error
from segue.config import (
    Config,
    ConfigError,
    SidecarConfig,
    cache_directory,
    choose_file,
    gateway_proxy,
    key_of_file,
    load,
    user_config_file,
)
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.base_cache import BaseCacheLimits
from segue.sidecar.connector import ConnectorSettings, GatewayRefusedError, GatewayUnreachableError, tunnel_url
from segue.sidecar.dialer import Dialer
from segue.sidecar.foreground import has_terminal
from segue.sidecar.install_source import InstallSource, parse_install_source
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.listener import ListenerLimits
from segue.sidecar.orphaned_exchanges import OrphanLimits
from segue.sidecar.proxy import Proxy, is_proxied, parse_proxy
from segue.sidecar.request_handler import HandlerLimits
from segue.sidecar.ssh_address import is_ssh
from segue.sidecar.tls_sessions import ClientIdentity, verifying_context

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?(?P<port>[0-9]{1,5})")


def run_sidecar(path: Path | None, *, log: str, gateways: Sequence[str], listen: str | None, **options: object) -> int:
    """Run a sidecar until a signal; return the exit status. `options` replace keys of `[sidecar]`, unless None."""
    logging.basicConfig(
        level=log.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    host, port = (None, None) if listen is None else parse_address(listen)
    config, file = load_sidecar(path, gateways=gateways, host=host, port=port, **options)
    if not config.sidecar.gateways:
        where = file or user_config_file() or "a file that --config names"
        raise ConfigError(f"which gateway? Name it with --gateway wss://HOST, or in [sidecar] gateways of {where}")
    settings = settings_of(config.sidecar)
    try:
        return run(_run(settings))
    except (OSError, ValueError, ssl.SSLError) as error:
        raise start_error(error) from error


class LoadedConfig(NamedTuple):
    """A configuration, and the file that it was read from, if any."""

    config: Config
    file: Path | None


def load_sidecar(path: Path | None, *, gateways: Sequence[str] = (), **options: object) -> LoadedConfig:
    """Read the configuration, with the options of the command line in place of its keys (None: not given).

    The file is the one at `path`, else the user's own; a notice on stderr names the one that is not read.
    """
    chosen = choose_file(path)
    for notice in chosen.notices:
        print(f"segue: {notice}", file=sys.stderr)
    try:
        config = load(
            chosen.path, relative_to=chosen.relative_to, sidecar={"gateways": list(gateways) or None, **options}
        )
    except ConfigError as error:
        if path is None and chosen.path is not None and str(chosen.path) not in str(error):  # nobody named it
            raise ConfigError(f"{error} (the configuration is {chosen.path} and the environment)") from None
        raise
    return LoadedConfig(config, chosen.path)


def settings_of(config: SidecarConfig) -> SidecarSettings:
    """Return the settings of a sidecar from the configuration.

    Raises:
        ConfigError: a file of certificates, or of a key, cannot be read. (Later, the error would not name it.)
    """
    if config.cafile is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=config.cafile)
        except OSError as error:
            reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(f"cannot start: the certificates {config.cafile} cannot be read: {reason}") from None
    identity = _identity_of(config)
    connector = ConnectorSettings(
        key=config.key if config.key_file is None else key_of_file(config.key_file),
        cafile=config.cafile,
        identity=identity,
        proxy=proxy_of(config),
        connect_s=config.connect_timeout_s,
        install=install_of(config),
    )
    return SidecarSettings(
        gateways=tuple(config.gateways),
        host=config.host,
        port=config.port,
        hosts=tuple(config.hosts),
        origins=tuple(config.origins),
        access=config.access,
        token=config.token,
        direct=config.direct,
        cache_directory=cache_directory(config),
        connector=connector,
        timeouts=LinkTimeouts(wait_s=config.patience_s, give_up_s=config.give_up_s),
        listener=ListenerLimits(
            max_body_bytes=config.max_body_bytes,
            max_message_bytes=config.max_body_bytes,
            max_held_bytes=config.max_held_bytes,
            max_connections=config.max_connections,
        ),
        handler=HandlerLimits(max_message_bytes=config.max_body_bytes, orphans=OrphanLimits(keep_s=config.park_s)),
        cache=BaseCacheLimits(memory_bytes=config.memory_bytes, disk_bytes=config.disk_bytes),
    )


def install_of(config: SidecarConfig) -> InstallSource | None:
    """Return what may be fetched on a machine that has no segue.

    Raises:
        ConfigError: it is not said exactly, or only an index is named.
    """
    if config.install is None:
        if config.install_index is not None:
            raise ConfigError("install_index: it says where from, and [sidecar] install (--install) must say what")
        return None
    try:
        return parse_install_source(config.install, config.install_index)
    except ValueError as error:
        raise ConfigError(f"[sidecar] install (--install): {error}") from None


def _identity_of(config: SidecarConfig) -> ClientIdentity | None:
    """Return the certificate to show to gateways, once it has been tried."""
    if config.client_cert is None or config.client_key is None:
        return None
    identity = ClientIdentity(config.client_cert, config.client_key)
    try:
        verifying_context(config.cafile, identity)
    except (OSError, ValueError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = "they are no certificate with its key" if isinstance(error, ssl.SSLError) else error.strerror or ""
        raise ConfigError(f"cannot use {identity.certificate} and {identity.key}: {reason}") from None
    return identity


def proxy_of(config: SidecarConfig) -> Proxy | None:
    """Return the proxy on the way to the gateways.

    Raises:
        ConfigError: one of them would be reached by a proxy that cannot be used, or the setting is wrong.
    """
    chosen = gateway_proxy(config)
    if chosen is None:
        return None
    try:
        return parse_proxy(chosen.address, chosen.no_proxy)
    except ValueError as error:
        if config.proxy is None and not any(_needs_proxy(gateway, chosen.no_proxy) for gateway in config.gateways):
            return None
        raise ConfigError(
            f"{chosen.source}: {error}; [sidecar] proxy (SEGUE_SIDECAR_PROXY) sets another, and none if it is empty"
        ) from None


def _needs_proxy(gateway: str, no_proxy: str) -> bool:
    try:
        return is_proxied(tunnel_url(gateway), no_proxy)
    except ValueError:  # the sidecar refuses the address when it starts
        return False


def parse_address(text: str) -> tuple[str | None, int]:
    """Return the host and port of HOST:PORT, or of a port alone (None: no host).

    Raises:
        ConfigError: it is neither.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text!r} is not an address to listen on, such as 127.0.0.1:4748")
    return (found["host"] or "").strip("[]") or None, int(found["port"])


async def prepared_dialer(settings: SidecarSettings, *, must_be_possible: bool = True) -> Dialer:
    """Return what opens links. To a machine of ssh:// it has connected: its user can still answer what ssh asks.

    Raises:
        ConfigError: `must_be_possible`, and only a person can mend what is wrong with the only gateway.
    """
    dialer = Dialer(settings.connector)
    first = settings.gateways[0]
    try:
        await dialer.prepare(first, attended=has_terminal())
    except GatewayRefusedError as error:
        if must_be_possible and len(settings.gateways) == 1 and not settings.direct:
            raise ConfigError(f"{first}: {error}") from None
        print(f"segue: {first}: {error}", file=sys.stderr)
    except GatewayUnreachableError as error:
        print(f"segue: {first}: {error}; it is tried again", file=sys.stderr)
    return dialer


def about_token(sidecar: Sidecar) -> str:
    """Return what agents have to be told; a token that nobody knows is shown, but not to a log.

    Raises:
        ConfigError: nobody would know the token.
    """
    why = "" if sidecar.settings.access == "token" else "this platform does not tell whose a connection is, so "
    if not sidecar.access.has_drawn:
        return f"{why}base URLs begin with {sidecar.url}/TOKEN, with the token in [sidecar] token"
    if not sys.stderr.isatty():
        raise ConfigError(f"{why}a token is needed: set SEGUE_SIDECAR_TOKEN or [sidecar] token, at least 16 letters")
    return f"{why}base URLs begin with {sidecar.agent_url} until this sidecar ends; [sidecar] token sets a lasting one"


async def _run(settings: SidecarSettings) -> int:
    # Without a terminal, as a service, it begins like any other sidecar, and looks for its gateway until it is there.
    needs_person = is_ssh(settings.gateways[0]) and has_terminal()
    dialer = await prepared_dialer(settings) if needs_person else None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Sidecar(settings, dialer=dialer) as sidecar:
        print(f"segue: sidecar listening on {sidecar.url}", flush=True)
        if sidecar.access.needs_token:
            print(f"segue: {about_token(sidecar)}", file=sys.stderr, flush=True)
        await stop.wait()
        report = sidecar.report()
    print(msgspec.json.encode(report).decode(), flush=True)
    return 0
