"""The certificate of a client, and which `[[certificate]]` of the configuration it is. Pure.

TLS has verified it against the authorities of `tls_client_ca` before anything here sees it. Not here: TLS itself
(`server_tls`), and what its holder may do (`access`).
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from segue.config import CertificateConfig


class ClientCertificate(msgspec.Struct, frozen=True):
    """What is known of a certificate. `sha256`: its fingerprint, hex; `expires_at`: its own end, in unix seconds."""

    sha256: str
    subject: tuple[tuple[str, str], ...]
    sans: frozenset[str]
    expires_at: float

    def is_meant_by(self, row: CertificateConfig) -> bool:
        """Tell whether a row of the configuration means this certificate."""
        if row.sha256 is not None:
            return row.sha256 == self.sha256
        if row.san is not None:
            return _comparable(row.san) in self.sans
        return bool(row.subject) and all(self._has(name, value) for name, value in row.subject.items())

    def _has(self, name: str, value: str) -> bool:
        """Tell whether the subject has an attribute once, with this value: of two, nobody can say which one counts."""
        return [found for known, found in self.subject if known == name] == [value]


def client_certificate(der: bytes, shown: Mapping[str, Any]) -> ClientCertificate:
    """Read a certificate; `shown` is what Python tells of one that was verified (`ssl.SSLSocket.getpeercert`)."""
    return ClientCertificate(
        sha256=hashlib.sha256(der).hexdigest(),
        subject=tuple((name, value) for names in shown.get("subject", ()) for name, value in names),
        sans=frozenset(_sans(shown)),
        expires_at=ssl.cert_time_to_seconds(shown["notAfter"]),
    )


def _sans(shown: Mapping[str, Any]) -> Iterator[str]:
    for kind, value in shown.get("subjectAltName", ()):
        if isinstance(value, str):  # the name of a directory is none
            yield _comparable(f"{kind}:{value}")


def _comparable(san: str) -> str:
    """Return a name as it is compared: those of hosts know no capitals (RFC 5280, 4.2.1.6)."""
    return san.lower() if san.startswith("DNS:") else san
