"""How an agent is pointed at the sidecar: the variables that its SDKs read, and what some programs need beside them.

Pure. A variable that is set already is not the user's way of saying no: it names the provider that the sidecar stands
for. Not here: starting the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import msgspec


class Launch(NamedTuple):
    """What to run, and with which variables beside the environment."""

    command: list[str]
    variables: dict[str, str]


def pointed_at(command: Sequence[str], url: str) -> Launch:
    """Return how to run a command so that its requests go to the sidecar at `url`."""
    anthropic, openai, gemini = f"{url}/anthropic", f"{url}/openai/v1", f"{url}/gemini"
    variables = {
        "ANTHROPIC_BASE_URL": anthropic,
        "OPENAI_BASE_URL": openai,
        "OPENAI_API_BASE": openai,
        "GOOGLE_GEMINI_BASE_URL": gemini,
    }
    program, *arguments = command
    match PurePath(program).name:
        case "codex":  # its built-in provider reads no variable, but this setting
            arguments = ["-c", f'openai_base_url="{openai}"', *arguments]
        case "opencode":  # its Anthropic SDK wants the version in the address, which Claude Code does not
            addresses = {"anthropic": f"{anthropic}/v1", "openai": openai, "google": f"{gemini}/v1beta"}
            providers = {name: {"options": {"baseURL": address}} for name, address in addresses.items()}
            variables["OPENCODE_CONFIG_CONTENT"] = msgspec.json.encode({"provider": providers}).decode()
        case _:
            pass
    return Launch([program, *arguments], variables)
