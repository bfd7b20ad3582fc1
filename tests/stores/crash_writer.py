"""A program that appends to a store from many sides at once, says what was acknowledged, and is killed meanwhile.

Each line on its output names a turn that was appended ("+") or deleted ("-"). `path_of` says what a name stands for.
The turns of the first lane that are no forks are those of a conversation, which has the name of the lane.
"""

from __future__ import annotations

import asyncio
import os
import sys

from segue.stores.sqlite import SqliteStore
from segue.testing.store_conformance import ALICE, NOW, sample_id, sample_record
from segue.testing.store_samples import sample_conversation, sample_conversation_id

LANES = 6


def path_of(name: str) -> list[str]:
    """Return the names of the turns from the root to `name`, which is "round/lane/depth" with "f" for a fork."""
    chain, _, last = name.rpartition("/")
    depth = int(last.removesuffix("f"))
    return [*(f"{chain}/{n}" for n in range(depth)), name]


def is_conversation(chain: str) -> bool:
    """Tell whether a lane is a conversation."""
    return chain.endswith("/0")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # at once, and in one piece


async def lane(store: SqliteStore, chain: str) -> None:
    depth, talk = 0, sample_conversation_id(chain) if is_conversation(chain) else None
    if talk is not None:
        await store.create_conversation(sample_conversation(chain))
    while True:
        names = [f"{chain}/{depth}", f"{chain}/{depth}f"]
        for name in names[: 1 + (depth % 3 == 2)]:
            parent = path_of(name)[-2] if depth else None
            record = sample_record(name, parent)
            if talk is None or name.endswith("f"):
                await store.append(record)
            else:
                await store.append_to_conversation(talk, record)
            say(f"+ {name}")
        if depth % 4 == 3:
            gone = f"{chain}/{depth - 1}"
            await store.delete(ALICE, sample_id(gone), NOW)
            say(f"- {gone}")
        depth += 1


async def main(path: str, label: str) -> None:
    store = await SqliteStore.open(path)
    await asyncio.gather(*(lane(store, f"{label}/{n}") for n in range(LANES)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
