"""How to point an agent at the sidecar: the variables that its SDKs read, and extra settings for some programs.

Pure. Addresses that are set already are overwritten: they name the provider that the sidecar stands for. All else that
the user has set stays. Not here: starting the program (`segue.cli.run`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import msgspec

_OPENCODE = "OPENCODE_CONFIG_CONTENT"

#: What Claude Code turns off when its base URL is not Anthropic's own, and what turns it on again.
_CLAUDE_FEATURES = {
    "ENABLE_TOOL_SEARCH": "true",  # without it, the definitions of all tools are in every request
    "CLAUDE_CODE_TETHER_LIVE": "1",  # message threads, in which a request has only the new messages
}


class AgentSettingsError(Exception):
    """What the user has set for the agent cannot be read, so that the addresses cannot be added to it."""


class Launch(NamedTuple):
    """A command, the variables to add to its environment, and what to tell the user about them."""

    command: list[str]
    variables: dict[str, str]
    notices: list[str]


def pointed_at(command: Sequence[str], url: str, *, environ: Mapping[str, str], official: bool) -> Launch:
    """Return how to run a command so that its requests go to the sidecar at `url`.

    `environ` is what the command would have in its environment otherwise. `official`: what Claude Code asks goes to
    Anthropic's own host, so that all its features work there.

    Raises:
        AgentSettingsError: a variable with settings of the agent cannot be read.
    """
    anthropic, openai, gemini = f"{url}/anthropic", f"{url}/openai/v1", f"{url}/gemini"
    variables = {
        "ANTHROPIC_BASE_URL": anthropic,
        "OPENAI_BASE_URL": openai,
        "OPENAI_API_BASE": openai,
        "GOOGLE_GEMINI_BASE_URL": gemini,
    }
    notices = [  # without the value, which may hold a key
        f"{name} was set to something else; a [[route]] of the gateway leads there again"
        for name, value in variables.items()
        if environ.get(name, "") not in {"", value}
    ]
    program, *arguments = command
    match PurePath(program).name:
        case "codex":  # its built-in provider reads this setting, and no variable
            arguments = ["-c", f'openai_base_url="{openai}"', *arguments]
        case "opencode":  # its Anthropic SDK needs the version in the address, unlike Claude Code
            addresses = {"anthropic": f"{anthropic}/v1", "openai": openai, "google": f"{gemini}/v1beta"}
            providers = {name: {"options": {"baseURL": address}} for name, address in addresses.items()}
            settings = merged(_opencode_settings(environ.get(_OPENCODE, "")), {"provider": providers})
            variables[_OPENCODE] = msgspec.json.encode(settings).decode()
        case "claude" if official:
            added = {name: value for name, value in _CLAUDE_FEATURES.items() if name not in environ}
            variables |= added
            notices += _claude_notices(added)
        case _:
            pass
    return Launch([program, *arguments], variables, notices)


def merged(ours: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `ours` with `more` put into them, object by object; where both have a value, `more` wins."""
    result = dict(ours)
    for name, value in more.items():
        before = result.get(name)
        result[name] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def _opencode_settings(text: str) -> dict[str, Any]:
    """Read the user's settings. The message does not quote them: they may hold a key."""
    if not text.strip():
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise AgentSettingsError(
            f"{_OPENCODE} is not a JSON object, so the sidecar's addresses cannot be added to it; "
            "correct it (no comments, no comma after the last entry), or unset it"
        ) from None


def _claude_notices(added: Mapping[str, str]) -> list[str]:
    if not added:
        return []
    names = " and ".join(f"{name}={value}" for name, value in added.items())
    return [f"claude runs with {names}, as it may at Anthropic's own address; `false` turns them off"]
