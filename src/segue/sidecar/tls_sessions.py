"""TLS towards gateways: they are verified, and a connection resumes the TLS session of the last one to the same name.

A resumed session needs no certificates (RFC 8446, 2.2): some kilobytes less on a thin link, and with TLS 1.2 one round
trip less. With TLS 1.3 it takes one round trip either way; data in the first flight (0-RTT) would save that one too,
but Python's `ssl` cannot send it. The session is bound to the name that was verified. Not here: the connection
(`segue.sidecar.connector`).
"""

from __future__ import annotations

import ssl
import sys
from collections import OrderedDict

import msgspec

#: For so many names of gateways. Nodes may tell names of their own.
_MAX_SESSIONS = 16


class ResumingContext(ssl.SSLContext):
    """A context of clients. asyncio passes no session to `wrap_bio`, so the context itself knows the last ones."""

    def __init__(self, _protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> None:
        self._sessions: OrderedDict[str, ssl.SSLSession] = OrderedDict()

    def __new__(cls, protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> ResumingContext:  # noqa: PYI034 - it has no subclass
        """Make a context; `ssl` wants to be told the protocol here."""
        return super().__new__(cls, protocol)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the interface is ssl's
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection, and offer the server the session of the last one to this name."""
        if session is None and isinstance(server_hostname, str):
            session = self._sessions.get(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def remember(self, connection: ssl.SSLObject) -> None:
        """Keep the session of a connection on which something has come: its ticket is here too then."""
        name, session = connection.server_hostname, connection.session
        if name is None or session is None:
            return
        self._sessions[name] = session
        self._sessions.move_to_end(name)
        while len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)


class ClientIdentity(msgspec.Struct, frozen=True):
    """The files of a certificate that is shown to gateways, and of its key."""

    certificate: str
    key: str


def verifying_context(cafile: str | None, identity: ClientIdentity | None = None) -> ResumingContext:
    """Return a context like that of `ssl.create_default_context`: certificates are the system's, or only a file's.

    `identity` is shown to servers that ask for it. Raises `OSError` or `ValueError` if a file cannot be used.
    """
    context = ResumingContext()  # verifies certificates and names, as clients do by default
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    if cafile is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key has a password: write it without one, readable by you alone")
