"""Which stored responses a client wants to see in a list: by labels, by time, from a place on.

A label is what a response can be found by: a pair of its metadata, or its model. Its name is that of the query
parameter which asks for it. Not here: how a store finds responses (`segue.stores`), and what a list of them looks like
(`response_listing`).
"""

from __future__ import annotations

import hashlib
from math import inf
from typing import Literal, NamedTuple

import msgspec

from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId

#: The place of a response in the order of a list: when it was made, and a number that no other response has.
Position = tuple[float, int]

#: How many responses a store looks at to fill one page, all labels together; then the query is too broad.
SCAN_LIMIT = 20_000

#: Less than any number in a position.
_BEFORE_ALL = -1


class Label(NamedTuple):
    """What responses are found by: `model`, or `metadata[key]`, and its value."""

    name: str
    value: str

    @property
    def digest(self) -> bytes:
        """Sixteen bytes that stand for it. Its value may be long, and have characters that a database refuses."""
        return hashlib.sha256(encode(self)).digest()[:16]


class ResponseQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The responses that have all `labels`, from a time on and before another, in the order of time.

    There are at most `limit`, and they come after the response `after`.
    """

    labels: tuple[Label, ...] = ()
    created_from: float = -inf
    created_before: float = inf
    after: ResponseId | None = None
    order: Literal["asc", "desc"] = "desc"
    limit: int = 20

    def bounds(self, after: Position | None) -> tuple[Position, Position]:
        """Return the positions between which the responses are; neither is one of them."""
        low, high = (self.created_from, _BEFORE_ALL), (self.created_before, _BEFORE_ALL)
        if after is None:
            return low, high
        return (max(low, after), high) if self.order == "asc" else (low, min(high, after))


def model_label(model: str) -> Label:
    """Return the label of the responses of a model."""
    return Label("model", model)


def metadata_label(key: str, value: str) -> Label:
    """Return the label of the responses that have a pair in their metadata."""
    return Label(f"metadata[{key}]", value)
