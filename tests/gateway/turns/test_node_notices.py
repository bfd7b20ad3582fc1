"""What was deleted at another node cannot be found here any more."""

from __future__ import annotations

import pytest

from segue.gateway.turns.node_notices import NodeNotices
from segue.protocol.problems import Refused
from segue.stores.live.interface import Notice
from tests.gateway.parts import TENANT, create, ident, parts, respond


async def test_a_deletion_elsewhere_is_felt_in_memory() -> None:
    async with parts() as services:
        first, second = [ident(await respond(services, create(text))) for text in ("a", "b")]
        await services.store.delete(TENANT, first, services.clock())  # another node did it
        assert (await services.parents.find(TENANT, first, ())).id == first, "nobody has told"
        await NodeNotices(services.executor).act(Notice("deleted", TENANT, (first,)))
        with pytest.raises(Refused):
            await services.parents.find(TENANT, first, ())
        assert (await services.parents.find(TENANT, second, ())).id == second


async def test_a_node_that_may_have_missed_something_reads_the_store_again() -> None:
    async with parts() as services:
        first, second = [ident(await respond(services, create(text))) for text in ("a", "b")]
        await services.store.delete(TENANT, first, services.clock())
        services.distrust_memory()
        with pytest.raises(Refused):
            await services.parents.find(TENANT, first, ())
        assert (await services.parents.find(TENANT, second, ())).id == second
