"""Two sides of the TLS coding understand each other, whatever the pieces are that come over the wire."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.arms.tls_coding import TlsCoding, TlsContexts, tls_contexts
from tests.strategies import examples


@pytest.fixture(scope="module")
def contexts() -> TlsContexts:
    return tls_contexts()


class Wire:
    """Two codings, and what is on its way from each to the other."""

    def __init__(self, contexts: TlsContexts) -> None:
        self.client = TlsCoding(contexts.client, server_side=False)
        self.server = TlsCoding(contexts.server, server_side=True)
        up, down = self.client.open(), self.server.open()
        assert down == b""
        self.handshake_up = len(up)
        while not (self.client.ready and self.server.ready):
            plain, down = self.server.decode(up)
            assert plain == b""
            plain, up = self.client.decode(down)
            assert plain == b""
            self.handshake_up += len(up)


@settings(max_examples=examples(20), deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=4), st.integers(1, 5000))
def test_data_arrives_in_whatever_pieces(contexts: TlsContexts, messages: list[bytes], size: int) -> None:
    wire = Wire(contexts)
    for sender, receiver in ((wire.client, wire.server), (wire.server, wire.client)):
        coded = b"".join(sender.encode(message) for message in messages)
        arrived = [receiver.decode(coded[at : at + size]) for at in range(0, len(coded), size)]
        assert b"".join(piece.plain for piece in arrived) == b"".join(messages)
        assert all(piece.reply == b"" for piece in arrived)


def test_no_ticket_follows_the_handshake(contexts: TlsContexts) -> None:
    """A ticket would come with the first reply, and count as its bytes."""
    wire = Wire(contexts)
    assert len(wire.server.encode(b"x")) == 5 + 1 + 1 + 16  # RFC 8446, 5.2: head, data, type, tag
    assert 200 < wire.handshake_up < 700


def test_the_end_is_told_and_the_other_way_stays_open(contexts: TlsContexts) -> None:
    wire = Wire(contexts)
    wire.server.decode(wire.client.close())
    assert wire.server.ended
    assert wire.client.decode(wire.server.encode(b"late")).plain == b"late"
    wire.client.decode(wire.server.close())
    assert wire.client.ended


def test_what_is_no_tls_is_refused(contexts: TlsContexts) -> None:
    with pytest.raises(ssl.SSLError):
        TlsCoding(contexts.server, server_side=True).decode(b"GET / HTTP/1.1\r\n\r\n")


def test_no_other_certificate_is_trusted(contexts: TlsContexts) -> None:
    other = tls_contexts(protocols=("h2",))
    client, server = TlsCoding(contexts.client, server_side=False), TlsCoding(other.server, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        client.decode(server.decode(client.open()).reply)
