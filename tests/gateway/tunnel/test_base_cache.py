"""Bases of tenants: bounded in bytes, the least recently used leaving first, and nobody else's."""

from __future__ import annotations

from segue.gateway.tunnel.base_cache import Bases
from segue.tunnel.documents import Base


def base(name: bytes, size: int = 100) -> Base:
    return Base(name.ljust(size, b"."), b"")


def test_a_base_is_found_by_the_id_of_its_body() -> None:
    bases = Bases(1000)
    bases.add("alice", Base(b"body", b"reply"))
    found = bases.get("alice", Base(b"body").id)
    assert found is not None
    assert (found.body, found.reply) == (b"body", b"reply")


def test_a_base_of_another_tenant_is_not_found() -> None:
    bases = Bases(1000)
    bases.add("alice", base(b"a"))
    assert bases.get("bob", base(b"a").id) is None


def test_the_least_recently_used_base_leaves_first() -> None:
    bases = Bases(250)
    bases.add("alice", base(b"a"))
    bases.add("alice", base(b"b"))
    assert bases.get("alice", base(b"a").id) is not None
    bases.add("alice", base(b"c"))
    assert [bases.get("alice", base(name).id) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    assert bases.size_bytes == 200


def test_a_base_with_the_same_body_replaces_the_one_before() -> None:
    bases = Bases(1000)
    bases.add("alice", Base(b"body", b"first"))
    bases.add("alice", Base(b"body", b"second one"))
    found = bases.get("alice", Base(b"body").id)
    assert found is not None
    assert found.reply == b"second one"
    assert bases.size_bytes == len(b"bodysecond one")


def test_what_is_larger_than_the_budget_is_not_kept_and_pushes_nothing_out() -> None:
    bases = Bases(250)
    bases.add("alice", base(b"a"))
    bases.add("alice", base(b"b", 300))
    assert bases.get("alice", base(b"b", 300).id) is None
    assert bases.get("alice", base(b"a").id) is not None


def test_each_tenant_has_the_budget_for_itself() -> None:
    bases = Bases(100)
    bases.add("alice", base(b"a"))
    bases.add("bob", base(b"b"))
    assert bases.size_bytes == 200


def test_a_reply_completes_the_body_that_is_there() -> None:
    bases, body = Bases(250), base(b"a")
    bases.add_body("alice", body)
    bases.add_body("alice", base(b"a"))
    bases.complete("alice", body.id, b"reply")
    found = bases.get("alice", body.id)
    assert found is not None
    assert (found.body, found.reply, bases.size_bytes) == (body.body, b"reply", 105)
    bases.add_body("alice", body)
    assert bases.get("alice", body.id) is found, "a body whose reply is not there yet replaces none that has one"
    bases.complete("bob", body.id, b"not his")
    assert bases.get("bob", body.id) is None
    bases.complete("alice", body.id, b"x" * 200)
    assert bases.get("alice", body.id) is None, "it is larger than the budget now"


def test_the_bases_of_a_tenant_are_dropped_together() -> None:
    bases = Bases(1000)
    for tenant, name in (("alice", b"a"), ("alice", b"b"), ("bob", b"a")):
        bases.add(tenant, base(name))
    assert (bases.drop_tenant("alice"), bases.drop_tenant("alice")) == (2, 0)
    assert (bases.get("alice", base(b"a").id), bases.size_bytes) == (None, 100)
