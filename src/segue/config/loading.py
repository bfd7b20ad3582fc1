"""From a file, the environment and the command line to one `Config`.

The file is read as a tree of tables; the environment and then the command line overwrite parts of that tree; only the
result is converted and checked. Errors name the setting as its user wrote it. Not here: what settings there are.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import quote

import msgspec

from segue.config.agent import AgentConfig
from segue.config.certificates import CertificateConfig
from segue.config.compaction import CompactionConfig
from segue.config.config_file import anchored
from segue.config.configuration import Config, check
from segue.config.errors import ConfigError
from segue.config.explanations import explain, explain_value
from segue.config.keys import KeyConfig, sendable_key
from segue.config.limits import LimitsConfig, TenantConfig
from segue.config.server import ListenerConfig, ServerConfig
from segue.config.sidecar import SidecarConfig
from segue.config.ssh import SshConfig
from segue.config.tunnel import RouteConfig, TunnelConfig
from segue.config.upstream import UpstreamConfig

T = TypeVar("T")

_TABLES: Mapping[str, type[msgspec.Struct]] = MappingProxyType(
    {
        "server": ServerConfig,
        "tunnel": TunnelConfig,
        "sidecar": SidecarConfig,
        "ssh": SshConfig,
        "agent": AgentConfig,
        "compaction": CompactionConfig,
        "upstream": UpstreamConfig,
        "route": RouteConfig,
        "listener": ListenerConfig,
        "key": KeyConfig,
        "certificate": CertificateConfig,
        "limits": LimitsConfig,
        "tenant": TenantConfig,
    }
)

#: The tables that exist once; the others are arrays of tables.
_SINGLE = frozenset({"server", "tunnel", "sidecar", "ssh", "agent", "compaction", "limits"})


#: The settings that are paths.
_SIDECAR_PATHS = ("cafile", "cache_dir", "key_file", "client_cert", "client_key")
_SSH_PATHS = ("directory",)
_UPSTREAM_PATHS = ("model_file", "chat_template_file", "kv_directory")
#: Two ways to name the key of `[sidecar]`: what a later source says in one of them replaces the other, too.
_SIDECAR_KEYS = frozenset({"key", "key_file"})
_RELATIVE_STORE = "sqlite:///"


class _Tree(msgspec.Struct):
    """The tables of a configuration before their settings are checked."""

    server: dict[str, Any] = {}
    tunnel: dict[str, Any] = {}
    sidecar: dict[str, Any] = {}
    ssh: dict[str, Any] = {}
    agent: dict[str, Any] = {}
    upstream: list[dict[str, Any]] = []
    route: list[dict[str, Any]] = []
    listener: list[dict[str, Any]] = []
    key: list[dict[str, Any]] = []
    certificate: list[dict[str, Any]] = []
    limits: dict[str, Any] = {}
    tenant: list[dict[str, Any]] = []


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    relative_to: Path | None = None,
    sidecar: Mapping[str, object] | None = None,
    agent: Mapping[str, object] | None = None,
    **server: object,
) -> Config:
    """Read the configuration. `server`, `sidecar` and `agent`: what the command line set there (None means not set).

    Paths in the file are relative to the folder `relative_to`; without one, to the working folder like all others.

    Raises:
        ConfigError: the file cannot be read, or a setting is not allowed.
    """
    tree = {} if path is None else read_tree(path)
    _convert(tree, _Tree, {}, path)  # a tree of another shape could not be overwritten
    if relative_to is not None:
        _anchor_paths(tree, relative_to)
    environ = os.environ if environ is None else environ
    _displace_key(tree, {name for name in _SIDECAR_KEYS if f"SEGUE_SIDECAR_{name.upper()}" in environ})
    for name in sorted(environ, key=_natural_order):
        if name.startswith("SEGUE_"):
            _set_from_environment(tree, name, environ[name])
    for table, overrides in (("server", server), ("sidecar", sidecar or {}), ("agent", agent or {})):
        given = {name: value for name, value in overrides.items() if value is not None}
        if table == "sidecar":
            _displace_key(tree, given.keys())
        if given:
            tree[table] = {**tree.get(table, {}), **given}
    config = _with_keys(_convert(tree, Config, environ, path), {"sidecar": sidecar, "agent": agent}, environ, path)
    check(config)
    return config


def _with_keys(
    config: Config,
    overrides: Mapping[str, Mapping[str, object] | None],
    environ: Mapping[str, str],
    path: Path | None,
) -> Config:
    """Take the keys that are sent as they can be sent; one that cannot be is refused by the name of its source."""

    def clean(table: str, key: str | None) -> str | None:
        variable = f"SEGUE_{table.upper()}_KEY"
        if (overrides[table] or {}).get("key") is not None:
            source = "--key"
        else:
            source = variable if variable in environ else f"[{table}] key of {path}"
        return None if key is None else sendable_key(key, source)

    replace = msgspec.structs.replace
    sidecar = replace(config.sidecar, key=clean("sidecar", config.sidecar.key))
    return replace(config, sidecar=sidecar, agent=replace(config.agent, key=clean("agent", config.agent.key)))


def _displace_key(tree: dict[str, Any], given: Collection[str]) -> None:
    """Take the key that is set so far out of the tree if one is given that wins over it."""
    if _SIDECAR_KEYS & set(given):
        tree["sidecar"] = {name: value for name, value in tree.get("sidecar", {}).items() if name not in _SIDECAR_KEYS}


def read_tree(path: Path) -> dict[str, Any]:
    """Return the tables of a file as they are written there.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _anchor_paths(tree: dict[str, Any], folder: Path) -> None:
    """Make the paths in the tables of a file relative to a folder."""
    for names, tables in (
        (_SIDECAR_PATHS, [tree.get("sidecar", {})]),
        (_SSH_PATHS, [tree.get("ssh", {})]),
        (_UPSTREAM_PATHS, tree.get("upstream", [])),
    ):
        for table in tables:
            paths = {name: table[name] for name in names if isinstance(table.get(name), str)}
            table.update({name: anchored(path, folder) for name, path in paths.items()})
    server = tree.get("server", {})
    store = server.get("store")
    if isinstance(store, str) and store.startswith(_RELATIVE_STORE) and not store.startswith(f"{_RELATIVE_STORE}/"):
        server["store"] = f"{_RELATIVE_STORE}{quote(str(folder))}/{store.removeprefix(_RELATIVE_STORE)}"


def _convert(tree: dict[str, Any], kind: type[T], environ: Mapping[str, str], path: Path | None) -> T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        said = explain(str(error), Config, tree, environ=environ)
        raise ConfigError(said if path is None or said.startswith("SEGUE_") else f"{path}: {said}") from None


# --- the environment -------------------------------------------------------------------------------------------------


#: A setting that nobody reads is refused, so a secret that `secrets_env` or `key_env` names needs another name.
_OF_ANOTHER_USE = "call a variable of another use, such as a secret, by a name without SEGUE_"


def _natural_order(name: str) -> list[str | int]:
    """Sort the variables of row 2 before those of row 10, since rows are appended in this order."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _set_from_environment(tree: dict[str, Any], name: str, value: str) -> None:
    table, _, rest = name.removeprefix("SEGUE_").lower().partition("_")
    if table not in _TABLES or not rest:
        variables = (f"SEGUE_{one.upper()}_{'' if one in _SINGLE else '0_'}…" for one in _TABLES)
        raise ConfigError(f"{name}: no such setting; variables are {', '.join(variables)}; {_OF_ANOTHER_USE}")
    target: dict[str, Any]
    if table in _SINGLE:
        target = tree.setdefault(table, {})
    else:
        index, _, rest = rest.partition("_")
        target = _row(tree.setdefault(table, []), index, name)
    fields = get_type_hints(_TABLES[table])
    if rest not in fields:
        raise ConfigError(f"{name}: no such setting; {table} has {', '.join(fields)}; {_OF_ANOTHER_USE}")
    target[rest] = _parse(value, fields[rest], name)


def _row(rows: list[dict[str, Any]], index: str, name: str) -> dict[str, Any]:
    if not index.isdecimal() or int(index) > len(rows):
        raise ConfigError(f"{name}: the number after the table counts its rows from 0, without a gap")
    if int(index) == len(rows):
        rows.append({})
    return rows[int(index)]


def _parse(value: str, hint: Any, name: str) -> Any:  # noqa: ANN401 - a type hint in, a value of that type out
    if get_origin(hint) is list:
        return [part.strip() for part in value.split(",") if part.strip()]
    if get_origin(hint) is dict or (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
        try:
            return msgspec.json.decode(value, type=hint)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ConfigError(f"{name}: what it holds is not a JSON object") from None
    wanted = hint
    if NoneType in get_args(hint):  # an optional setting: it is left out by not setting its variable
        wanted = next(kind for kind in get_args(hint) if kind is not NoneType)
    try:
        return msgspec.convert(value, wanted, strict=False)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise ConfigError(f"{name}: {explain_value(str(error), wanted)}") from None
