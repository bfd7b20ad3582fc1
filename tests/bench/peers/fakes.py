"""Peers of our own making, and where to find their program."""

from __future__ import annotations

import sys
from pathlib import Path

from segue.bench.peers.catalogue import Peer

_SCRIPT = Path(__file__).with_name("fake_peer.py")


def fake_peer(name: str, *arguments: str, ready_path: str = "/health") -> Peer:
    """Make an entry for a fake peer; without arguments it keeps the history."""
    return Peer(
        name=name,
        tested="1.0",
        install=f"write {name}",
        program="fake-peer",
        distribution="fake-peer",
        arguments=arguments or ("$port", "$provider", "keep"),
        environment=(("PLACE", "$folder"),),
        files=(("peer.conf", "port = $port\n"),),
        ready_path=ready_path,
        doors=("http",),
        provider_api="responses",
        keeps_in="memory",
        beside="ours",
    )


def write_program(folder: Path, version: str | None = "1.2.3") -> Path:
    """Lay out a virtual environment with the fake peer; returns its program."""
    program = folder / "fake" / "bin" / "fake-peer"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_SCRIPT}" "$@"\n')
    program.chmod(0o755)
    if version is not None:
        (folder / "fake" / "lib" / "python3.11" / "site-packages" / f"fake_peer-{version}.dist-info").mkdir(
            parents=True
        )
    return program
