"""Finds the programs of peers on this machine, and their versions. It starts nothing and installs nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from segue import __version__
from segue.bench.peers.catalogue import Peer


class InstalledPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that is here: its program, and its version if that can be told."""

    peer: Peer
    program: Path
    version: str | None = None


def find_peer(peer: Peer, folders: Sequence[Path]) -> InstalledPeer | None:
    """Look for a peer's program in these folders, in the virtual environments within them, and on the PATH."""
    if peer.ours:
        return InstalledPeer(peer=peer, program=Path(sys.executable), version=__version__)
    places = [place for folder in folders for place in (folder, folder / "bin", *sorted(folder.glob("*/bin")))]
    found = next((at for place in places if (at := shutil.which(peer.program, path=str(place)))), None)
    program = found or shutil.which(peer.program)
    if program is None:
        return None
    return InstalledPeer(
        peer=peer, program=Path(program).absolute(), version=_version_of(peer, Path(program).absolute())
    )


def _version_of(peer: Peer, program: Path) -> str | None:
    """Return which version of the peer's package the virtual environment of the program has."""
    named = peer.distribution.replace("-", "_")
    found = next(program.parent.parent.glob(f"lib/python*/site-packages/{named}-*.dist-info"), None)
    return None if found is None else found.name.removesuffix(".dist-info").rpartition("-")[2]
