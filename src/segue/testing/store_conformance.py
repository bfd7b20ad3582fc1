"""The conformance suite of stores: every rule of the interface as a check that an implementation must pass.

A check is a coroutine function that is given a new, empty store and raises `AssertionError` if a rule is broken. It
needs no test framework; with pytest, and a fixture that opens an implementation, it is used like this:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_store_conforms(check: Check, store: Store) -> None:
        await check(store)

A store that outlives its process must also pass `write_before_restart`, be closed and opened again, and pass
`check_after_restart`. Not here: what only one implementation promises, such as surviving a kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from segue.history.records import Record
from segue.protocol.ids import ResponseId
from segue.protocol.response_query import ResponseQuery
from segue.stores.interface import ParentGone, Store, StoreError, StoreSize
from segue.testing.conversation_conformance import CONVERSATION_CHECKS
from segue.testing.item_conformance import ITEM_CHECKS
from segue.testing.listing_conformance import LISTING_CHECKS
from segue.testing.store_samples import ALICE, BOB, LATER, NOW, link_of, sample_id, sample_record

Check = Callable[[Store], Awaitable[None]]

__all__ = [
    "ALICE",
    "BOB",
    "CHECKS",
    "LATER",
    "NOW",
    "Check",
    "check_after_restart",
    "link_of",
    "sample_id",
    "sample_record",
    "write_before_restart",
]


async def write_before_restart(store: Store) -> None:
    """Fill a new store with what `check_after_restart` expects: chains, a fork, tombstones, freed records."""
    await _append(store, sample_record("root"), sample_record("left", "root"), sample_record("right", "root"))
    await _append(
        store, sample_record("leaf", "left", given=["in"], made=["out"]), sample_record("gone", made=["lost"])
    )
    await store.delete(ALICE, sample_id("left"), NOW)
    await store.delete(ALICE, sample_id("gone"), NOW)


async def check_after_restart(store: Store) -> None:
    """What was in a store is in it after it was closed and opened again."""
    root, left = link_of(sample_record("root")), link_of(sample_record("left", "root"), alive=False)
    leaf, right = sample_record("leaf", "left", given=["in"], made=["out"]), sample_record("right", "root")
    assert await store.chain(ALICE, leaf.id, NOW) == [root, left, link_of(leaf)]
    assert await store.chain(ALICE, right.id, NOW) == [root, link_of(right)]
    assert await store.record(ALICE, leaf.id, NOW) == leaf
    await _assert_unknown(store, ALICE, "left")
    await _assert_unknown(store, ALICE, "gone")
    assert [await store.find_item(ALICE, ident, NOW) for ident in ("in", "out", "lost")] == [leaf.id, leaf.id, None]
    assert (await store.size()).records == len(["root", "right", "leaf"])


# Reading back


async def a_record_reads_back_whole(store: Store) -> None:
    """Every field of a record comes back as it was, items byte for byte."""
    root, child = sample_record("root"), sample_record("child", "root")
    await _append(store, root, child)
    assert await store.record(ALICE, root.id, NOW) == root
    assert await store.record(ALICE, child.id, NOW) == child


async def a_response_reads_back_as_it_was_sent(store: Store) -> None:
    """The response object of a record is the same bytes before and after."""
    record = sample_record("root")
    await _append(store, record)
    kept = await store.record(ALICE, record.id, NOW)
    assert kept is not None
    assert kept.response() == record.response()


async def a_record_may_be_empty(store: Store) -> None:
    """A turn without items is a turn."""
    bare = msgspec.structs.replace(sample_record("bare"), input=(), output=(), calls=frozenset())
    await _append(store, bare, sample_record("child", "bare"))
    assert await store.record(ALICE, bare.id, NOW) == bare
    assert await _chain_ids(store, "child") == [bare.id, sample_id("child")]


async def a_record_may_be_large(store: Store) -> None:
    """A megabyte in one item is kept like any other."""
    large = msgspec.structs.replace(sample_record("large"), input=(b'"%b"' % (b"x" * 1_000_000),))
    await _append(store, large)
    assert await store.chain(ALICE, large.id, NOW) == [link_of(large)]


async def a_chain_reads_from_its_root(store: Store) -> None:
    """A chain holds the turns from the root to the response that was asked for, and none after it."""
    records = [sample_record("0"), *(sample_record(str(n), str(n - 1)) for n in range(1, 6))]
    await _append(store, *records)
    for depth, record in enumerate(records):
        assert await store.chain(ALICE, record.id, NOW) == [link_of(turn) for turn in records[: depth + 1]]


async def a_deep_chain_reads_in_order(store: Store) -> None:
    """Depth is not limited."""
    names = [str(n) for n in range(300)]
    await _append(store, sample_record("0"), *(sample_record(name, str(int(name) - 1)) for name in names[1:]))
    assert await _chain_ids(store, "299") == [sample_id(name) for name in names]


async def forks_share_their_prefix(store: Store) -> None:
    """Two continuations of one response both have it in their chain, and not each other."""
    await _append(store, sample_record("root"), sample_record("left", "root"), sample_record("right", "root"))
    assert await _chain_ids(store, "left") == [sample_id("root"), sample_id("left")]
    assert await _chain_ids(store, "right") == [sample_id("root"), sample_id("right")]


async def a_response_that_is_continued_is_known(store: Store) -> None:
    """By its own tenant, and as long as its continuation is there."""
    await _append(store, sample_record("root"), sample_record("tip", "root"))
    assert [await store.is_continued(ALICE, sample_id(name)) for name in ("root", "tip", "x")] == [True, False, False]
    assert not await store.is_continued(BOB, sample_id("root"))
    await store.delete(ALICE, sample_id("tip"), NOW)
    assert not await store.is_continued(ALICE, sample_id("root"))


async def an_unknown_id_is_nothing(store: Store) -> None:
    """An id that was never stored resolves to nothing, in an empty store and in one that holds others."""
    await _assert_unknown(store, ALICE, "unknown")
    await _append(store, sample_record("root"))
    await _assert_unknown(store, ALICE, "unknown")


# Appending


async def an_id_is_used_once(store: Store) -> None:
    """A second record under an id is refused, and the first one stays."""
    first = sample_record("root")
    await _append(store, first)
    await _assert_refused(store, msgspec.structs.replace(first, output=()), StoreError)
    assert await store.record(ALICE, first.id, NOW) == first
    assert (await store.size()).records == 1


async def an_unknown_parent_is_refused(store: Store) -> None:
    """A record whose parent was never stored is not written."""
    await _assert_refused(store, sample_record("child", "unknown"), ParentGone)
    await _assert_unknown(store, ALICE, "child")
    assert (await store.size()).records == 0


async def a_freed_parent_is_refused(store: Store) -> None:
    """A record whose parent was deleted, and was needed by nobody, is not written."""
    await _append(store, sample_record("root"))
    await store.delete(ALICE, sample_id("root"), NOW)
    await _assert_refused(store, sample_record("child", "root"), ParentGone)
    await _assert_unknown(store, ALICE, "child")


async def a_dead_parent_with_descendants_is_accepted(store: Store) -> None:
    """A turn that began while its parent lived may end after its deletion, as long as the items are still there."""
    await _append(store, sample_record("root"), sample_record("left", "root"))
    await store.delete(ALICE, sample_id("root"), NOW)
    right = sample_record("right", "root")
    await _append(store, right)
    assert await store.chain(ALICE, right.id, NOW) == [link_of(sample_record("root"), alive=False), link_of(right)]
    kept = await store.record(ALICE, right.id, NOW)
    assert kept == right, "its parent_id says what it continued, dead or alive"


async def concurrent_appends_all_land(store: Store) -> None:
    """Appends that wait for each other's commit are all there afterwards, each with its own chain."""
    roots = [sample_record(f"root {n}") for n in range(20)]
    await asyncio.gather(*(store.append(root) for root in roots))
    children = [sample_record(f"child {n}", f"root {n}") for n in range(20)]
    await asyncio.gather(*(store.append(child) for child in children))
    for root, child in zip(roots, children, strict=True):
        assert await store.chain(ALICE, child.id, NOW) == [link_of(root), link_of(child)]


async def a_failed_append_fails_alone(store: Store) -> None:
    """An append that is refused takes none of those that were made at the same time with it."""
    good = [sample_record(f"good {n}") for n in range(10)]
    bad = [sample_record(f"bad {n}", "unknown") for n in range(10)]
    mixed = [record for pair in zip(good, bad, strict=True) for record in pair]
    results = await asyncio.gather(*(store.append(record) for record in mixed), return_exceptions=True)
    assert [type(result) for result in results] == [type(None), ParentGone] * 10
    for record in good:
        assert await store.record(ALICE, record.id, NOW) == record
    assert (await store.size()).records == len(good)


# Tenants


async def tenants_do_not_see_each_other(store: Store) -> None:
    """Another tenant's id is answered like one that never existed, and cannot be deleted."""
    await _append(store, sample_record("root"))
    await _assert_unknown(store, BOB, "root")
    assert await _chain_ids(store, "root") == [sample_id("root")]


async def tenants_may_have_the_same_ids(store: Store) -> None:
    """The same id under two tenants is two responses: deleting one leaves the other."""
    hers, his = sample_record("root"), msgspec.structs.replace(sample_record("root", tenant=BOB), output=())
    await _append(store, hers, his)
    assert await store.record(ALICE, hers.id, NOW) == hers
    assert await store.record(BOB, his.id, NOW) == his
    assert await store.delete(ALICE, hers.id, NOW)
    assert await store.record(BOB, his.id, NOW) == his


async def another_tenants_parent_is_unknown(store: Store) -> None:
    """A chain cannot be continued by another tenant, whatever that tenant guesses."""
    await _append(store, sample_record("root"))
    await _assert_refused(store, sample_record("child", "root", tenant=BOB), ParentGone)
    await _assert_unknown(store, BOB, "child")


# Deleting


async def a_deleted_id_is_nothing(store: Store) -> None:
    """Deleting tells once that there was something; afterwards the id is unknown."""
    await _append(store, sample_record("root"), sample_record("other"))
    assert await store.delete(ALICE, sample_id("root"), NOW)
    await _assert_unknown(store, ALICE, "root")
    assert await _chain_ids(store, "other") == [sample_id("other")]


async def descendants_outlive_a_deletion(store: Store) -> None:
    """A deleted turn still belongs to the histories of its descendants, marked as dead."""
    root, middle, leaf = sample_record("root"), sample_record("middle", "root"), sample_record("leaf", "middle")
    await _append(store, root, middle, leaf)
    await store.delete(ALICE, middle.id, NOW)
    await _assert_unknown(store, ALICE, "middle")
    assert await store.chain(ALICE, leaf.id, NOW) == [link_of(root), link_of(middle, alive=False), link_of(leaf)]
    assert await store.chain(ALICE, root.id, NOW) == [link_of(root)]
    assert await store.record(ALICE, leaf.id, NOW) == leaf


async def dead_ancestors_are_freed_with_their_last_descendant(store: Store) -> None:
    """Deleting the last living turn of a chain leaves nothing of it: no part can be continued any more."""
    await _append(store, sample_record("root"), sample_record("middle", "root"), sample_record("leaf", "middle"))
    for name in ("root", "middle", "leaf"):
        assert await store.delete(ALICE, sample_id(name), NOW)
    for name in ("root", "middle", "leaf"):
        await _assert_refused(store, sample_record("late", name), ParentGone)


async def freeing_stops_at_a_living_ancestor(store: Store) -> None:
    """What a chain's dead end was attached to stays."""
    await _append(store, sample_record("root"), sample_record("middle", "root"), sample_record("leaf", "middle"))
    await store.delete(ALICE, sample_id("middle"), NOW)
    await store.delete(ALICE, sample_id("leaf"), NOW)
    await _assert_refused(store, sample_record("late", "middle"), ParentGone)
    await _append(store, sample_record("next", "root"))
    assert await _chain_ids(store, "next") == [sample_id("root"), sample_id("next")]


async def freeing_stops_at_a_fork(store: Store) -> None:
    """A dead ancestor that another branch needs stays until that branch is gone too."""
    await _append(store, sample_record("root"), sample_record("left", "root"), sample_record("right", "root"))
    await store.delete(ALICE, sample_id("root"), NOW)
    await store.delete(ALICE, sample_id("left"), NOW)
    assert await _chain_ids(store, "right") == [sample_id("root"), sample_id("right")]
    await store.delete(ALICE, sample_id("right"), NOW)
    await _assert_refused(store, sample_record("late", "root"), ParentGone)


async def equal_echoes_are_independent(store: Store) -> None:
    """Deleting a response takes no settings away from others that were made with the same ones."""
    records = [sample_record("one"), sample_record("two"), sample_record("three", tenant=BOB)]
    await _append(store, *records)
    assert await store.delete(ALICE, sample_id("one"), NOW)
    assert await store.record(ALICE, sample_id("two"), NOW) == records[1]
    assert await store.record(BOB, sample_id("three"), NOW) == records[2]
    assert await store.delete(ALICE, sample_id("two"), NOW)
    again = sample_record("four")
    await _append(store, again)
    assert await store.record(ALICE, again.id, NOW) == again


# Expiry


async def an_expired_id_is_nothing(store: Store) -> None:
    """A record lives until the second it expires at, whether anybody sweeps or not."""
    await _append(store, sample_record("root", expires_at=NOW + 10))
    assert await store.record(ALICE, sample_id("root"), NOW + 9.5) is not None
    await _assert_unknown(store, ALICE, "root", NOW + 10)
    await _assert_unknown(store, ALICE, "root", NOW + 11)


async def descendants_outlive_an_expiry(store: Store) -> None:
    """An expired turn still belongs to the histories of its descendants, before a sweep and after it."""
    root, leaf = sample_record("root", expires_at=NOW + 10), sample_record("leaf", "root")
    await _append(store, root, leaf)
    for _ in range(2):
        assert await store.chain(ALICE, leaf.id, NOW + 10) == [link_of(root, alive=False), link_of(leaf)]
        await _sweep(store, NOW + 10)


async def a_sweep_frees_what_has_expired(store: Store) -> None:
    """A sweep names the expired records that nobody deleted before, and frees them; living ones stay."""
    old = [sample_record("old", expires_at=NOW + 10), sample_record("older", expires_at=NOW + 5)]
    await _append(store, *old, sample_record("deleted", expires_at=NOW + 5), sample_record("young"))
    await store.delete(ALICE, sample_id("deleted"), NOW)
    assert await _sweep(store, NOW) == []
    assert await _sweep(store, NOW + 10) == sorted((record.tenant, record.id) for record in old)
    assert await _sweep(store, NOW + 10) == []
    assert (await store.size()).records == 1
    await _assert_refused(store, sample_record("late", "old"), ParentGone)
    assert await _chain_ids(store, "young") == [sample_id("young")]


async def a_sweep_reaches_every_tenant(store: Store) -> None:
    """A sweep is not bound to a tenant, nor to a number of records."""
    records = [sample_record(str(n), tenant=str(n % 7), expires_at=NOW + 1) for n in range(700)]
    await asyncio.gather(*(store.append(record) for record in records))
    assert await _sweep(store, NOW + 1) == sorted((record.tenant, record.id) for record in records)
    assert (await store.size()).records == 0


async def a_sweep_frees_whole_chains(store: Store) -> None:
    """A chain that has expired from end to end is gone, whatever order its turns expired in."""
    await _append(store, sample_record("root", expires_at=NOW + 3), sample_record("middle", "root", expires_at=NOW + 9))
    await _append(store, sample_record("leaf", "middle", expires_at=NOW + 6))
    swept = [await _sweep(store, NOW + at) for at in (3, 6, 9)]
    assert swept == [[(ALICE, sample_id(name))] for name in ("root", "leaf", "middle")]
    for name in ("root", "middle", "leaf"):
        await _assert_refused(store, sample_record("late", name), ParentGone)


# Erasing


async def a_tenant_is_erased(store: Store) -> None:
    """With all that only its own responses needed, tombstones too; others keep what they have."""
    await _append(store, sample_record("root"), sample_record("left", "root"), sample_record("right", "root"))
    await _append(store, sample_record("alone", given=["in"], made=["out"]), sample_record("root", tenant=BOB))
    await store.delete(ALICE, sample_id("left"), NOW)
    await store.delete(ALICE, sample_id("root"), NOW)
    assert sorted(await store.erase(ALICE, None)) == sorted([sample_id("right"), sample_id("alone")])
    for name in ("root", "left", "right", "alone"):
        await _assert_unknown(store, ALICE, name)
    assert [await store.find_item(ALICE, ident, NOW) for ident in ("in", "out")] == [None, None]
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)
    assert (await store.size()).records == 1
    assert await store.record(BOB, sample_id("root"), NOW) is not None
    assert await store.erase(ALICE, None) == []
    await _append(store, sample_record("root"))
    assert await _chain_ids(store, "root") == [sample_id("root")], "an id that was erased may come back by an import"


async def many_responses_are_erased(store: Store) -> None:
    """More than a store may want to touch at once."""
    records = [sample_record(f"{number:04}", f"{number - 1:04}" if number else None) for number in range(600)]
    await _append(store, *records)
    assert sorted(await store.erase(ALICE, None)) == sorted(record.id for record in records)
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)


async def what_is_newer_is_not_erased(store: Store) -> None:
    """It keeps the items that it needs of what was."""
    made = [(sample_record("old"), 1.0), (sample_record("child", "old"), 2.0), (sample_record("alone"), 1.5)]
    await _append(store, *(msgspec.structs.replace(record, created_at=at) for record, at in made))
    assert sorted(await store.erase(ALICE, 2.0)) == sorted([sample_id("old"), sample_id("alone")])
    await _assert_unknown(store, ALICE, "old")
    assert await _chain_ids(store, "child") == [sample_id("old"), sample_id("child")]
    assert (await store.tenant_size(ALICE)).records == 1


# The store itself


async def size_counts_the_living(store: Store) -> None:
    """The count follows appends and deletions, tombstones left out; the bytes are not fewer than the content."""
    assert (await store.size()).records == 0
    content = b'"%b"' % (b"x" * 100_000)
    records = [msgspec.structs.replace(sample_record("root"), input=(content,)), sample_record("child", "root")]
    await _append(store, *records)
    size = await store.size()
    assert size.records == len(records)
    assert size.size_bytes >= len(content)
    await store.delete(ALICE, sample_id("root"), NOW)
    assert (await store.size()).records == 1
    await store.delete(ALICE, sample_id("child"), NOW)
    assert (await store.size()).records == 0


async def the_size_of_a_tenant_is_its_own(store: Store) -> None:
    """It counts the living, and the bytes of tombstones too; what others have adds nothing."""
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)
    content = b'"%b"' % (b"x" * 100_000)
    root = msgspec.structs.replace(sample_record("root"), input=(content,))
    await _append(store, root, sample_record("child", "root"))
    await store.append(msgspec.structs.replace(sample_record("other"), tenant=BOB))
    size = await store.tenant_size(ALICE)
    assert size.records == 2  # noqa: PLR2004 - the two above
    assert len(content) <= size.size_bytes < 2 * len(content)
    others = await store.tenant_size(BOB)
    assert others.records == 1
    assert others.size_bytes < len(content)
    await store.delete(ALICE, root.id, NOW)
    after = await store.tenant_size(ALICE)
    assert after.records == 1
    assert after.size_bytes >= len(content), "its items are there for its child"
    await store.delete(ALICE, sample_id("child"), NOW)
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)


async def a_check_leaves_no_trace(store: Store) -> None:
    """It writes, also at the same time as records are appended, and the store holds what it held."""
    root, child = sample_record("root"), sample_record("child", "root")
    await _append(store, root)
    await asyncio.gather(store.check_writable(), store.append(child), store.check_writable())
    assert (await store.size()).records == 2  # noqa: PLR2004 - the two above
    assert await store.record(ALICE, child.id, NOW) == child


async def a_closed_store_refuses(store: Store) -> None:
    """After `aclose` every call raises `StoreError`; closing again does nothing."""
    root = sample_record("root")
    await _append(store, root)
    await store.aclose()
    calls: list[Coroutine[Any, Any, object]] = [
        store.append(sample_record("late")),
        store.chain(ALICE, root.id, NOW),
        store.record(ALICE, root.id, NOW),
        store.erase(ALICE, None),
        store.find_item(ALICE, "in", NOW),
        store.is_continued(ALICE, root.id),
        store.list_responses(ALICE, ResponseQuery(), NOW),
        store.delete(ALICE, root.id, NOW),
        store.sweep(NOW),
        store.size(),
        store.check_writable(),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results), results
    await store.aclose()


async def closing_finishes_what_was_begun(store: Store) -> None:
    """An append that was begun before `aclose` succeeds."""
    appends = asyncio.gather(*(store.append(sample_record(str(n))) for n in range(20)))
    await asyncio.sleep(0)  # each has begun
    await store.aclose()
    await appends


#: Every rule of the interface.
CHECKS: tuple[Check, ...] = (
    a_record_reads_back_whole,
    a_response_reads_back_as_it_was_sent,
    a_record_may_be_empty,
    a_record_may_be_large,
    a_chain_reads_from_its_root,
    a_deep_chain_reads_in_order,
    forks_share_their_prefix,
    a_response_that_is_continued_is_known,
    an_unknown_id_is_nothing,
    an_id_is_used_once,
    an_unknown_parent_is_refused,
    a_freed_parent_is_refused,
    a_dead_parent_with_descendants_is_accepted,
    concurrent_appends_all_land,
    a_failed_append_fails_alone,
    tenants_do_not_see_each_other,
    tenants_may_have_the_same_ids,
    another_tenants_parent_is_unknown,
    a_deleted_id_is_nothing,
    descendants_outlive_a_deletion,
    dead_ancestors_are_freed_with_their_last_descendant,
    freeing_stops_at_a_living_ancestor,
    freeing_stops_at_a_fork,
    equal_echoes_are_independent,
    an_expired_id_is_nothing,
    descendants_outlive_an_expiry,
    a_sweep_frees_what_has_expired,
    a_sweep_reaches_every_tenant,
    a_sweep_frees_whole_chains,
    a_tenant_is_erased,
    many_responses_are_erased,
    what_is_newer_is_not_erased,
    size_counts_the_living,
    the_size_of_a_tenant_is_its_own,
    a_check_leaves_no_trace,
    a_closed_store_refuses,
    closing_finishes_what_was_begun,
    *ITEM_CHECKS,
    *CONVERSATION_CHECKS,
    *LISTING_CHECKS,
)


async def _append(store: Store, *records: Record) -> None:
    for record in records:
        await store.append(record)


async def _sweep(store: Store, now: float) -> list[tuple[str, ResponseId]]:
    """Sweep until nothing is left to be swept."""
    swept: list[tuple[str, ResponseId]] = []
    while piece := await store.sweep(now):
        swept += piece
    return sorted(swept)


async def _chain_ids(store: Store, name: str) -> list[ResponseId]:
    chain = await store.chain(ALICE, sample_id(name), NOW)
    return [link.id for link in chain or []]


async def _assert_unknown(store: Store, tenant: str, name: str, now: float = NOW) -> None:
    ident = sample_id(name)
    assert await store.record(tenant, ident, now) is None, f"{name} has a record"
    assert await store.chain(tenant, ident, now) is None, f"{name} has a chain"
    assert not await store.delete(tenant, ident, now), f"{name} can be deleted"


async def _assert_refused(store: Store, record: Record, kind: type[StoreError]) -> None:
    (answer,) = await asyncio.gather(store.append(record), return_exceptions=True)
    assert isinstance(answer, kind), f"{answer!r} instead of {kind.__name__}"
