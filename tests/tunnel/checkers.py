"""The checker of the tunnel's wire, with the preset lines of the specification's file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from segue.testing.tunnel_checker import PresetLines, TunnelChecker


@cache
def preset_lines() -> PresetLines:
    """Read the lines that the tables begin with."""
    lines = json.loads((Path(__file__).parent / "vectors" / "preset-lines.json").read_text(encoding="utf-8"))
    requests, replies = ([line.encode() for line in lines[name]] for name in ("requests", "replies"))
    return PresetLines(requests, replies)


def new_checker() -> TunnelChecker:
    """Make a checker."""
    return TunnelChecker(preset_lines())
