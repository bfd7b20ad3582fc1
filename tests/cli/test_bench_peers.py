"""`segue bench peers` measures what is there, and says what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from segue.bench.peers.catalogue import OURS, OURS_IN_MEMORY, PEERS
from segue.cli import bench_peers
from segue.cli.bench_peers import chosen_peers
from tests.bench.peers.fakes import fake_peer, write_program
from tests.cli.conftest import Command


def test_a_peer_that_is_there_is_measured(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = replace(fake_peer("away"), program="no-such-program")
    monkeypatch.setattr(bench_peers, "PEERS", (fake_peer("fake"), away))
    write_program(tmp_path)
    given = ("--programs", str(tmp_path), "--depths", "1,2", "--rounds", "1", "--window", "1", "--json", "peers.json")
    status, printed, told = command("bench", "peers", *given)
    assert (status, told) == (0, "segue: fake, round 1\n")
    assert "fake    1.2.3" in printed
    assert "away: left out, not installed: write away" in printed
    assert [one["name"] for one in json.loads((tmp_path / "peers.json").read_bytes())["arms"]] == ["fake, http"] * 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nobody",), "there is no peer 'nobody': there are 'segue', "),
        (("--depths", "0"), "--depths[0] must be at least 1"),
        (("--depths", "1,deep"), "--depths[1] must be a whole number"),
        (("--rounds", "0"), "--rounds must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], reason: str, command: Command) -> None:
    status, printed, told = command("bench", "peers", *arguments)
    assert (status, printed) == (2, "")
    assert told.startswith(f"segue: {reason}")


def test_a_named_peer_comes_with_ours() -> None:
    assert [peer.name for peer in chosen_peers(["SMG"])] == [OURS_IN_MEMORY, "SMG"]
    assert [peer.name for peer in chosen_peers([OURS])] == [OURS]
    assert chosen_peers([]) == list(PEERS)
