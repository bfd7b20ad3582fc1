"""Edits the `[[key]]` tables of a configuration file as text; comments and the order of everything else stay. Pure.

Not here: reading and writing the file, and drawing keys (`segue.cli.key`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from segue.config.errors import ConfigError
from segue.config.keys import KeyConfig

_PERIOD: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS: Final[Mapping[str, timedelta]] = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


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


def parse_expiry(text: str, now: datetime) -> datetime:
    """Return the moment that a text means: a period from `now` on (12h, 30d, 8w), a day, or a moment (ISO 8601).

    A day means its first moment, and what names no time zone is in UTC.

    Raises:
        ConfigError: it means none, or one that is over.
    """
    period = _PERIOD.fullmatch(text)
    try:
        found = now + int(period[1]) * _UNITS[period[2]] if period else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError(f"{text!r} is no time: write 12h, 30d, 8w, 2030-01-31 or 2030-01-31T12:00:00Z") from None
    moment = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    if moment <= now:
        raise ConfigError(f"{text!r} is over: the key would never work")
    return moment.replace(microsecond=0)


def _settings(key: KeyConfig) -> dict[str, Any]:
    """Return what the table of a key says: no defaults."""
    settings: dict[str, Any] = {"name": key.name, "tenant": key.tenant, "sha256": key.sha256}
    if key.expires_at is not None:
        settings["expires_at"] = key.expires_at
    everything = KeyConfig("", "", "")
    for field in ("models", "routes"):
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
