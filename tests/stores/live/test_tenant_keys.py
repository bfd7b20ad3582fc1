"""The keys of a tenant are in one slot of a cluster, whatever its name holds."""

from __future__ import annotations

import re

from redis.crc import key_slot

from segue.stores.live.tenant_keys import tenant_tag


def test_all_keys_of_a_tenant_are_in_one_slot() -> None:
    names = ["alice", "bob", "", "}{", "a:{b}", "\0\n"]
    tags = [tenant_tag("segue", name) for name in names]
    assert len(set(tags)) == len(names)
    for tag in tags:
        assert re.fullmatch(r"segue:\{[0-9a-f]{24}\}", tag)
        assert key_slot(f"{tag}:claims".encode()) == key_slot(f"{tag}:log:resp_1".encode())
