"""The list of stored responses: the query of a client, checked, and the list object.

OpenAI's API has no such list. Ours has the shape that its others have, and the parameters of the one of chat
completions. Not here: how responses are found (`response_query`, and stores), and lists of items (`listing`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import inf, isnan
from typing import Literal

import msgspec

from segue.protocol.codec import encode, explain
from segue.protocol.ids import ResponseId, parse_response_id
from segue.protocol.listing import MAX_LIMIT
from segue.protocol.problems import Problem, quoted
from segue.protocol.requests import ENCRYPTED_REASONING
from segue.protocol.response_query import Label, ResponseQuery, metadata_label, model_label
from segue.protocol.responses import EncodedResponse

_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
#: As many pairs as metadata can have, and a model.
_MAX_LABELS = 17
#: What a client may ask to see, in one of the ways that SDKs write a list.
_INCLUDE = frozenset({"include", "include[]"})


class ListRequest(msgspec.Struct, frozen=True):
    """A list that a client asks for. With `backwards` its query goes the other way, and the page is turned round."""

    query: ResponseQuery
    backwards: bool = False
    encrypted: bool = False

    @property
    def param(self) -> str:
        """The parameter that says where the page begins."""
        return "before" if self.backwards else "after"


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters that have one value."""

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None
    created_after: float = -inf
    created_before: float = inf


def parse_list_request(query: Iterable[tuple[str, str]]) -> ListRequest | Problem:
    """Check the query parameters of a request for a list. A filter that is not known is refused, not left out."""
    single: dict[str, str] = {}
    labels: set[Label] = set()
    encrypted = False
    for name, value in query:
        pair = _METADATA.fullmatch(name)
        if pair is not None:
            labels.add(metadata_label(pair[1], value))
        elif name == "model":
            labels.add(model_label(value))
        elif name in _INCLUDE:
            encrypted = encrypted or value == ENCRYPTED_REASONING
        else:
            single[name] = value
    try:
        wanted = msgspec.convert(single, _Parameters, strict=False)
        for text in (*single.values(), *(part for label in labels for part in label)):
            text.encode()
    except msgspec.ValidationError as error:
        problem = explain(error)
        return Problem("invalid_value", f"Invalid query parameter: {problem.message}", problem.param)
    except UnicodeError:
        return Problem("invalid_value", "Invalid query parameter: it holds text that is not valid Unicode.")
    return _checked(wanted, tuple(sorted(labels)), encrypted=encrypted)


def _checked(wanted: _Parameters, labels: tuple[Label, ...], *, encrypted: bool) -> ListRequest | Problem:
    if not 1 <= wanted.limit <= MAX_LIMIT:
        return Problem("invalid_value", f"'limit' must be between 1 and {MAX_LIMIT}.", "limit")
    for name in ("created_after", "created_before"):
        if isnan(getattr(wanted, name)):  # nothing is before it or after it
            return Problem("invalid_value", f"'{name}' must be a time, in seconds.", name)
    if len(labels) > _MAX_LABELS:
        return Problem("invalid_value", "A response has at most 16 pairs of metadata.", "metadata")
    backwards = wanted.before is not None
    if backwards and wanted.after is not None:
        return Problem("invalid_value", "A page is after a response or before one: leave one of them out.", "before")
    cursor = wanted.before if backwards else wanted.after
    after = None if cursor is None else parse_response_id(cursor)
    if cursor is not None and after is None:
        return not_in_list(cursor, "before" if backwards else "after")
    opposite: Literal["asc", "desc"] = "desc" if wanted.order == "asc" else "asc"
    query = ResponseQuery(
        labels=labels,
        created_from=wanted.created_after,
        created_before=wanted.created_before,
        after=after,
        order=opposite if backwards else wanted.order,
        limit=wanted.limit,
    )
    return ListRequest(query, backwards, encrypted)


def not_in_list(response_id: str, param: str) -> Problem:
    """There is no such response to begin a page with: unknown, expired, deleted, or somebody else's, all look alike."""
    return Problem("response_not_found", f"Response with id {quoted(response_id)} not found.", param)


def too_broad() -> Problem:
    """No filter of a query is rare enough."""
    message = (
        "Too many responses have each of these alone, and too few have all of them to fill a page. "
        "Ask for a shorter time ('created_after', 'created_before')."
    )
    return Problem("invalid_value", message, "metadata")


def list_pieces(
    responses: Sequence[tuple[ResponseId, EncodedResponse]], *, has_more: bool
) -> Sequence[bytes | memoryview]:
    """Return the list object, in pieces: the responses are as large as they are."""
    pieces: list[bytes | memoryview] = []
    for _, response in responses:
        pieces += (b"," if pieces else b'{"object":"list","data":[', *response.pieces())
    first, last = (responses[0][0], responses[-1][0]) if responses else (None, None)
    end = encode({"first_id": first, "last_id": last, "has_more": has_more})
    return (*(pieces or [b'{"object":"list","data":[']), b"],", memoryview(end)[1:])
