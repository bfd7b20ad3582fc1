"""The conformance suite's part about lists of responses: what a store must do when it is asked which it has.

Not here: the other checks, and how to run them (`store_conformance`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from segue.history.records import Record
from segue.protocol.ids import ResponseId
from segue.protocol.response_query import Label, ResponseQuery
from segue.stores.interface import Store, StoreError
from segue.testing.store_samples import (
    ALICE,
    BOB,
    LATER,
    NOW,
    sample_conversation,
    sample_id,
    sample_record,
    sample_step,
)

_BLUE, _RED = Label("metadata[colour]", "blue"), Label("metadata[colour]", "red")
_LARGE = Label("metadata[size]", "large")


async def responses_are_listed_in_the_order_of_time(store: Store) -> None:
    """The newest first, or the oldest; those of one time in an order that does not change."""
    records = [_labelled(str(n), at=NOW + n // 2) for n in range(10)]
    await _append(store, *records)
    falling, rising = await _list(store, ResponseQuery()), await _list(store, ResponseQuery(order="asc"))
    assert falling == rising[::-1]
    times = {record.id: record.created_at for record in records}
    assert [times[ident] for ident in rising] == sorted(times.values())
    assert await _list(store, ResponseQuery(limit=3)) == falling[:3]


async def an_empty_list_is_no_error(store: Store) -> None:
    """Of an empty store, of a tenant that has nothing, and where nothing matches."""
    assert await store.list_responses(ALICE, ResponseQuery(), NOW) == []
    await _append(store, _labelled("one"))
    assert await store.list_responses(BOB, ResponseQuery(), NOW) == []
    assert await _list(store, ResponseQuery(labels=(_BLUE,))) == []
    assert await _list(store, ResponseQuery(created_from=NOW, created_before=NOW)) == []


async def pages_hold_each_response_once(store: Store) -> None:
    """Whatever their size, in both orders, also where many responses have one time."""
    await _append(store, *(_labelled(f"{n:02}", at=NOW + n // 5, colour="blue") for n in range(17)))
    for query in (ResponseQuery(), ResponseQuery(order="asc"), ResponseQuery(labels=(_BLUE,))):
        whole = await _list(store, msgspec.structs.replace(query, limit=100))
        assert len(set(whole)) == len(whole) == 17  # noqa: PLR2004 - the above
        assert await _pages(store, msgspec.structs.replace(query, limit=4)) == whole


async def a_page_may_begin_behind_any_response(store: Store) -> None:
    """Behind one that does not match, too: it is a place in time."""
    await _append(store, *(_labelled(str(n), at=NOW + n, colour="blue" if n % 2 else "red") for n in range(6)))
    query = ResponseQuery(labels=(_BLUE,), after=sample_id("2"), order="asc")
    assert await _list(store, query) == [sample_id("3"), sample_id("5")]
    assert await _list(store, msgspec.structs.replace(query, order="desc")) == [sample_id("1")]


async def a_page_begins_behind_no_unknown_response(store: Store) -> None:
    """Nor behind another tenant's, a deleted or an expired one: all are answered alike."""
    await _append(store, _labelled("here"), _labelled("gone"), _labelled("brief", expires_at=NOW + 1))
    await _append(store, _labelled("parent"), _labelled("child", parent="parent"), _labelled("his", tenant=BOB))
    for name in ("gone", "parent"):
        assert await store.delete(ALICE, sample_id(name), NOW)
    for name in ("gone", "parent", "brief", "his", "unknown"):
        assert await store.list_responses(ALICE, ResponseQuery(after=sample_id(name)), NOW + 1) is None, name
    assert await store.list_responses(ALICE, ResponseQuery(after=sample_id("here")), NOW + 1) is not None


async def responses_are_found_by_labels(store: Store) -> None:
    """By one, and by several if they have all of them; the whole value counts, with its case and every character."""
    odd = {"": "", "a]": "x=y&z", "\u00fc \u2211": "\U0001f600\x00 '\"", "long": "v" * 512}
    await _append(store, _labelled("1", at=NOW + 1, colour="blue"), _labelled("2", at=NOW + 2, colour="red"))
    await _append(
        store, _labelled("3", at=NOW + 3, colour="blue", size="large"), _labelled("4", at=NOW + 4, metadata=odd)
    )
    await _append(store, _labelled("5", at=NOW + 5, model="other", colour="blue"))
    wanted: list[tuple[Sequence[Label], str]] = [
        ((_BLUE,), "531"),
        ((_RED,), "2"),
        ((_BLUE, _LARGE), "3"),
        ((_LARGE, _BLUE), "3"),
        ((_RED, _LARGE), ""),
        ((_BLUE, _RED), ""),
        ((Label("metadata[colour]", "Blue"),), ""),
        ((Label("metadata[colour]", "blu"),), ""),
        ((Label("model", "scripted"),), "4321"),
        ((Label("model", "other"), _BLUE), "5"),
        *(((Label(f"metadata[{key}]", value),), "4") for key, value in odd.items()),
    ]
    for labels, names in wanted:
        found = await _list(store, ResponseQuery(labels=tuple(labels)))
        assert found == list(map(sample_id, names)), labels


async def responses_are_found_by_time(store: Store) -> None:
    """From a time on, and before another; with labels, and behind a response, too."""
    await _append(store, *(_labelled(str(n), at=NOW + n / 2, colour="blue") for n in range(8)))
    between = ResponseQuery(created_from=NOW + 1, created_before=NOW + 3)
    assert await _list(store, between) == list(map(sample_id, "5432"))
    assert await _list(store, msgspec.structs.replace(between, order="asc", limit=2)) == list(map(sample_id, "23"))
    assert await _list(store, msgspec.structs.replace(between, labels=(_BLUE,))) == list(map(sample_id, "5432"))
    for after, names in (("3", "2"), ("7", "5432"), ("0", "")):
        assert await _list(store, msgspec.structs.replace(between, after=sample_id(after))) == [
            *map(sample_id, names)
        ], after


async def a_list_has_no_dead_responses(store: Store) -> None:
    """Not those that were deleted or have expired, swept or not, with children or without; and no other tenant's."""
    await _append(store, _labelled("root", colour="blue"), _labelled("left", parent="root", colour="blue"))
    await _append(store, _labelled("brief", expires_at=NOW + 5, colour="blue"), _labelled("his", tenant=BOB))
    await _append(store, _labelled("alone", colour="blue"))
    for name in ("root", "alone"):
        assert await store.delete(ALICE, sample_id(name), NOW)
    for query in (ResponseQuery(), ResponseQuery(labels=(_BLUE,))):
        assert sorted(await _list(store, query)) == sorted([sample_id("left"), sample_id("brief")])
        assert await store.list_responses(ALICE, query, NOW + 5) == [sample_id("left")]
    while await store.sweep(NOW + 5):
        pass
    assert await _list(store, ResponseQuery()) == [sample_id("left")]
    await store.erase(ALICE, None)
    assert await _list(store, ResponseQuery()) == []
    assert await store.list_responses(BOB, ResponseQuery(), NOW) == [sample_id("his")]


async def what_comes_back_is_listed_once(store: Store) -> None:
    """A response that was deleted, and came back by an import."""
    record = _labelled("one", colour="blue")
    for _ in range(2):
        await _append(store, record)
        assert await _list(store, ResponseQuery(labels=(_BLUE,))) == [record.id]
        assert await store.delete(ALICE, record.id, NOW)


async def a_refused_record_is_not_listed(store: Store) -> None:
    """Neither one whose parent is unknown, nor a second one under one id."""
    await _append(store, _labelled("one", colour="blue"))
    for refused in (_labelled("child", parent="unknown", colour="blue"), _labelled("one", at=NOW + 9, colour="red")):
        with suppress(StoreError):  # other checks ask for it
            await store.append(refused)
    assert await _list(store, ResponseQuery()) == [sample_id("one")]
    assert await _list(store, ResponseQuery(labels=(_RED,))) == []


async def turns_of_conversations_are_listed(store: Store) -> None:
    """Like any other."""
    talk = sample_conversation("talk")
    await store.create_conversation(talk, sample_step("step"))
    await store.append_to_conversation(talk.id, _labelled("one", parent="step", colour="blue"))
    assert await _list(store, ResponseQuery()) == [sample_id("one")]
    assert await _list(store, ResponseQuery(labels=(_BLUE,))) == [sample_id("one")]


LISTING_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    responses_are_listed_in_the_order_of_time,
    an_empty_list_is_no_error,
    pages_hold_each_response_once,
    a_page_may_begin_behind_any_response,
    a_page_begins_behind_no_unknown_response,
    responses_are_found_by_labels,
    responses_are_found_by_time,
    a_list_has_no_dead_responses,
    what_comes_back_is_listed_once,
    a_refused_record_is_not_listed,
    turns_of_conversations_are_listed,
)


def _labelled(
    name: str,
    *,
    parent: str | None = None,
    tenant: str = ALICE,
    at: float = NOW,
    expires_at: float = LATER,
    model: str = "scripted",
    metadata: Mapping[str, str] | None = None,
    **labels: str,
) -> Record:
    echo = msgspec.json.encode({"model": model, "tools": [], "metadata": metadata or labels})
    record = sample_record(name, parent, tenant=tenant, expires_at=expires_at, echo=echo)
    return msgspec.structs.replace(record, created_at=at)


async def _append(store: Store, *records: Record) -> None:
    for record in records:
        await store.append(record)


async def _list(store: Store, query: ResponseQuery) -> list[ResponseId]:
    found = await store.list_responses(ALICE, query, NOW)
    assert found is not None, "it begins behind a living response"
    return found


async def _pages(store: Store, query: ResponseQuery) -> list[ResponseId]:
    """Return all pages of a list in one."""
    found: list[ResponseId] = []
    while page := await _list(store, query):
        found += page
        query = msgspec.structs.replace(query, after=page[-1])
    return found
