"""The variables that Claude Code's own settings files set: they win over those of its environment.

Not here: what `segue run` puts into the environment (`segue.sidecar.agent_environment`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

#: The file of the company (https://code.claude.com/docs/en/settings).
_MANAGED = (
    Path("/etc/claude-code/managed-settings.json"),
    Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
)
_MAX_BYTES = 1024 * 1024


def settings_files(environ: Mapping[str, str], folder: Path) -> Iterator[Path]:
    """Yield the files that Claude Code reads when it runs in a folder."""
    yield from _MANAGED
    yield folder / ".claude" / "settings.local.json"
    yield folder / ".claude" / "settings.json"
    own = environ.get("CLAUDE_CONFIG_DIR") or (f"{environ['HOME']}/.claude" if environ.get("HOME") else "")
    if own:
        yield Path(own) / "settings.json"


def variables_in(file: Path) -> dict[str, str]:
    """Return the variables that a settings file sets; none if there is no such file, or it cannot be read."""
    if not file.is_file():  # a repository may hold a link to a device, which would block
        return {}
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES)
        settings = msgspec.json.decode(text, type=dict[str, Any])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    variables = settings.get("env")
    if not isinstance(variables, dict):
        return {}
    return {name: value for name, value in variables.items() if isinstance(value, str)}
