"""A request that goes on to an upstream of the same API: the bytes of its client, but for what the gateway must change.

Not here: which fields those are in an API (its dialect), and reading the request (its door).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segue.dialects.interface import Rendered
from segue.dialects.rules import Preset
from segue.protocol.codec import encode
from segue.protocol.object_text import ObjectText


def passed_on(
    body: ObjectText,
    fields: Mapping[str, bytes | Sequence[bytes]],
    *,
    preset: Preset | None = None,
    known: frozenset[str] = frozenset(),
    without: frozenset[str] = frozenset(),
) -> Rendered:
    """Return a body with these `fields` in place of the client's, or beside them, and `without` some of the client's.

    What the configuration adds to every request stands at the end. A client's field of that name stays if it is one of
    those that are `known` in the API; what only the upstream itself may set is left out.
    """
    own = Preset() if preset is None else preset
    without |= own.withheld | (own.fields.keys() - known)
    pieces = {name: (value,) if isinstance(value, bytes) else value for name, value in fields.items()}
    there = body.spans.keys() - without
    added = {name: b"".join(value) for name, value in pieces.items() if name not in there}
    added |= {name: encode(value) for name, value in own.fields.items() if name not in there and name not in added}
    return Rendered(body.changed(pieces, without=without, added=added))
