"""`segue config`: where the user's own file is, and where each setting of the sidecar came from.

Not here: whether a gateway could run with the configuration (`segue check-config`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from segue.cli.sidecar import load_sidecar
from segue.config import ConfigError, SourcedSetting, choose_file, sourced_settings, user_config_file
from segue.sidecar.diagnosis.check_results import one_line

_VALUE_LENGTH = 100


def run_config_path(*, as_json: bool) -> int:
    """Print the path of the user's own file, and on stderr what is wrong with it."""
    file = user_config_file()
    if file is None:
        raise ConfigError("this user has no folder for settings; name a file with --config")
    chosen = choose_file(None)
    if as_json:
        told = {"path": str(file), "is_read": chosen.path is not None, "notices": chosen.notices}
        print(msgspec.json.encode(told).decode())
        return 0
    for notice in chosen.notices:
        print(f"segue: {notice}", file=sys.stderr)
    print(file)
    return 0


def run_config_show(path: Path | None, *, as_json: bool) -> int:
    """Print each setting that `segue sidecar` and `segue run` would have, and where its value came from."""
    config, file = load_sidecar(path)
    settings = sourced_settings(config, file)
    if as_json:
        print(msgspec.json.encode({"file": file and str(file), "settings": settings}).decode())
        return 0
    print(f"file: {file or 'none'}")
    width = max(len(one.name) for one in settings)
    for one in settings:
        print(one_line(f"{one.name:<{width}}  {_value(one)}  {_origin(one)}"))
    return 0


def _value(setting: SourcedSetting) -> str:
    return one_line(msgspec.json.encode(setting.value).decode(), _VALUE_LENGTH)


def _origin(setting: SourcedSetting) -> str:
    return f"({setting.source})" if not setting.where else f"({setting.source}: {setting.where})"
