"""A digest of the items that a history begins with, in O(new items): it tells whether an upstream holds that history.

The digest of a turn is kept beside the turn, as its rendering is. Not here: what an upstream was sent of the items
(the dialects), and what it holds (`upstreams.continuation`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from segue.dialects.render_cache import RenderCache
from segue.history.chains import History, Turn, newest_first
from segue.protocol.items import Item

_VIEW = "prefix"


class PrefixDigests(msgspec.Struct, frozen=True):
    """The digests of a chain up to the output of a turn, and with it."""

    asked: bytes
    answered: bytes

    @property
    def size_bytes(self) -> int:
        """Roughly what they take in memory."""
        return len(self.asked) + len(self.answered)


def digest_of(history: History, cache: RenderCache) -> bytes:
    """Return the digest of a whole history."""
    before = b"" if history.parent is None else digests_of(history.parent, cache).answered
    return _digest(before, history.input)


def digests_of(turn: Turn, cache: RenderCache) -> PrefixDigests:
    """Return the digests of a turn; its `asked` is what `digest_of` was for the history that the turn answered."""
    view = cache.view(_VIEW, PrefixDigests)
    missing: list[Turn] = []
    found: PrefixDigests | None = None
    for one in newest_first(turn):
        found = view.find(one)
        if found is not None:
            break
        missing.append(one)
    digests = found or PrefixDigests(b"", b"")
    for one in reversed(missing):
        asked = _digest(digests.answered, one.input)
        digests = PrefixDigests(asked, _digest(asked, one.output))
        view.keep(one, digests)
    return digests


def _digest(before: bytes, items: Iterable[Item]) -> bytes:
    digest = hashlib.sha256(before)
    for item in items:
        digest.update(b"\0" + item)  # no JSON text holds this byte
    return digest.digest()
