"""Lists items: one page of the input of a response, or of a conversation.

Items are kept as their author wrote them. A listing completes them with the id, the status and the list content that
the schema wants. It parses kept items, but never as part of a turn. A client pages through a list by the ids in it, and
authors give one id to several items: the newest of them has it, and the others have those that items without an id
have. Not here: how stored items are read (stores).
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


class ListedItem(NamedTuple):
    """An item, its place in its turn, and the id under which lists show it."""

    item: Item
    response_id: ResponseId
    number: int
    ident: str


def paginate(runs: Sequence[ItemRun], page: Page, *, encrypted: bool = False) -> bytes | Problem:
    """Cut the page out of all items (oldest first) and encode the list object.

    Of a list that begins with the newest, what is behind the page is not looked at. A page ends early, but not before
    its first item, rather than hold more than `PAGE_BYTES`: its client asks for the next one then, as after any page.
    `encrypted_content` is shown if the client asked for it.
    """
    rest = _in_order(runs, page.order)
    if page.after is not None and not any(one.ident == page.after for one in rest):
        return Problem("item_not_found", f"No item with id {quoted(page.after)} in this list.", "after")
    data: list[dict[str, Any]] = []
    size, more = 0, next(rest, None)
    while more is not None and len(data) < page.limit and (not data or size + len(more.item) <= PAGE_BYTES):
        data.append(_complete(more, encrypted=encrypted))
        size += len(more.item)
        more = next(rest, None)
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return encode(_Listing(data, first, last, more is not None))


def list_all(runs: Sequence[ItemRun]) -> bytes:
    """Encode the list object of a few items, all of them, in their order."""
    data = [_complete(one, encrypted=False) for one in _in_order(runs, "asc")]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return encode(_Listing(data, first, last, has_more=False))


def show_item(item: ListedItem, *, encrypted: bool = False) -> bytes:
    """Encode one item as a list shows it."""
    return encode(_complete(item, encrypted=encrypted))


def is_small(runs: Sequence[ItemRun], page: Page) -> bool:
    """Tell whether a page is the first one, and soon written."""
    looked_at = runs[::-1] if page.order == "desc" else runs
    items = (item for run in looked_at for item in run.items[:: -1 if page.order == "desc" else 1])
    return page.after is None and sum(map(len, islice(items, page.limit if page.order == "desc" else None))) < _FEW


def newest_first(runs: Sequence[ItemRun]) -> Iterator[ListedItem]:
    """Yield the items of runs (oldest first) from the newest on, with the ids under which all lists show them.

    Whatever the order of a list, the newest item with an id has it, so that an id always stands for one item.
    """
    seen: set[str] = set()
    for one in _by_themselves(runs, -1):
        ident, number = one.ident, one.number
        while ident in seen:  # an author may have given an item the id that another one has by its place
            kind = key_of(one.item).kind or "message"
            ident, number = derived_item_id(kind, one.response_id, number), number + _NEXT_NUMBER
        seen.add(ident)
        yield one if ident == one.ident else one._replace(ident=ident)


def _in_order(runs: Sequence[ItemRun], order: Order) -> Iterator[ListedItem]:
    if order == "desc":
        yield from newest_first(runs)
        return
    own = _by_themselves(runs, -1)
    renamed = {
        (new.response_id, new.number): new.ident
        for new, old in zip(newest_first(runs), own, strict=True)
        if new.ident != old.ident
    }
    for one in _by_themselves(runs, 1):
        yield one._replace(ident=renamed.get((one.response_id, one.number), one.ident))


def _by_themselves(runs: Sequence[ItemRun], step: int) -> Iterator[ListedItem]:
    """Yield items with the ids that they would have if no other had the same."""
    for run in runs[::step]:
        for at in range(len(run.items))[::step]:
            item, number = run.items[at], run.first + at
            key = key_of(item)
            ident = key.id or derived_item_id(key.kind or "message", run.response_id, number)
            yield ListedItem(item, run.response_id, number, ident)


def _invalid(detail: str, param: str | None = None) -> Problem:
    return Problem("invalid_value", f"Invalid query parameter: {detail}", param)


def _complete(one: ListedItem, *, encrypted: bool) -> dict[str, Any]:
    item: dict[str, Any] = msgspec.json.decode(one.item)
    kind = item.get("type") or "message"
    shown = {**item, "type": kind, "id": one.ident}
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
