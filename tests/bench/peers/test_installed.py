"""Programs of peers are found where they are, and their versions told without starting them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segue import __version__
from segue.bench.peers.catalogue import PEERS
from segue.bench.peers.installed import find_peer
from tests.bench.peers.fakes import fake_peer, write_program

PEER = fake_peer("fake")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_program_is_found_in_a_folder_or_in_an_environment_within(depth: int, tmp_path: Path) -> None:
    program = write_program(tmp_path)
    found = find_peer(PEER, [tmp_path / "nowhere", (tmp_path, tmp_path / "fake", program.parent)[depth]])
    assert found is not None
    assert (found.program, found.version) == (program, "1.2.3")


def test_a_program_on_the_path_is_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_peer(PEER, []) is None
    monkeypatch.setenv("PATH", str(write_program(tmp_path, version=None).parent))
    found = find_peer(PEER, [])
    assert found is not None
    assert found.version is None


def test_ours_is_the_python_that_runs() -> None:
    found = find_peer(PEERS[0], [])
    assert found is not None
    assert (found.program, found.version) == (Path(sys.executable), __version__)
