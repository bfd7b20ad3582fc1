"""Every entry can be started as it is: its placeholders are known, and it listens on this machine alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from segue.bench.peers.catalogue import PEERS, Peer, PeerPlace
from segue.config import load

PLACE = PeerPlace(port=4001, spare_port=4002, provider="http://127.0.0.1:4003", folder="/somewhere")


def test_names_are_unique_and_each_peer_stands_beside_one_of_ours() -> None:
    names = [peer.name for peer in PEERS]
    assert len(set(names)) == len(names)
    for peer in PEERS:
        if peer.ours:
            assert peer.beside == ""
            continue
        (own,) = [one for one in PEERS if one.name == peer.beside]
        assert own.ours
        assert own.provider_api == peer.provider_api
        assert set(peer.doors) <= set(own.doors)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_placeholders_are_filled(peer: Peer) -> None:
    texts = [*peer.arguments, *(text for _, text in peer.files), *(value for _, value in peer.environment)]
    filled = "\n".join(PLACE.fill(text) for text in texts)
    assert "$" not in filled
    assert "4001" in filled
    assert "http://127.0.0.1:4003" in filled
    assert peer.ours or "127.0.0.1" in filled.replace("http://127.0.0.1:4003", "")  # a peer's own default is 0.0.0.0
    assert peer.tested in peer.install or peer.ours


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.ours], ids=lambda peer: peer.name)
def test_our_own_configurations_are_valid(peer: Peer, tmp_path: Path) -> None:
    ((name, text),) = peer.files
    file = tmp_path / name
    file.write_text(PLACE.fill(text))
    tomllib.loads(file.read_text())
    config = load(file, environ={})
    assert config.server.port == 4001
    assert config.upstream[0].models == [peer.model]
