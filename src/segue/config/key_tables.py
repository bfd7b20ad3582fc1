"""Edits the `[[key]]` tables of a configuration file as text; comments and the order of everything else stay. Pure.

Not here: reading and writing the file, and drawing keys (`segue.cli.key`).
"""

from __future__ import annotations

from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from segue.config.errors import ConfigError
from segue.config.keys import KeyConfig


def add_key(text: str, key: KeyConfig) -> str:
    """Return the text of a configuration file with one more key, behind those that it has.

    Raises:
        ConfigError: the text is not valid TOML, or has no list of keys.
    """
    document = _parsed(text)
    table = tomlkit.table()
    table.update(_settings(key))
    table.add(tomlkit.nl())
    if "key" in document:
        _keys(document).append(table)
    else:
        array = tomlkit.aot()
        array.append(table)
        document.append("key", array)
    return tomlkit.dumps(document)


def remove_key(text: str, name: str) -> str:
    """Return the text without the key of this name.

    Raises:
        ConfigError: it has no such key, or is not valid TOML.
    """
    document = _parsed(text)
    keys = _keys(document) if "key" in document else []
    names = [table.get("name") for table in keys]
    if name not in names:
        known = ", ".join(repr(str(one)) for one in names) or "none"
        raise ConfigError(f"there is no key named {name!r} in the file; its keys: {known}")
    del keys[names.index(name)]
    if not keys:
        del document["key"]
    return tomlkit.dumps(document)


def _settings(key: KeyConfig) -> dict[str, Any]:
    """Return what the table of a key says: no defaults."""
    settings: dict[str, Any] = {"name": key.name, "tenant": key.tenant, "sha256": key.sha256}
    if key.expires_at is not None:
        settings["expires_at"] = key.expires_at
    everything = KeyConfig("", "", "")
    for field in ("models", "routes", "operator"):
        if getattr(key, field) != getattr(everything, field):
            settings[field] = getattr(key, field)
    return settings


def _parsed(text: str) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"the file is not valid TOML: {error}") from None


def _keys(document: tomlkit.TOMLDocument) -> Any:  # noqa: ANN401 - tomlkit's containers have no common type
    keys = document["key"]
    if not isinstance(keys, tomlkit.items.AoT):
        raise ConfigError("`key` is not written as [[key]] tables in the file; write them so, or edit it yourself")
    return keys
