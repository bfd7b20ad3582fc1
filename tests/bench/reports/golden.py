"""Files that say how something looked when somebody looked at it."""

from __future__ import annotations

from pathlib import Path

import pytest


def check_golden(file: Path, made: str) -> None:
    """Compare with the file. To accept a change, delete the file: the next run writes it anew, and fails once."""
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(made, encoding="utf-8")
        pytest.fail(f"{file} was written: look at it, and run the test again")
    assert made == file.read_text(encoding="utf-8")
