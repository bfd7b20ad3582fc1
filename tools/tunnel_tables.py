"""The tables of the tunnel's specification: what folds read and write, and the registries of the wire.

What is there comes from the code; what it means is said here, and a word too many or too few is a mistake. Not here:
the marks in the pages (`generate_docs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec import inspect as kinds

from segue.tunnel import parameters
from segue.tunnel.folds.chat import ChatFoldChunk
from segue.tunnel.folds.gemini import GeminiFoldChunk
from segue.tunnel.folds.messages import BLOCKS, TYPES, MessagesFoldEvent
from segue.tunnel.folds.responses import LAYOUTS, PARTS, ResponsesFoldEvent
from tools.markdown import Row, code, table

# --- folds -----------------------------------------------------------------------------------------------------------


def responses_fields() -> str:
    """Write the fields that the fold of Responses reads."""
    return _fields(ResponsesFoldEvent)


def chat_fields() -> str:
    """Write the fields that the fold of Chat Completions reads."""
    return _fields(ChatFoldChunk)


def messages_fields() -> str:
    """Write the fields that the fold of Messages reads."""
    return _fields(MessagesFoldEvent)


def gemini_fields() -> str:
    """Write the fields that the fold of Gemini reads."""
    return _fields(GeminiFoldChunk)


def _fields(struct: type[msgspec.Struct]) -> str:
    rows = [(code(name), kind, "no" if required else "yes") for name, kind, required in _walk(struct, "")]
    return table(("field", "type", "may be absent or null"), rows)


def _walk(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str, bool]]:
    info = kinds.type_info(struct)
    assert isinstance(info, kinds.StructType)
    for field in info.fields:
        name = prefix + field.encode_name
        kind = _without_null(field.type)
        inner, suffix = (kind.item_type, "[]") if isinstance(kind, kinds.ListType) else (kind, "")
        yield name, (f"list of {_name(inner)}s" if suffix else _name(inner)), field.required
        if isinstance(inner, kinds.StructType):
            yield from _walk(inner.cls, f"{name}{suffix}.")


def _without_null(kind: kinds.Type) -> kinds.Type:
    if not isinstance(kind, kinds.UnionType):
        return kind
    (other,) = (one for one in kind.types if not isinstance(one, kinds.NoneType))
    return other


def _name(kind: kinds.Type) -> str:
    match kind:
        case kinds.StrType():
            return "string"
        case kinds.IntType():
            return "integer"
        case kinds.StructType() | kinds.DictType():
            return "object"
        case kinds.CustomType(cls=cls) if cls is object:
            return "any"
        case _:
            raise TypeError(f"say in _name() how {kind!r} is called")


def item_layouts() -> str:
    """Write the order in which items are written."""
    rows = [
        (
            code(kind),
            ", ".join(layout.before),
            f"`{layout.field}`, a {_OPENED[layout.opening]}",
            ", ".join(layout.after),
        )
        for kind, layout in LAYOUTS.items()
    ]
    return table(("type", "keys before", "field", "keys after"), rows)


_OPENED = {b"[": "list", b'"': "string"}


def streamed_parts() -> str:
    """Write the deltas of items."""
    rows: list[Row] = [
        (
            code(delta.removeprefix("response.").removesuffix(".delta")),
            code(part.item_type),
            code("summary_index" if part.kind == "summary_text" else "content_index") if part.kind else "none",
            code(part.opening.decode()),
            code(part.closing.decode()),
        )
        for delta, part in PARTS.items()
    ]
    return table(
        ("`response.….delta`", "of an item", "part number", "a part begins with", "and ends before another with"), rows
    )


def message_types() -> str:
    """Write the types of events that the fold of Messages takes."""
    return ", ".join(map(code, sorted(TYPES)))


def block_layouts() -> str:
    """Write how blocks are written, and the deltas that they take."""
    rows: list[Row] = [
        (
            code(kind),
            code(layout.opening.decode()) or "its head",
            ", ".join(map(code, layout.deltas)),
            code(layout.closing.decode()),
        )
        for kind, layout in BLOCKS.items()
    ]
    return table(("block", "begins with", "takes", "ends with"), rows)


# --- registries ------------------------------------------------------------------------------------------------------


def parameter_ids() -> str:
    """Write the registry of parameters."""
    rows = [(str(number), name, value) for number, (name, value) in parameters.REGISTRY.items()]
    return table(("id", "parameter", "value"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "fold-responses-fields": responses_fields,
    "fold-responses-items": item_layouts,
    "fold-responses-deltas": streamed_parts,
    "fold-chat-fields": chat_fields,
    "fold-messages-types": message_types,
    "fold-messages-fields": messages_fields,
    "fold-messages-blocks": block_layouts,
    "fold-gemini-fields": gemini_fields,
    "tunnel-parameters": parameter_ids,
}
