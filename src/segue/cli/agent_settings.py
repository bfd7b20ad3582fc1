"""Reads the settings files of agents, as far as they may win over the sidecar's address.

They may be a repository's, so only plain files are read, and of each no more than a settings file has. Not here: what
they mean (`segue.sidecar.diagnosis.agent_checks`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import msgspec

from segue.sidecar.diagnosis.agent_checks import AgentFacts, SettingsFile

_MAX_BYTES = 1024 * 1024
_MAX_PARENTS = 40

#: The files of companies.
_CLAUDE_MANAGED = (
    Path("/etc/claude-code/managed-settings.json"),
    Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
)
_OPENCODE_MANAGED = (Path("/etc/opencode"), Path("/Library/Application Support/opencode"))
_GEMINI_MANAGED = (
    Path("/etc/gemini-cli/settings.json"),
    Path("/Library/Application Support/GeminiCli/settings.json"),
)
_INLINE = "OPENCODE_CONFIG_CONTENT"


def facts_of(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> AgentFacts:
    """Return what an agent that runs in a folder would read."""
    match PurePath(command[0]).name:
        case "claude":
            files = _claude(environ, folder)
        case "codex":
            files = _codex(environ, command)
        case "opencode":
            files = _opencode(environ, folder)
        case "gemini":
            files = _gemini(environ, folder)
        case _:
            files = iter(())
    return AgentFacts(command=tuple(command), variables=environ, files=tuple(files))


def claude_variables(facts: AgentFacts) -> dict[str, str]:
    """Return the variables that the settings files of Claude Code set for it; those that win overwrite the others."""
    variables: dict[str, str] = {}
    for file in reversed(facts.files):
        found = (file.settings or {}).get("env")
        if isinstance(found, dict):
            variables |= {name: value for name, value in found.items() if isinstance(value, str)}
    return variables


def _claude(environ: Mapping[str, str], folder: Path) -> Iterator[SettingsFile]:
    for file in _CLAUDE_MANAGED:
        yield from _read(file, managed=True)
    yield from _read(folder / ".claude" / "settings.local.json")
    yield from _read(folder / ".claude" / "settings.json")
    for own in _own_folder(environ, "CLAUDE_CONFIG_DIR", ".claude"):
        yield from _read(own / "settings.json")


def _codex(environ: Mapping[str, str], command: Sequence[str]) -> Iterator[SettingsFile]:
    """Yield the user's files. A project's may choose no provider (https://github.com/openai/codex/pull/20098)."""
    following = [*command[1:], ""]
    named = [value for flag, value in zip(command, following, strict=True) if flag in {"--profile", "-p"}]
    for own in _own_folder(environ, "CODEX_HOME", ".codex"):
        for name in named:
            if name and PurePath(name).name == name:
                yield from _read(own / f"{name}.config.toml")
        yield from _read(own / "config.toml")
        for login in () if environ.get("CODEX_API_KEY") else _read(own / "auth.json"):
            yield msgspec.structs.replace(login, settings=_without_tokens(login.settings))
    yield from _read(Path("/etc/codex/config.toml"))


def _without_tokens(login: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return how the user has logged in, and none of the secrets."""
    if login is None:
        return None
    has_tokens = bool(login.get("tokens")) and not login.get("OPENAI_API_KEY")  # files of older versions
    return {"auth_mode": login.get("auth_mode") or ("chatgpt" if has_tokens else "apikey")}


def _opencode(environ: Mapping[str, str], folder: Path) -> Iterator[SettingsFile]:
    for place in _OPENCODE_MANAGED:
        yield from _read_either(place, managed=True)
    if environ.get(_INLINE, "").strip():
        yield SettingsFile(_INLINE, _json(environ[_INLINE].encode(errors="replace")))
    for place in _up_to_repository(folder):
        yield from _read_either(place / ".opencode")
        yield from _read_either(place)
    if environ.get("OPENCODE_CONFIG"):
        yield from _read(Path(environ["OPENCODE_CONFIG"]))
    for own in _own_folder(environ, "XDG_CONFIG_HOME", ".config"):
        yield from _read_either(own / "opencode")


def _gemini(environ: Mapping[str, str], folder: Path) -> Iterator[SettingsFile]:
    for file in _GEMINI_MANAGED:
        yield from _read(file, managed=True)
    yield from _read(folder / ".gemini" / "settings.json")
    for own in _own_folder(environ, "", ".gemini"):
        yield from _read(own / "settings.json")


def _own_folder(environ: Mapping[str, str], variable: str, name: str) -> Iterator[Path]:
    """Yield the user's folder for an agent, if there is one: what a variable names, or a folder in the home."""
    if environ.get(variable):
        yield Path(environ[variable])
    elif environ.get("HOME"):
        yield Path(environ["HOME"]) / name


def _up_to_repository(folder: Path) -> Iterator[Path]:
    """Yield a folder and those above it, up to the one that holds the repository; without one, the folder alone."""
    above = [folder, *folder.parents][:_MAX_PARENTS]
    end = next((number for number, place in enumerate(above) if (place / ".git").exists()), 0)
    yield from above[: end + 1]


def _read_either(folder: Path, *, managed: bool = False) -> Iterator[SettingsFile]:
    yield from _read(folder / "opencode.jsonc", managed=managed)
    yield from _read(folder / "opencode.json", managed=managed)


def _read(file: Path, *, managed: bool = False) -> Iterator[SettingsFile]:
    """Yield a file if it is there. A repository may hold a link to a device, which would block."""
    try:
        if not file.exists():
            return
        settings = None
        if file.is_file():
            with file.open("rb") as opened:
                text = opened.read(_MAX_BYTES + 1)
            settings = _toml(text) if file.suffix == ".toml" else _json(text)
    except OSError:
        settings = None
    yield SettingsFile(str(file), settings, managed)


def _json(text: bytes) -> Mapping[str, Any] | None:
    try:
        return msgspec.json.decode(text[:_MAX_BYTES], type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _toml(text: bytes) -> Mapping[str, Any] | None:
    try:
        return tomllib.loads(text[:_MAX_BYTES].decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return None
