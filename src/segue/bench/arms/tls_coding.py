"""TLS between the two ends of a measured wire, with a certificate that lives as long as the measurement.

`TlsCoding` is sans-I/O, so that every byte of the handshake can be told from what follows it. No session tickets are
issued: they would come with the first reply and count as its bytes. The certificate takes about 0.6 KB of the
handshake; a public chain takes 2 to 4 KB. Not here: the sockets (`coded_wire`), and the authority (`tls`).
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import NamedTuple

from segue.bench.arms.tls import Authority

#: Whom the authority's certificates are for.
_NAME = "127.0.0.1"
_READ_BYTES = 256 * 1024


class TlsContexts(NamedTuple):
    """The two sides of one certificate."""

    client: ssl.SSLContext
    server: ssl.SSLContext


class Decoded(NamedTuple):
    """What came out of the wire, and what the coding itself has to answer."""

    plain: bytes
    reply: bytes


class TlsCoding:
    """One side of one connection."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else _NAME
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=name)
        self.ready = False
        self.ended = False

    def open(self) -> bytes:
        """Return what is sent first."""
        return self._shake()

    def encode(self, plain: bytes) -> bytes:
        """Return the records of some data. The handshake must be over."""
        self._tls.write(plain)
        return self._outgoing.read()

    def decode(self, data: bytes) -> Decoded:
        """Take what came.

        Raises:
            ssl.SSLError: it is no TLS, or not that of the other side.
        """
        self._incoming.write(data)
        reply = b"" if self.ready else self._shake()
        return Decoded(self._read() if self.ready else b"", reply)

    def close(self) -> bytes:
        """Return what says that nothing more will be sent."""
        with suppress(ssl.SSLError):  # the other side has not said so yet, or has gone
            self._tls.unwrap()
        return self._outgoing.read()

    def _shake(self) -> bytes:
        try:
            self._tls.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass  # the other end has to say more first
        return self._outgoing.read()

    def _read(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(_READ_BYTES):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass  # all that has come is read
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(pieces)


def tls_contexts(*, protocols: tuple[str, ...] = ()) -> TlsContexts:
    """Make an authority, and the contexts of a server and of a client that trusts nobody else.

    `protocols` are those of ALPN (RFC 7301).
    """
    authority = Authority()
    contexts = TlsContexts(authority.client_context(), authority.server_context())
    contexts.server.num_tickets = 0
    for context in contexts:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if protocols:
            context.set_alpn_protocols(list(protocols))
    return contexts
