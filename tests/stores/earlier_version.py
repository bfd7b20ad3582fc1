"""What is in `earlier_version.db.gz`, the file of a store as an earlier version wrote it.

It was written by the code of commit a00c736 (schema 1), with `append` for each record and `delete` for each id of
`DELETED`, and compressed with `gzip -9n`. Do not write it again with a newer version: make another file beside it.
"""

from __future__ import annotations

import asyncio
import sys

from segue.history.records import Record
from segue.protocol.ids import ResponseId
from segue.stores.sqlite import SqliteStore

NOW = 1_790_000_000.0
_MONTH_S = 30 * 86_400.0
_ECHOES = (
    b'{"instructions":"Be brief.","model":"gpt-5","temperature":1.0,"tools":[]}',
    b'{"instructions":null,"model":"smollm2","temperature":0.0,"tools":[{"type":"function","name":"look"}]}',
)


def _record(
    name: str,
    parent: str | None,
    *,
    tenant: str = "ann",
    echo: bytes = _ECHOES[0],
    said: bytes = b'{"type":"message","id":"msg_1","role":"assistant","content":"Hello"}',
    calls: tuple[str, ...] = (),
    lives_s: float = _MONTH_S,
) -> Record:
    return Record(
        tenant=tenant,
        id=_id(name),
        parent_id=None if parent is None else _id(parent),
        created_at=NOW,
        expires_at=NOW + lives_s,
        head=b'{"id":"%b","object":"response","status":"completed","created_at":1790000000}' % _id(name).encode(),
        echo=echo,
        input=(
            b'{ "role": "user",  "content": "%b" }' % name.encode(),
            b'{"role":"user","content":"\\u00fc \xc3\xbc"}',
        ),
        output=(said,),
        calls=frozenset(calls),
    )


def _id(name: str) -> ResponseId:
    return ResponseId(f"resp_0badcafe{name:0>32}")


ROOT = _record("a0", None)
GONE = _record(
    "a1",
    "a0",
    said=b'{"type":"function_call","call_id":"call_1","name":"look","arguments":"{}"}',
    calls=("call_1", "call_0"),
)
LEAF = _record("a2", "a1", echo=_ECHOES[1])
FORK = _record("a3", "a0", said=b'{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"c2VhbGVk"}')
EXPIRED = _record("a4", None, lives_s=60.0)
OTHERS = _record("a0", None, tenant="b\u00f6b")

RECORDS = (ROOT, GONE, LEAF, FORK, EXPIRED, OTHERS)
#: A tombstone stays of it, since LEAF continues it.
DELETED = (GONE,)


async def write(path: str) -> None:
    """Write the file."""
    store = await SqliteStore.open(path)
    for record in RECORDS:
        await store.append(record)
    for record in DELETED:
        await store.delete(record.tenant, record.id, NOW)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
