"""Runs the Node programs of `tests/node` in the folder where `make setup` has installed what they import."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from segue.testing.response_schemas import Json

NODE = Path(sys.prefix) / "node"
_PROGRAMS = Path(__file__).parents[1] / "node"


def is_installed(package: str) -> bool:
    """Whether Node programs can import a package."""
    return (NODE / "node_modules" / package).is_dir()


async def run_node(program: str, **given: object) -> Json:
    """Run a program, which prints one JSON object."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-", json.dumps(given), stdin=pipe, stdout=pipe, stderr=pipe, cwd=NODE
    )
    printed, errors = await process.communicate((_PROGRAMS / program).read_bytes())
    assert process.returncode == 0, errors.decode()
    results: Json = json.loads(printed)
    return results
