"""Who is told of responses that are gone, and when those of a connection are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from segue.gateway.turns.eviction import Eviction
from segue.history.cache import TurnCache
from segue.history.chains import Turn
from segue.protocol.ids import ResponseId
from segue.upstreams.scripted import ScriptedUpstream


class Told(ScriptedUpstream):
    """A model that notes what it is told to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, list[ResponseId]]] = []

    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        self.told.append((tenant, list(response_ids)))


class Broken(ScriptedUpstream):
    def forget(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        raise RuntimeError(*response_ids)


def ident(number: int) -> ResponseId:
    return ResponseId(f"resp_{number}")


def turn(number: int, *, stored: bool = False) -> Turn:
    return Turn(id=ident(number), parent=None, input=(b"{}",), output=(), calls=frozenset(), stored=stored)


def test_whoever_keeps_something_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """All of them, since nobody knows who has it; one that fails keeps it from nobody else, and is in the log."""
    cache, first, second = TurnCache(1 << 20), Told(), Told()
    eviction = Eviction(cache, [first, ScriptedUpstream(), Broken(), second])
    cache.put_shared("alice", turn(1, stored=True))
    eviction.forget("alice", [ident(1), ident(2)])
    assert first.told == second.told == [("alice", [ident(1), ident(2)])]
    assert cache.size_bytes == 0
    assert "RuntimeError" in caplog.text
    assert ident(1) not in caplog.text
    eviction.forget("alice", [])
    assert len(first.told) == 1


def test_what_others_hold_is_not_gone() -> None:
    cache, told = TurnCache(1 << 20), Told()
    eviction = Eviction(cache, [told])
    cache.put_slot("alice", ("socket", ""), turn(1))
    eviction.release("alice", [ident(1), ident(2)])
    eviction.release("bob", [ident(1)])
    assert told.told == [("alice", [ident(2)]), ("bob", [ident(1)])]
    cache.drop_slot(("socket", ""))
    eviction.release("alice", [ident(1)])
    assert told.told[2:] == [("alice", [ident(1)])]


def test_a_connection_takes_its_responses_along() -> None:
    """At its end, all at once; what ends after it goes at once."""
    cache, told = TurnCache(1 << 20), Told()
    scoped = Eviction(cache, [told]).connection("alice")
    for number in (1, 2, 1):
        scoped.add(ident(number))
    assert told.told == []
    scoped.close()
    assert told.told == [("alice", [ident(1), ident(2)])]
    scoped.add(ident(3))
    assert told.told[1:] == [("alice", [ident(3)])]


def test_a_connection_remembers_a_bounded_number_beside_what_it_holds() -> None:
    """The oldest go before it. What its lanes hold stays, however old."""
    cache, told = TurnCache(1 << 20), Told()
    scoped = Eviction(cache, [told]).connection("alice")
    lanes = [("socket", str(number)) for number in range(3)]
    for number, lane in enumerate(lanes):
        cache.put_slot("alice", lane, turn(number))
    for number in range(1000):
        scoped.add(ident(number))
    gone = [one for _, ids in told.told for one in ids]
    assert set(gone) == {ident(number) for number in range(3, 1000 - 256 + 3)} - {ident(n) for n in range(3)}
    for lane in lanes:
        cache.drop_slot(lane)
    scoped.close()
    gone = [one for _, ids in told.told for one in ids]
    assert sorted(gone) == sorted(ident(number) for number in range(1000)), "each once"


def test_where_nobody_keeps_anything_nothing_is_remembered() -> None:
    cache, told = TurnCache(1 << 20), Told()
    upstreams = [ScriptedUpstream()]
    scoped = Eviction(cache, upstreams).connection("alice")
    scoped.add(ident(1))
    assert vars(scoped)["_ids"] == {}
    scoped.close()
    assert told.told == []


class Keeping(ScriptedUpstream):
    """A model that keeps more than responses, or fails to drop it."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.tenants: list[str] = []
        self._error = error

    def forget_tenant(self, tenant: str) -> None:
        self.tenants.append(tenant)
        if self._error is not None:
            raise self._error


def test_a_tenant_is_forgotten_here_and_by_whoever_keeps_more(caplog: pytest.LogCaptureFixture) -> None:
    cache, first, second, told = TurnCache(1 << 20), Keeping(RuntimeError("no")), Keeping(), Told()
    eviction = Eviction(cache, iter([first, ScriptedUpstream(), told, second]))
    cache.put_shared("alice", turn(1, stored=True))
    assert (eviction.forget_tenant("alice"), cache.size_bytes) == (1, 0)
    assert (first.tenants, second.tenants, told.told) == (["alice"], ["alice"], [])
    assert "RuntimeError" in caplog.text
