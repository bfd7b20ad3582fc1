"""What a copy of a store is tested with: a store with everything that stores can hold."""

from __future__ import annotations

import msgspec

from segue.history.conversations import ConversationMove
from segue.stores.copying import CopyEnd, StoredTurn
from segue.stores.interface import Store
from segue.testing.store_conformance import ALICE, BOB, NOW, sample_id, sample_record
from segue.testing.store_samples import sample_conversation, sample_conversation_id, sample_step


async def fill(store: Store) -> None:
    """Write chains with forks, tombstones, conversations with steps, items with ids, large and odd content."""
    await store.append(sample_record("root", given=["in"], made=["out", "\0 ∑"]))
    for name, parent in (("left", "root"), ("right", "root"), ("leaf", "left"), ("other", "left")):
        await store.append(
            sample_record(name, parent, made=[name], echo=b'{"model":"%b","metadata":{}}' % name.encode())
        )
    await store.append(sample_record("again", given=["in"], made=["again"]))
    await store.delete(ALICE, sample_id("left"), NOW)
    await store.append(sample_record("root", tenant=BOB))
    large = msgspec.structs.replace(sample_record("large"), input=(b'"%b"' % (b"x" * 300_000),))
    await store.append(large)
    await store.create_conversation(sample_conversation("talk"), sample_step("step"))
    talk = sample_conversation_id("talk")
    await store.append_to_conversation(talk, sample_record("said", "step"))
    move = ConversationMove(from_id=sample_id("said"), step=sample_step("more", "said"), at=NOW + 3)
    await store.move_conversation(ALICE, talk, move)
    await store.create_conversation(sample_conversation("empty", tenant=BOB))


async def content(end: CopyEnd) -> list[StoredTurn]:
    """Return all turns of a store in one order."""
    turns = [turn async for page in end.turns() for turn in page]
    return sorted(turns, key=lambda turn: (turn.tenant, turn.id))


async def check(store: Store) -> None:
    """What was filled in is found by every way."""
    assert [link.alive for link in await store.chain(ALICE, sample_id("leaf"), NOW) or []] == [True, False, True]
    for name in ("root", "right", "leaf", "other", "large", "said"):
        assert await store.record(ALICE, sample_id(name), NOW) is not None
    assert await store.record(ALICE, sample_id("left"), NOW) is None
    assert [await store.find_item(ALICE, item, NOW) for item in ("in", "out", "\0 ∑", "left", "again")] == [
        *([sample_id("root")] * 3),
        None,
        sample_id("again"),
    ]
    chain = await store.conversation_chain(ALICE, sample_conversation_id("talk"), NOW)
    assert [link.id for link in chain or []] == [sample_id(name) for name in ("step", "said", "more")]
    assert await store.conversation_chain(BOB, sample_conversation_id("empty"), NOW) == []
    assert (await store.tenant_size(BOB)).records == 1
