"""Bases as sessions make them, and the names of their files."""

from __future__ import annotations

import json
import random
from pathlib import Path

from segue.tunnel.documents import Base


def text(seed: int, size: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz ", k=size))


def turns(session: int, count: int, *, size: int = 1500) -> list[Base]:
    """The bases of a session: each body begins with the one before."""
    messages: list[object] = []
    bases = []
    for number in range(count):
        messages.append({"role": "user", "content": text(1000 * session + number, size)})
        reply = text(1000 * session + number + 500, 80)
        body = json.dumps({"system": text(session, 3000), "messages": messages}, separators=(",", ":"))
        bases.append(Base(body.encode(), reply.encode()))
        messages.append({"role": "assistant", "content": reply})
    return bases


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def files_of(*bases: Base) -> set[str]:
    return {f"{base.id.hex()}.base" for base in bases}
