"""Deletions are confirmed when every node has felt them; what could not be sent is sent again."""

from __future__ import annotations

import asyncio

import pytest

from segue.gateway.turns.node_deletions import NodeDeletions
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Refused
from segue.stores.live import owed_work
from segue.stores.live.interface import LiveUnavailable, Notice
from segue.stores.live.memory import SingleNode

ONE = ResponseId("resp_1")


class _Nodes(SingleNode):
    """Nodes that cannot be told anything while `away`."""

    def __init__(self) -> None:
        super().__init__(b"e", address="", started_at=0.0)
        self.away = False
        self.silent = 0  # for so many notices
        self.told: list[Notice] = []
        self.all_told = asyncio.Event()

    async def tell(self, notice: Notice) -> None:
        if self.away or self.silent:
            self.silent = max(0, self.silent - 1)
            raise LiveUnavailable
        self.told.append(notice)
        self.all_told.set()


async def test_many_ids_travel_in_several_notices() -> None:
    nodes = _Nodes()
    ids = [ResponseId(f"resp_{number}") for number in range(1201)]
    await NodeDeletions(nodes).deleted("a", ids)
    assert [one for notice in nodes.told for one in notice.ids] == ids
    assert max(len(notice.ids) for notice in nodes.told) == 500


async def test_without_a_lease_a_deletion_is_refused_before_anything_is_deleted() -> None:
    nodes = _Nodes()
    NodeDeletions(nodes).check()
    nodes.held = False
    with pytest.raises(Refused) as caught:
        NodeDeletions(nodes).check()
    assert caught.value.problem.code == "store_error"


async def test_what_is_not_confirmed_is_said_and_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed_work, "_AGAIN_S", 0.001)
    nodes = _Nodes()
    deletions = NodeDeletions(nodes)
    nodes.away = True
    for _ in range(2):
        with pytest.raises(Refused, match="not every gateway"):
            await deletions.deleted("a", [ONE])
    assert deletions.is_owed("a", ONE)
    assert not deletions.is_owed("b", ONE)
    nodes.away = False
    async with asyncio.timeout(20):
        while deletions.is_owed("a", ONE):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    assert nodes.told == [Notice("deleted", "a", (ONE,))] * 2
    await deletions.aclose()


async def test_of_many_ids_none_is_left_out_because_an_earlier_notice_was_not_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owed_work, "_AGAIN_S", 0.001)
    nodes = _Nodes()
    deletions = NodeDeletions(nodes)
    ids = [ResponseId(f"resp_{number}") for number in range(1201)]
    nodes.silent = 1
    with pytest.raises(Refused, match="not every gateway"):
        await deletions.deleted("a", ids)
    async with asyncio.timeout(20):
        while len(nodes.told) < 3:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    assert {one for notice in nodes.told for one in notice.ids} == set(ids)
    await deletions.aclose()


async def test_what_a_tenant_has_deleted_is_confirmed_once_nothing_of_it_is_owed() -> None:
    nodes = _Nodes()
    deletions = NodeDeletions(nodes)
    nodes.away = True
    with pytest.raises(Refused):
        await deletions.deleted("a", [ONE])
    with pytest.raises(Refused, match="not every gateway"):
        deletions.check_confirmed("a")
    deletions.check_confirmed("b")
    await deletions.aclose()


async def test_closing_sends_nothing_more() -> None:
    nodes = _Nodes()
    deletions = NodeDeletions(nodes)
    nodes.away = True
    with pytest.raises(Refused):
        await deletions.deleted("a", [ONE])
    await deletions.aclose()
    assert nodes.told == []
