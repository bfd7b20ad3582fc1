"""Writes what the documentation says about content codings of segue's own.

Not here: which streams are encoded (`segue.gateway.api.sse`).
"""

from __future__ import annotations

import hashlib
import zlib

from segue.http.event_coding import DICTIONARY


def event_dictionary() -> str:
    """Write the dictionary of the coding `segue-1`, and how to tell that one has it to the byte."""
    text, digest = DICTIONARY.decode(), hashlib.sha256(DICTIONARY).hexdigest()
    assert text.startswith("\n"), "the fence ends its own line"
    assert text.endswith("\n")
    said = f"It has {len(DICTIONARY):,} bytes, its `DICTID` is {zlib.adler32(DICTIONARY):,}, and its SHA-256 is"
    return f"{said}\n`{digest}`.\n\n```text{text}```"
