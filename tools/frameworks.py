"""Makes a virtual environment for each agent framework that is tested against the gateway: `make test-all` runs it.

Frameworks exclude each other's dependencies, so each has an environment of its own, `.venv/frameworks/NAME`. What it
holds is the dependency group `framework-NAME` in pyproject.toml. What cannot be installed is left out, and the reason
stays there for the tests to say. An environment is made anew when its group has changed.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "framework-"


def wanted(root: Path = ROOT) -> Mapping[str, Sequence[str]]:
    """Return what each framework's environment should hold."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    groups: dict[str, list[str]] = project["dependency-groups"]
    return {name.removeprefix(PREFIX): group for name, group in groups.items() if name.startswith(PREFIX)}


class Environment:
    """The environment of one framework."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.python = folder / name / "bin" / "python"
        self._held = folder / name / ".requirements"
        self._failure = folder / name / ".failure"

    def is_current(self, requirements: Sequence[str]) -> bool:
        """Tell whether it holds just this."""
        return self._held.exists() and self._held.read_text(encoding="utf-8").splitlines() == list(requirements)

    def failure(self) -> str | None:
        """Say why it could not be made, if it could not."""
        return self._failure.read_text(encoding="utf-8") if self._failure.exists() else None

    def make(self, requirements: Sequence[str]) -> None:
        """Make it anew, or note why that failed."""
        folder = self._held.parent
        commands = [
            [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)],
            [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", *requirements],
        ]
        for command in commands:
            run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the commands above
            if run.returncode:
                reasons = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or [run.stderr.strip()]
                folder.mkdir(parents=True, exist_ok=True)
                self._failure.write_text(reasons[-1][:300], encoding="utf-8")
                return
        self._held.write_text("\n".join(requirements) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    """Make what is not there yet."""
    for name, requirements in wanted().items():
        environment = Environment(name, folder)
        if not environment.is_current(requirements):
            environment.make(requirements)
        failure = environment.failure()
        print(f"{name}: {'ready' if failure is None else f'left out: {failure}'}")


if __name__ == "__main__":
    main(Path(sys.prefix) / "frameworks")
