"""Lists items: one page of the input of a response, or of a conversation.

Items are kept as their author wrote them. A listing completes them with the id, the status and the list content that
the schema wants. It parses kept items, but never as part of a turn. A client pages through a list by the ids in it, and
authors give one id to several items: in a list, the first of them has it, and the others have those that items without
an id have. Not here: how stored items are read (stores).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import msgspec

from segue.protocol.codec import encode, explain
from segue.protocol.ids import FIRST_INPUT_NUMBER, ResponseId, derived_item_id
from segue.protocol.items import Item, key_of
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
#: How many bytes of items a page may have, if they are more than one.
PAGE_BYTES = 4 * 1024 * 1024
#: More than any item's number is: added to one, it makes the number of none.
_NEXT_NUMBER = 0x10000
#: So many bytes are read and written within a millisecond or two.
_FEW = 256 * 1024


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


class ItemRun(NamedTuple):
    """Items that a turn took in, or with `first=0` made; `first` is the number of the first of them."""

    items: Sequence[Item]
    response_id: ResponseId
    first: int = FIRST_INPUT_NUMBER


class _Shown(NamedTuple):
    item: Item
    response_id: ResponseId
    number: int


def paginate(runs: Sequence[ItemRun], page: Page, *, encrypted: bool = False) -> bytes | Problem:
    """Cut the page out of all items (oldest first) and encode the list object. What is behind it is not looked at.

    A page ends early, but not before its first item, rather than hold more than `PAGE_BYTES`: its client asks for the
    next one then, as after any page. `encrypted_content` is shown if the client asked for it.
    """
    rest = _in_order(runs, page.order)
    shown: set[str] = set()
    if page.after is not None and not any(_ident(one, shown) == page.after for one in rest):
        return Problem("item_not_found", f"No item with id {quoted(page.after)} in this list.", "after")
    data: list[dict[str, Any]] = []
    size, more = 0, next(rest, None)
    while more is not None and len(data) < page.limit and (not data or size + len(more.item) <= PAGE_BYTES):
        data.append(_complete(more, shown, encrypted=encrypted))
        size += len(more.item)
        more = next(rest, None)
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return encode(_Listing(data, first, last, more is not None))


def list_all(runs: Sequence[ItemRun]) -> bytes:
    """Encode the list object of a few items, all of them, in their order."""
    shown: set[str] = set()
    data = [_complete(one, shown, encrypted=False) for one in _in_order(runs, "asc")]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return encode(_Listing(data, first, last, has_more=False))


def show_item(run: ItemRun, place: int, *, encrypted: bool = False) -> bytes:
    """Encode one item of a turn as a list shows it."""
    return encode(_complete(_Shown(run.items[place], run.response_id, run.first + place), set(), encrypted=encrypted))


def is_small(runs: Sequence[ItemRun], page: Page) -> bool:
    """Tell whether a page is the first one, and soon written."""
    return page.after is None and sum(len(one.item) for one in islice(_in_order(runs, page.order), page.limit)) < _FEW


def _in_order(runs: Sequence[ItemRun], order: Order) -> Iterator[_Shown]:
    step = 1 if order == "asc" else -1
    for run in runs[::step]:
        for at in range(len(run.items))[::step]:
            yield _Shown(run.items[at], run.response_id, run.first + at)


def _invalid(detail: str, param: str | None = None) -> Problem:
    return Problem("invalid_value", f"Invalid query parameter: {detail}", param)


def _ident(one: _Shown, seen: set[str]) -> str:
    """Return the id that an item has in a list, and add it to those `seen` there before."""
    key = key_of(one.item)
    return _unique(key.id, key.kind or "message", one, seen)


def _unique(given: str | None, kind: str, one: _Shown, seen: set[str]) -> str:
    ident, number = given, one.number
    while not ident or ident in seen:  # an author may have given an item the id that another one has by its place
        ident, number = derived_item_id(kind, one.response_id, number), number + _NEXT_NUMBER
    seen.add(ident)
    return ident


def _complete(one: _Shown, seen: set[str], *, encrypted: bool) -> dict[str, Any]:
    item: dict[str, Any] = msgspec.json.decode(one.item)
    kind = item.get("type") or "message"
    shown = {**item, "type": kind, "id": _unique(item.get("id"), kind, one, seen)}
    if kind == "reasoning" and not encrypted:
        shown.pop("encrypted_content", None)
    if kind in _WITH_STATUS:
        shown["status"] = item.get("status") or "completed"
    if kind == "message":
        content = item["content"]
        part = "output_text" if item["role"] == "assistant" else "input_text"
        parts = [{"type": part, "text": content}] if isinstance(content, str) else content
        shown["content"] = [{**_PART_DEFAULTS.get(part["type"], {}), **part} for part in parts]
    return shown
