"""Lists items for `GET /v1/responses/{id}/input_items`: one page of the input of a response.

Items are kept as their author wrote them. A listing completes them with the id, the status and the list content that
the schema wants. It parses kept items, but never as part of a turn. Not here: how stored items are read (stores).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from segue.protocol.codec import encode, explain
from segue.protocol.ids import FIRST_INPUT_NUMBER, ResponseId, derived_item_id
from segue.protocol.items import Item
from segue.protocol.problems import Problem, quoted

Order = Literal["asc", "desc"]

_WITH_STATUS = frozenset(
    {"message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"}
)
#: Fields of a part that a client may leave out, but a listing may not.
_PART_DEFAULTS: dict[str, dict[str, Any]] = {"output_text": {"annotations": []}, "input_image": {"detail": "auto"}}


class Page(msgspec.Struct, frozen=True):
    """The page that a client asks for, checked: at most `limit` items after the item `after`."""

    limit: int = 20
    order: Order = "desc"
    after: str | None = None


class _Listing(msgspec.Struct, frozen=True):
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class _PageQuery(msgspec.Struct):
    limit: int = 20
    order: Order = "desc"
    after: str | None = None


MAX_LIMIT = 100


def parse_page(query: dict[str, str]) -> Page | Problem:
    """Check the query parameters of a list request."""
    try:
        wanted = msgspec.convert(query, _PageQuery, strict=False)
    except msgspec.ValidationError as error:
        problem = explain(error)
        return _invalid(problem.message, problem.param)
    except UnicodeError:
        return _invalid("It holds text that is not valid Unicode.")
    if not 1 <= wanted.limit <= MAX_LIMIT:
        return Problem("invalid_value", f"'limit' must be between 1 and {MAX_LIMIT}.", "limit")
    return Page(wanted.limit, wanted.order, wanted.after)


def show(
    items: Sequence[Item], response_id: ResponseId, *, first: int = FIRST_INPUT_NUMBER, encrypted: bool = False
) -> list[dict[str, Any]]:
    """Complete the items that a turn took in, or with `first=0` made, for a listing.

    `encrypted_content` is shown if the client asked for it.
    """
    listed = [_complete(msgspec.json.decode(item), response_id, number) for number, item in enumerate(items, first)]
    if not encrypted:
        for item in listed:
            if item["type"] == "reasoning":
                item.pop("encrypted_content", None)
    return listed


def paginate(items: list[dict[str, Any]], page: Page) -> bytes | Problem:
    """Cut the page out of all items (oldest first) and encode the list object."""
    ordered = items if page.order == "asc" else items[::-1]
    start = 0
    if page.after is not None:
        found = next((index for index, item in enumerate(ordered) if item["id"] == page.after), None)
        if found is None:
            return Problem("item_not_found", f"No item with id {quoted(page.after)} in this list.", "after")
        start = found + 1
    data = ordered[start : start + page.limit]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return encode(_Listing(data, first, last, start + page.limit < len(ordered)))


def _invalid(detail: str, param: str | None = None) -> Problem:
    return Problem("invalid_value", f"Invalid query parameter: {detail}", param)


def _complete(item: dict[str, Any], response_id: ResponseId, number: int) -> dict[str, Any]:
    kind = item.get("type") or "message"
    ident = item.get("id") or derived_item_id(kind, response_id, number)
    shown = {**item, "type": kind, "id": ident}
    if kind in _WITH_STATUS:
        shown["status"] = item.get("status") or "completed"
    if kind == "message":
        content = item["content"]
        part = "output_text" if item["role"] == "assistant" else "input_text"
        parts = [{"type": part, "text": content}] if isinstance(content, str) else content
        shown["content"] = [{**_PART_DEFAULTS.get(part["type"], {}), **part} for part in parts]
    return shown
