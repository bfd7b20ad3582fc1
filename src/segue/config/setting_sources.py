"""Where each setting of a configuration came from: the file, a variable, or its default.

Values are as they may be shown. Not here: reading the settings (`loading`), which this follows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from segue.config.configuration import Config, without_secrets
from segue.config.environment import agent_proxy, gateway_proxy
from segue.config.loading import read_tree

SettingSource = Literal["default", "file", "environment"]


class SourcedSetting(msgspec.Struct, frozen=True):
    """A setting, and where its value came from. `where`: the file, or the name of the variable."""

    name: str
    value: Any
    source: SettingSource
    where: str = ""


def sourced_settings(
    config: Config, path: Path | None, environ: Mapping[str, str] | None = None
) -> list[SourcedSetting]:
    """Return every setting of the tables that exist once, and what is set of the rows of the others.

    `config` is what `load` made of this file and environment.
    """
    environ = os.environ if environ is None else environ
    tree = {} if path is None else read_tree(path)
    where = "" if path is None else str(path)
    settings: list[SourcedSetting] = []
    for table, value in msgspec.structs.asdict(without_secrets(config)).items():
        if isinstance(value, list):
            rows: Sequence[Mapping[str, Any]] = tree.get(table, [])
            for number, row in enumerate(value):
                written = rows[number] if number < len(rows) else {}
                prefix = f"{table}.{number}"
                settings += [one for one in _settings(prefix, row, written, where, environ) if one.source != "default"]
        else:
            settings += _settings(table, value, tree.get(table, {}), where, environ)
    return [_proxied(one, config, environ) for one in settings]


def _proxied(setting: SourcedSetting, config: Config, environ: Mapping[str, str]) -> SourcedSetting:
    """Name the variable that a proxy comes from if it is not set as ours. It may hold a password."""
    if setting.name not in {"sidecar.proxy", "agent.proxy"} or setting.source != "default":
        return setting
    is_agents = setting.name == "agent.proxy"
    chosen = agent_proxy(config.agent, environ) if is_agents else gateway_proxy(config.sidecar, environ)
    return setting if chosen is None else SourcedSetting(setting.name, "(set)", "environment", chosen.source)


def _settings(
    prefix: str, table: msgspec.Struct, written: Mapping[str, Any], where: str, environ: Mapping[str, str]
) -> Iterator[SourcedSetting]:
    for key, value in msgspec.structs.asdict(table).items():
        name = f"{prefix}.{key}"
        variable = f"SEGUE_{name.replace('.', '_').upper()}"
        if variable in environ:
            yield SourcedSetting(name, value, "environment", variable)
        elif key in written and value is not None:  # None: another key took its place
            yield SourcedSetting(name, value, "file", where)
        else:
            yield SourcedSetting(name, value, "default")
