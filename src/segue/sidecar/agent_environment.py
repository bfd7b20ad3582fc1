"""How to point an agent at the sidecar: the variables that its SDKs read, and extra settings for some programs.

Pure. Variables that are set already are overwritten: they name the provider that the sidecar stands for. Not here:
starting the program (`segue.cli.run`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import msgspec


class Launch(NamedTuple):
    """A command, and the variables to add to its environment."""

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
        case "codex":  # its built-in provider reads this setting, and no variable
            arguments = ["-c", f'openai_base_url="{openai}"', *arguments]
        case "opencode":  # its Anthropic SDK needs the version in the address, unlike Claude Code
            addresses = {"anthropic": f"{anthropic}/v1", "openai": openai, "google": f"{gemini}/v1beta"}
            providers = {name: {"options": {"baseURL": address}} for name, address in addresses.items()}
            variables["OPENCODE_CONFIG_CONTENT"] = msgspec.json.encode({"provider": providers}).decode()
        case _:
            pass
    return Launch([program, *arguments], variables)
