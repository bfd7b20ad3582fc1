"""What segue reads from the environment beside its own settings.

These are API keys of providers, the user's directories, what child processes inherit, and what the user decided for
OpenMP. Not here: the variables `SEGUE_…`, which are settings (`loading`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from segue.config.agent import AgentConfig
from segue.config.compaction import CompactionConfig
from segue.config.errors import ConfigError
from segue.config.keys import sendable_key
from segue.config.sidecar import SidecarConfig
from segue.config.upstream import UpstreamConfig

_OPENAI = "https://api.openai.com/"
#: Variables with one of these words in their names may hold what a command has no business with.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:KEYS?|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|AUTH|PAT)(?:$|_)", re.IGNORECASE
)
_TOO_SHORT = 8
_SHORTEST_SECRET = 32
#: Our settings that hold secrets, which a program that we start has no use for.
_OWN_SECRETS = ("SEGUE_SIDECAR_KEY", "SEGUE_SIDECAR_KEY_FILE", "SEGUE_SIDECAR_PROXY", "SEGUE_SIDECAR_TOKEN")
#: Lower case first, as curl and Python read them.
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def read_key(up: UpstreamConfig, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the API key of an upstream. The configuration itself never holds it, since it is shown and logged.

    Raises:
        ConfigError: the variable that should hold the key is not set, or its value cannot be a key.
    """
    if up.key_env is None:
        return None
    try:
        return named_key(up.key_env, "key_env", environ=environ)
    except ConfigError as error:
        raise ConfigError(f"upstream {up.name!r}: {error}") from None


def named_key(variable: str, named_by: str, *, environ: Mapping[str, str] | None = None) -> str:
    """Return the API key that a variable holds; `named_by` is the setting or option that names the variable.

    Raises:
        ConfigError: the variable is not set, or its value cannot be a key.
    """
    value = (os.environ if environ is None else environ).get(variable, "").strip()
    if not value:
        raise ConfigError(f"the variable {variable} ({named_by}) is not set")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"what the variable {variable} ({named_by}) holds cannot be a key")
    return value


def compaction_secrets(compaction: CompactionConfig, environ: Mapping[str, str] | None = None) -> list[bytes]:
    """Return the secrets that seal summaries, the one that seals new ones first.

    Raises:
        ConfigError: a variable is not set, or what it holds is too short to be a secret.
    """
    secrets = []
    for variable in compaction.secrets_env:
        secret = named_key(variable, "compaction.secrets_env", environ=environ)
        if len(secret) < _SHORTEST_SECRET:
            raise ConfigError(
                f"the secret in the variable {variable} (compaction.secrets_env) has {len(secret)} characters: it "
                f"needs {_SHORTEST_SECRET}, drawn at random (openssl rand -base64 32)"
            )
        secrets.append(secret.encode())
    return secrets


#: The variables that hold a key of ours: the sidecar's for its gateway, and the agent's for its server.
KeyVariable: TypeAlias = Literal["SEGUE_SIDECAR_KEY", "SEGUE_AGENT_KEY"]


class ChosenProxy(NamedTuple):
    """A proxy as the user wrote it, the name of the setting or variable, and what is reached without it."""

    address: str
    source: str
    no_proxy: str


def gateway_proxy(sidecar: SidecarConfig, environ: Mapping[str, str] | None = None) -> ChosenProxy | None:
    """Return the proxy on the way to gateways: the setting, even if it says that there is none, else the variables'."""
    return _chosen_proxy(sidecar.proxy, "[sidecar] proxy", environ)


def agent_proxy(agent: AgentConfig, environ: Mapping[str, str] | None = None) -> ChosenProxy | None:
    """Return the proxy on the way to the agent's server, in the same way."""
    return _chosen_proxy(agent.proxy, "[agent] proxy", environ)


def _chosen_proxy(setting: str | None, name: str, environ: Mapping[str, str] | None) -> ChosenProxy | None:
    ours = os.environ if environ is None else environ
    found = [(setting, name)] if setting is not None else [(ours.get(variable), variable) for variable in _PROXIES]
    no_proxy = ours.get("no_proxy") or ours.get("NO_PROXY") or ""
    return next((ChosenProxy(address, source, no_proxy) for address, source in found if address), None)


def cache_directory(sidecar: SidecarConfig, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder where the sidecar keeps its bases; None if it keeps none on disk."""
    if not sidecar.cache:
        return None
    if sidecar.cache_dir:
        return Path(sidecar.cache_dir).expanduser()
    found = _user_directory("XDG_CACHE_HOME", "Library/Caches" if sys.platform == "darwin" else ".cache", environ)
    return None if found is None else found / "segue" / "bases"


def state_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder where the agent keeps the transcripts of its runs; None if this user has no home directory."""
    found = _state_home(environ)
    return None if found is None else found / "agent"


def ssh_log_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return where the gateway that is reached by ssh logs; None if this user has no home directory."""
    found = _state_home(environ)
    return None if found is None else found / "ssh-gateway.log"


def models_directory(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder of model files that were fetched; None if this user has no home directory."""
    place = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    found = _user_directory("XDG_DATA_HOME", place, environ)
    return None if found is None else found / "segue" / "models"


def _state_home(environ: Mapping[str, str] | None) -> Path | None:
    place = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
    found = _user_directory("XDG_STATE_HOME", place, environ)
    return None if found is None else found / "segue"


def _user_directory(variable: str, place: str, environ: Mapping[str, str] | None) -> Path | None:
    """Return the folder that a variable of the XDG specification names, else a place in the home directory."""
    named = Path((os.environ if environ is None else environ).get(variable, ""))
    try:
        return named if named.is_absolute() else Path.home() / place
    except RuntimeError:  # this user has no home directory
        return None


def agent_key(agent: AgentConfig, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the API key for the agent's server. The one for OpenAI goes nowhere else."""
    if agent.key is not None or not agent.base_url.startswith(_OPENAI):
        return agent.key
    found = (os.environ if environ is None else environ).get("OPENAI_API_KEY", "")
    return sendable_key(found, "the variable OPENAI_API_KEY")


def command_environment(key: str | None = None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command that a model wrote: ours without keys, and with the Python that runs us.

    Left out are our own settings, what is named like a secret, and what holds `key`. Programs show no pages, ask for no
    password, and Python leaves no compiled files.
    """
    ours = os.environ if environ is None else environ
    kept = {
        name: value
        for name, value in ours.items()
        if not (name.startswith("SEGUE_") or _SECRET_NAME.search(name))
        and not (key is not None and len(key) >= _TOO_SHORT and key in value)
    }
    path = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), ours.get("PATH") or os.defpath)))
    quiet = {"PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0", "TERM": "dumb"}
    return {**kept, **quiet, "PYTHONDONTWRITEBYTECODE": "1", "PATH": path}


def child_environment(hosts: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment for a program that must reach this machine, and `hosts`, without a proxy.

    Our key for gateways is left out: the program has no use for it, and an agent shows its environment to a model.
    """
    ours = dict(os.environ if environ is None else environ)
    for name in _OWN_SECRETS:
        ours.pop(name, None)
    if any(ours.get(proxy) for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        named = ours.get("no_proxy") or ours.get("NO_PROXY")
        unproxied = dict.fromkeys(("127.0.0.1", "localhost", *hosts))
        ours["no_proxy"] = ours["NO_PROXY"] = ",".join(filter(None, (named, *unproxied)))
    return ours


def environment_with_key(
    key: str, variable: KeyVariable = "SEGUE_SIDECAR_KEY", environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return this process's environment with a key in it, in the place of any other that the variable stands for."""
    ours = os.environ if environ is None else environ
    others = {name: value for name, value in ours.items() if name != f"{variable}_FILE"}
    return {**others, variable: key}


def has_openmp_policy(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the user has decided how OpenMP threads wait for each other (`engine.openmp` sets it otherwise)."""
    ours = os.environ if environ is None else environ
    return "OMP_WAIT_POLICY" in ours or "GOMP_SPINCOUNT" in ours
