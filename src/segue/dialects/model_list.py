"""Reads the list of models that a provider answers to `GET /models`, in any of its shapes.

OpenAI, Anthropic and those that imitate them answer an object with `data`, some a bare list; each model is an object
with an `id`. Not here: asking for it, and keeping it (`upstreams.model_listing`).
"""

from __future__ import annotations

import msgspec

from segue.protocol.codec import UNREADABLE

#: How many models of a provider are listed, and how long the name of one may be.
MAX_MODELS = 1000
MAX_NAME_CHARS = 256


class _Model(msgspec.Struct):
    id: str


class _ModelPage(msgspec.Struct):
    data: list[msgspec.Raw]


_list = msgspec.json.Decoder(_ModelPage | list[msgspec.Raw])
_model = msgspec.json.Decoder(_Model)


def read_model_names(body: bytes) -> tuple[str, ...] | None:
    """Return the names in a list of models, each once; None if it is no such list. What is no model is left out."""
    try:
        read = _list.decode(body)
    except UNREADABLE:
        return None
    names: dict[str, None] = {}
    for raw in read.data if isinstance(read, _ModelPage) else read:
        name = _name(raw)
        if name is not None and len(names) < MAX_MODELS:
            names[name] = None
    return tuple(names)


def _name(raw: msgspec.Raw) -> str | None:
    try:
        name = _model.decode(raw).id
    except UNREADABLE:
        return None
    return name if 0 < len(name) <= MAX_NAME_CHARS and name.isprintable() else None
