"""Lists of items: complete, in pages, in either order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.ids import FIRST_INPUT_NUMBER
from segue.protocol.items import parse_input
from segue.protocol.listing import MAX_LIMIT, PAGE_BYTES, ItemRun, Order, Page, is_small, paginate, parse_page
from segue.protocol.problems import Problem
from segue.testing.store_conformance import sample_id
from tests.strategies import any_text, examples, items

ID = sample_id("turn")
UNIQUE = ID[5:]


def shown(item: dict[str, Any]) -> dict[str, Any]:
    (found,) = show([json.dumps(item).encode()])
    return found


def show(items: list[bytes], *, first: int = FIRST_INPUT_NUMBER, encrypted: bool = False) -> list[dict[str, Any]]:
    found = [ItemRun(items, ID, first)]
    shown: list[dict[str, Any]] = listed(paginate(found, Page(100, "asc"), encrypted=encrypted))["data"]
    return shown


def listed(result: bytes | Problem) -> dict[str, Any]:
    assert isinstance(result, bytes), result
    value: dict[str, Any] = json.loads(result)
    return value


# ---------------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Page(20, "desc", None)),
        ({"limit": "1", "order": "asc", "after": "msg_1"}, Page(1, "asc", "msg_1")),
        ({"limit": "100"}, Page(100)),
        ({"after": ""}, Page(after="")),
        ({"include": "x", "before": "y"}, Page()),
    ],
)
def test_a_page_has_defaults(query: dict[str, str], expected: Page) -> None:
    """Those of the service; parameters that nobody knows are ignored."""
    assert parse_page(query) == expected


def invalid(detail: str, param: str) -> Problem:
    return Problem("invalid_value", f"Invalid query parameter: {detail}", param)


NO_INTEGER = "Invalid type for 'limit': expected an integer, but got a string instead."


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"limit": "0"}, Problem("invalid_value", "'limit' must be between 1 and 100.", "limit")),
        ({"limit": "101"}, Problem("invalid_value", "'limit' must be between 1 and 100.", "limit")),
        ({"limit": "-1"}, Problem("invalid_value", "'limit' must be between 1 and 100.", "limit")),
        ({"limit": "9" * 30}, Problem("invalid_value", "'limit' must be between 1 and 100.", "limit")),
        ({"limit": "9" * 5000}, invalid("Invalid value for 'limit': Integer value out of range.", "limit")),
        ({"limit": "many"}, invalid(NO_INTEGER, "limit")),
        ({"limit": ""}, invalid(NO_INTEGER, "limit")),
        ({"limit": "1.5"}, invalid(NO_INTEGER, "limit")),
        ({"order": "up"}, invalid("Invalid value for 'order': Invalid enum value 'up'.", "order")),
        ({"order": ""}, invalid("Invalid value for 'order': Invalid enum value ''.", "order")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_page_is_refused_by_name(query: dict[str, str], expected: Problem) -> None:
    """The param is the query's own."""
    assert parse_page(query) == expected


@given(st.dictionaries(st.sampled_from(["limit", "order", "after"]), any_text | st.just("x" * 5000)))
def test_no_query_raises(query: dict[str, str]) -> None:
    """It comes from a client, decoded from bytes that need not be text; the answer is bounded."""
    result = parse_page(query)
    assert isinstance(result, Page | Problem)
    if isinstance(result, Problem):
        assert len(result.message.encode()) < 2000


# ------------------------------------------------------------------------------------------------------ what is shown


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"role": "user", "content": "hi"},
            {
                "type": "message",
                "id": f"msg_{UNIQUE}8000",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            },
        ),
        (
            {"type": None, "role": "assistant", "content": "hi", "id": "msg_1", "status": "incomplete"},
            {
                "type": "message",
                "id": "msg_1",
                "status": "incomplete",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "hi", "annotations": []}],
            },
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "u"}, {"type": "x"}], "id": None},
            {
                "type": "message",
                "id": f"msg_{UNIQUE}8000",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "u", "detail": "auto"}, {"type": "x"}],
            },
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {
                "type": "function_call",
                "id": f"fc_{UNIQUE}8000",
                "status": "completed",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
            },
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "x"},
            {
                "type": "function_call_output",
                "id": f"fco_{UNIQUE}8000",
                "status": "completed",
                "call_id": "c",
                "output": "x",
            },
        ),
        (
            {"type": "reasoning", "summary": []},
            {"type": "reasoning", "id": f"rs_{UNIQUE}8000", "summary": []},
        ),
        ({"type": "item_of_next_year"}, {"type": "item_of_next_year", "id": f"item_{UNIQUE}8000"}),
    ],
)
def test_an_item_is_shown_complete(item: dict[str, Any], expected: dict[str, Any]) -> None:
    """With the id, status and content that the schema wants, and its own where it has them."""
    assert shown(item) == expected


@settings(max_examples=examples(300))
@given(st.lists(items, max_size=3))
def test_every_item_that_is_accepted_can_be_listed(values: list[dict[str, Any]]) -> None:
    """Each with a type and an id, and nothing of its own lost."""
    parsed = parse_input(json.dumps(values).encode())
    assert not isinstance(parsed, Problem), parsed
    found = listed(paginate([ItemRun(parsed.items, ID)], Page(order="asc")))["data"]
    assert [bool(item["type"] and item["id"]) for item in found] == [True] * len(values)
    for item, value in zip(found, values, strict=True):
        kept = {name: field for name, field in value.items() if field is not None and name not in {"content", "id"}}
        assert {name: item[name] for name in kept} == kept


def test_the_ids_of_a_turns_input_are_not_those_of_its_output() -> None:
    """The first item of each is the item 0 of its list."""
    first, second = show([b'{"role":"user","content":""}'] * 2)
    assert (first["id"], second["id"]) == (f"msg_{UNIQUE}8000", f"msg_{UNIQUE}8001")
    (made,) = show([b'{"role":"assistant","content":""}'], first=0)
    assert made["id"] == f"msg_{UNIQUE}0000"


# ------------------------------------------------------------------------------------------------------------- paging


def some(count: int) -> list[ItemRun]:
    return [ItemRun([b'{"id":"i%d","type":"x"}' % number for number in range(count)], ID)]


@pytest.mark.parametrize(
    ("page", "ids", "has_more"),
    [
        (Page(2, "asc"), ["i0", "i1"], True),
        (Page(2, "desc"), ["i4", "i3"], True),
        (Page(2, "asc", "i2"), ["i3", "i4"], False),
        (Page(2, "desc", "i2"), ["i1", "i0"], False),
        (Page(5, "asc"), ["i0", "i1", "i2", "i3", "i4"], False),
        (Page(5, "asc", "i4"), [], False),
    ],
)
def test_a_page_follows_the_item_it_names(page: Page, ids: list[str], has_more: bool) -> None:
    """In the order that was asked for; an empty page has no first and no last id."""
    first, last = (ids[0], ids[-1]) if ids else (None, None)
    assert listed(paginate(some(5), page)) == {
        "object": "list",
        "data": [{"id": ident, "type": "x"} for ident in ids],
        "first_id": first,
        "last_id": last,
        "has_more": has_more,
    }


@pytest.mark.parametrize("after", [None, f"msg_{UNIQUE}8003"])
def test_what_is_not_on_the_page_is_not_decoded(after: str | None) -> None:
    """Of a long history, a page of the newest costs what is on it: what comes behind it is no JSON here."""
    runs = [ItemRun([b"never read"] * 300_000, sample_id("other")), ItemRun([b'{"role":"user","content":"x"}'] * 6, ID)]
    page = listed(paginate(runs, Page(1, "desc", after)))
    assert page["data"][0]["id"] == f"msg_{UNIQUE}8005" if after is None else f"msg_{UNIQUE}8002"
    assert page["has_more"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_of_large_items_ends_early(order: Order) -> None:
    """But never empty, and whoever pages on sees every item once."""
    sizes = [10, PAGE_BYTES + 1, PAGE_BYTES // 2, PAGE_BYTES // 3, 10, 10]
    items = [b'{"id":"i%d","role":"user","content":"%b"}' % (at, b"x" * size) for at, size in enumerate(sizes)]
    pages: list[list[str]] = []
    after: str | None = None
    while True:
        page = listed(paginate([ItemRun(items, ID)], Page(4, order, after)))
        pages.append([item["id"] for item in page["data"]])
        after = page["last_id"]
        if not page["has_more"]:
            break
    forward = [["i0"], ["i1"], ["i2", "i3", "i4", "i5"]]
    assert pages == (forward if order == "asc" else [["i5", "i4", "i3", "i2"], ["i1"], ["i0"]])


def test_a_small_page_is_the_first_one_of_small_items() -> None:
    small, large = [ItemRun([b"{}"] * 1000, ID)], [ItemRun([b"x" * 300_000, b"{}"], ID)]
    assert is_small(small, Page())
    assert not is_small(small, Page(after="i1"))
    assert not is_small(large, Page())
    assert is_small(large, Page(limit=1))
    assert not is_small(large, Page(limit=1, order="asc")), "all have to be looked at"


def test_an_item_that_is_not_in_the_list_has_nothing_after_it() -> None:
    """A client that pages on must learn that it lost its place."""
    message = "No item with id 'i9' in this list."
    assert paginate(some(5), Page(after="i9")) == Problem("item_not_found", message, "after")


@settings(max_examples=examples(300))
@given(st.integers(0, 12), st.integers(1, MAX_LIMIT), st.sampled_from(["asc", "desc"]))
def test_paging_through_a_list_shows_every_item_once(count: int, limit: int, order: Order) -> None:
    """Whatever the size of the pages."""
    seen: list[str] = []
    after: str | None = None
    more = True
    while more:
        page = listed(paginate(some(count), Page(limit, order, after)))
        seen += [item["id"] for item in page["data"]]
        after, more = page["last_id"], page["has_more"]
    assert seen == [f"i{number}" for number in (range(count) if order == "asc" else reversed(range(count)))]


@given(
    idents=st.lists(st.sampled_from([None, "a", "b", f"item_{UNIQUE}8001"]), max_size=12),
    limit=st.integers(1, 5),
    order=st.sampled_from(["asc", "desc"]),
)
@settings(max_examples=examples(300))
def test_paging_comes_to_its_end_though_items_have_the_same_id(
    idents: list[str | None], limit: int, order: Order
) -> None:
    """As an SDK pages: by the id of the last item that it got."""
    items = tuple(json.dumps({"type": "x", "n": n, **({"id": i} if i else {})}).encode() for n, i in enumerate(idents))
    seen: list[int] = []
    after: str | None = None
    for _ in range(len(items) + 1):
        page = listed(paginate([ItemRun(items, ID)], Page(limit, order, after)))
        seen += [item["n"] for item in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == list(range(len(items)))[:: 1 if order == "asc" else -1]


def test_reasoning_shows_what_is_encrypted_only_if_that_was_asked_for() -> None:
    reasoning = b'{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"x"}'
    other = b'{"type":"compaction","id":"c_1","encrypted_content":"y"}'
    bare = {"type": "reasoning", "id": "rs_1", "summary": []}
    kept = {"type": "compaction", "id": "c_1", "encrypted_content": "y"}
    assert show([reasoning, other]) == [bare, kept]
    assert show([reasoning, other], encrypted=True) == [bare | {"encrypted_content": "x"}, kept]


def test_a_query_that_is_no_text_is_refused() -> None:
    message = "Invalid query parameter: It holds text that is not valid Unicode."
    assert parse_page({"limit": "\udcff"}) == Problem("invalid_value", message)
