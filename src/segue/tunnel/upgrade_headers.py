"""What the upgrade of a link carries of the tunnel: the sidecar's first packet, and the gateway's epoch. Pure.

A WebSocket client may send nothing before the answer to its upgrade has come (RFC 6455, 4.1). So the HELLO travels in
the request itself, and its WELCOME comes right behind the answer: a link begins one round trip sooner. Not here: the
frames (`segue.tunnel.frames`).

An upgrade that was given up may still arrive, later than the one that took its place: a network delivers what it has
accepted. Its HELLO would cancel what was opened since. So each upgrade of a session has a number.
"""

from __future__ import annotations

import base64
import binascii
import re

#: A header of the upgrade request: how many upgrades the sidecar has asked for in this session, this one included.
LINK_HEADER = "Segue-Link"
#: A header of the upgrade request: the first packet of the link.
HELLO_HEADER = "Segue-Hello"
#: A header of its answer: the epoch of the node. Whoever sends it takes HELLO_HEADER.
EPOCH_HEADER = "Segue-Epoch"
#: Servers and proxies take heads of 8 KiB; a larger packet is sent behind the answer.
MAX_HELLO_BYTES = 3 * 1024

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def encode_hello(packet: bytes) -> str:
    """Return the value of the header (base64url without padding, RFC 4648, 5)."""
    return base64.urlsafe_b64encode(packet).rstrip(b"=").decode()


def decode_hello(value: str) -> bytes | None:
    """Return the packet in a header; None: it holds none, or a larger one than a sidecar may send."""
    if len(value) > (MAX_HELLO_BYTES * 4 + 2) // 3 or _BASE64URL.fullmatch(value) is None:
        return None
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except binascii.Error:
        return None


def read_link_number(value: str) -> int | None:
    """Return the number in a header; None: it holds none."""
    return int(value) if _NUMBER.fullmatch(value) else None
