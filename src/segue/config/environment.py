"""What segue reads from the environment beside its own settings.

These are API keys of providers, the user's cache directory, what a child process inherits, and what the user decided
for OpenMP. Not here: the variables `SEGUE_…`, which are settings (`loading`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from segue.config.errors import ConfigError
from segue.config.sidecar import SidecarConfig
from segue.config.upstream import UpstreamConfig


def read_key(up: UpstreamConfig, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the API key of an upstream. The configuration itself never holds it, since it is shown and logged.

    Raises:
        ConfigError: the variable that should hold the key is not set, or its value cannot be a key.
    """
    if up.key_env is None:
        return None
    value = (os.environ if environ is None else environ).get(up.key_env, "").strip()
    if not value:
        raise ConfigError(f"upstream {up.name!r}: the variable {up.key_env} (key_env) is not set")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"upstream {up.name!r}: what the variable {up.key_env} (key_env) holds cannot be a key")
    return value


def cache_directory(sidecar: SidecarConfig, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder where the sidecar keeps its bases; None if it keeps none on disk."""
    if not sidecar.cache:
        return None
    if sidecar.cache_dir:
        return Path(sidecar.cache_dir).expanduser()
    environ = os.environ if environ is None else environ
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / caches) / "segue" / "bases"
    except RuntimeError:  # this user has no home directory
        return None


def child_environment(variables: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment with `variables` added, for a program that must reach this machine without a proxy."""
    ours = dict(os.environ if environ is None else environ)
    if any(ours.get(proxy) for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        named = ours.get("no_proxy") or ours.get("NO_PROXY")
        ours["no_proxy"] = ours["NO_PROXY"] = ",".join(filter(None, (named, "127.0.0.1", "localhost")))
    return {**ours, **variables}


def replaced_variables(variables: Mapping[str, str], environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of those `variables` that our environment sets to another value."""
    ours = os.environ if environ is None else environ
    return [name for name, value in variables.items() if ours.get(name, "") not in {"", value}]


def has_openmp_policy(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the user has decided how OpenMP threads wait for each other (`engine.openmp` sets it otherwise)."""
    ours = os.environ if environ is None else environ
    return "OMP_WAIT_POLICY" in ours or "GOMP_SPINCOUNT" in ours
