"""Sealed summaries: what stands for a compacted history, which only the gateway can read and nobody can change.

A client keeps a compaction item and sends it back, so what is in it must be the gateway's, this tenant's, and whole. It
is sealed with AES-256-GCM (NIST SP 800-38D). Each tenant has a key of its own, derived by HKDF (RFC 5869) from a secret
of the configuration, and the tenant is authenticated beside it. The text begins with the id of the key that sealed it.
The id is derived from the secret too: secrets can be replaced one by one, and every gateway that has the secret opens
the text. Pure: the nonce is an argument. Not here: where the secrets come from, and what a summary does in a history
(`compaction`).
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from segue.protocol.codec import UNREADABLE, encode

#: How every sealed summary begins. Content without it was compacted by somebody else.
MARK = "segue.c1."
#: A nonce is drawn for each summary: 96 random bits, of which no tenant needs 2^32 (SP 800-38D, 8.3).
NONCE_BYTES = 12
#: The shortest secret that a key can be derived from.
MIN_SECRET_BYTES = 32
#: The longest summary, as UTF-8. What is longer is not opened.
MAX_SUMMARY_BYTES = 256 * 1024

_KEY_BYTES = 32
_ID_BYTES = 8
#: Longer than any text that `seal` returns: JSON may write a byte as six, and base64 writes three bytes as four.
_MAX_SEALED = len(MARK) + 2 * _ID_BYTES + 1 + 2 * (6 * MAX_SUMMARY_BYTES + 1024)


class _Content(msgspec.Struct):
    """What is sealed: the first version of it."""

    summary: str


class _Key(NamedTuple):
    ident: str
    secret: bytes


_contents = msgspec.json.Decoder(_Content)


class SummarySealer:
    """Seals with the first of its secrets, and opens what any of them has sealed."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        assert secrets, "one secret at least seals"
        assert all(len(secret) >= MIN_SECRET_BYTES for secret in secrets), "a short secret can be guessed"
        self._keys = [_Key(_derive(secret, b"id", _ID_BYTES).hex(), secret) for secret in secrets]

    def seal(self, tenant: str, summary: str, nonce: bytes) -> str:
        """Return a summary as text that only this tenant's requests can have opened; `nonce` must be fresh."""
        assert len(nonce) == NONCE_BYTES, f"{NONCE_BYTES} bytes of nonce, not {len(nonce)}"
        key = self._keys[0]
        data = _cipher(key, tenant).encrypt(nonce, encode(_Content(summary)), _context(key, tenant))
        return f"{MARK}{key.ident}.{urlsafe_b64encode(nonce + data).decode()}"

    def unseal(self, tenant: str, sealed: str) -> str | None:
        """Return the summary; None for a text of another tenant's, of an unknown key, or that was changed."""
        if len(sealed) > _MAX_SEALED or not sealed.startswith(MARK):
            return None
        ident, _, text = sealed[len(MARK) :].partition(".")
        key = next((key for key in self._keys if key.ident == ident), None)
        data = _decoded(text)
        if key is None or data is None or len(data) <= NONCE_BYTES:
            return None
        try:
            opened = _cipher(key, tenant).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _context(key, tenant))
            return _contents.decode(opened).summary
        except (InvalidTag, *UNREADABLE):
            return None


def is_sealed_here(content: str) -> bool:
    """Say whether a text looks like a summary that a gateway of this kind has sealed."""
    return content.startswith(MARK)


def _cipher(key: _Key, tenant: str) -> AESGCM:
    return AESGCM(_derive(key.secret, b"tenant\0" + _bytes(tenant), _KEY_BYTES))


def _derive(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=b"segue compaction 1\0" + purpose).derive(secret)


def _context(key: _Key, tenant: str) -> bytes:
    """Return what is authenticated beside the summary."""
    return b"\0".join((MARK.encode(), key.ident.encode(), _bytes(tenant)))


def _bytes(tenant: str) -> bytes:
    return tenant.encode("utf-8", "surrogatepass")


def _decoded(text: str) -> bytes | None:
    try:
        data = urlsafe_b64decode(text)
    except (binascii.Error, ValueError):
        return None
    return data if urlsafe_b64encode(data).decode() == text else None  # one way to write it, and no other
