"""`segue check-config`: says what a configuration means, without opening a store or a port."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.cli.serve import find_config
from segue.config import (
    ChosenFile,
    Config,
    ConfigError,
    UpstreamConfig,
    choose_file,
    compaction_secrets,
    load,
    without_secrets,
)
from segue.dialects.provider_families import ProviderFamily
from segue.gateway.bootstrap import build_router, build_routes, family_of
from segue.http.routes import RouteTable
from segue.stores.live.live_url import check_live_url
from segue.stores.store_url import check_url
from segue.terminal import print_table, terminal


def run_check_config(path: Path | None, *, as_json: bool) -> int:
    """Check and show the configuration; mistakes are raised as `ConfigError`."""
    found = find_config(path)
    config = load(found)
    chosen = choose_file(path)
    if path is None:  # `sidecar` and `run` do not read the file of this folder
        own = load(chosen.path, relative_to=chosen.relative_to)
        config = msgspec.structs.replace(config, sidecar=own.sidecar)
    try:
        check_url(config.server.store)
    except ValueError as error:
        raise ConfigError(f"[server] store: {error}") from error
    try:
        check_live_url(config.server.live)
    except ValueError as error:
        raise ConfigError(f"[server] live: {error}") from error
    models = build_router(config).models()
    routes = build_routes(config)
    compaction_secrets(config.compaction)
    if as_json:
        shown = {
            "file": found and str(found),
            "sidecar_file": chosen.path and str(chosen.path),
            "config": without_secrets(config),
            "models": models,
            "providers": {up.name: family.name for up in config.upstream if (family := _family(up)) is not None},
        }
        print(msgspec.json.encode(shown).decode())
        return 0
    console = terminal()
    _show(console, config, found, models=models, routes=routes)
    _show_sidecar_file(console, chosen)
    return 0


def _show(console: Console, config: Config, found: Path | None, *, models: list[str], routes: RouteTable) -> None:
    console.print(Text.assemble(("ok", "green"), f"  {found or 'defaults and environment'}"))
    known = without_secrets(config)
    for title, settings in (
        ("server", known.server),
        ("tunnel", known.tunnel),
        ("sidecar", known.sidecar),
        ("ssh", known.ssh),
        ("agent", known.agent),
        ("compaction", known.compaction),
    ):
        table = Table("setting", "value", title=title, title_justify="left")
        for name, value in msgspec.structs.asdict(settings).items():
            table.add_row(name, str(value))
        print_table(console, table)
    for listener in config.listener:
        console.print(f"listener {listener.host}:{listener.port}: profile {listener.profile}", soft_wrap=True)
    for route in routes.routes:
        where = route.target if isinstance(route.target, str) else route.target.url
        console.print(
            f"route {route.prefix.decode() or '/'} to {where}{'' if route.strip else ', path kept'}", soft_wrap=True
        )
    for up in config.upstream:
        served = f"models {', '.join(up.models)}{_keeping(up)}{_sharing(up)}"
        console.print(f"upstream {up.name}: {up.dialect}{_where(up)}{_whose(up)}, {served}", soft_wrap=True)
    console.print(f"models: {', '.join(models)}")
    for key in config.key:
        console.print(f"key {key.name}: tenant {key.tenant}", soft_wrap=True)
    for one in config.certificate:
        console.print(f"certificate {one.name}: tenant {one.tenant}", soft_wrap=True)
    if not config.callers:
        whose = "everybody on this machine" if config.server.access == "anyone" else "your own user"
        console.print(f"no keys: {whose} is one tenant, and nobody else is served")


def _show_sidecar_file(console: Console, chosen: ChosenFile) -> None:
    """Say where `segue sidecar` and `segue run` have their settings from."""
    read = ", ".join((str(chosen.path or "defaults and environment"), *chosen.notices))
    console.print(f"settings of segue sidecar and segue run: {read}", soft_wrap=True)


def _where(up: UpstreamConfig) -> str:
    """Say where a provider is, and whose key is sent to it."""
    if up.base_url is None:
        return ""
    over = " over WebSockets" if up.transport == "websocket" else ""
    if up.key_env is not None:
        return f"{over} at {up.base_url} with the key in {up.key_env}"
    whose = "the client's own" if up.pass_key else "no"
    return f"{over} at {up.base_url} with {whose} key"


def _family(up: UpstreamConfig) -> ProviderFamily | None:
    return None if up.base_url is None else family_of(up)


def _whose(up: UpstreamConfig) -> str:
    """Say whose server an upstream is taken for."""
    family = _family(up)
    return "" if family is None else f", provider {family.name}"


def _keeping(up: UpstreamConfig) -> str:
    """Say how the turns of a conversation are kept together."""
    slots = "" if up.slots is None else f", conversations kept in {up.slots} slots"
    return slots if up.affinity_header is None else f"{slots}, conversations named in {up.affinity_header}"


def _sharing(up: UpstreamConfig) -> str:
    """Say which turns an upstream has, if not all that match."""
    share = "backup" if up.backup else f"weight {up.weight}"
    group = "" if up.group is None else f", {share} of the group {up.group}"
    return group if up.tenants == ["*"] else f"{group}, for {', '.join(up.tenants)} only"
