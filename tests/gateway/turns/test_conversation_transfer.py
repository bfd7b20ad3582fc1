"""Conversations are exported and taken in under their tenant, and nothing that is stored is changed by it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from segue.config import Config, LimitsConfig
from segue.gateway.services import Services
from segue.gateway.turns.conversation_transfer import ConversationTransfer, ImportReport
from segue.history.conversations import ConversationHead, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.conversations import NewConversation
from segue.protocol.ids import ResponseId
from segue.protocol.items import Input, user_message
from segue.protocol.problems import Problem, Refused
from segue.protocol.request_size import DEFAULT_LIMITS
from segue.stores.memory import MemoryStore
from tests.gateway.parts import TENANT, caller, create, ident, parts, respond


def transfer(services: Services) -> ConversationTransfer:
    executor = services.executor
    return ConversationTransfer(
        services.store,
        executor.storage_quota,
        limits=DEFAULT_LIMITS,
        retention_s=100.0,
        clock=services.clock,
        entropy=executor.entropy,
        erasures=executor.erasures,
    )


async def chain(services: Services, length: int = 3) -> list[ResponseId]:
    """Have a conversation of so many turns."""
    made: list[ResponseId] = []
    for number in range(length):
        more = {"previous_response_id": made[-1]} if made else {}
        made.append(ident(await respond(services, create(f"turn {number}", **more))))
    return made


async def refusal(services: Services, file: bytes, tenant: str = TENANT) -> Problem:
    with pytest.raises(Refused) as caught:
        await transfer(services).take_in(tenant, file)
    return caught.value.problem


async def test_a_conversation_is_there_after_an_import() -> None:
    """For the tenant that imported it, and to be continued; a repeat changes nothing."""
    async with parts() as one, parts() as other:
        made = await chain(one)
        file = await transfer(one).export(TENANT, made[-1])
        assert await transfer(other).take_in("bob", file) == ImportReport(id=made[-1], turns=3, imported=3)
        assert await transfer(other).take_in("bob", file) == ImportReport(id=made[-1], turns=3, imported=0)
        found = await other.store.record("bob", made[-1], other.clock())
        assert found is not None
        assert (found.expires_at, found.parent_id) == (other.clock() + 100.0, made[1])
        assert await other.store.record(TENANT, made[-1], other.clock()) is None
        file_again = await transfer(other).export("bob", made[-1])
        assert json.loads(file_again)["turns"] == json.loads(file)["turns"]


async def test_a_longer_one_is_added_behind_what_is_there() -> None:
    async with parts() as one, parts() as other:
        made = await chain(one)
        await transfer(other).take_in(TENANT, await transfer(one).export(TENANT, made[0]))
        report = await transfer(other).take_in(TENANT, await transfer(one).export(TENANT, made[2]))
        assert (report.turns, report.imported) == (3, 2)


async def test_another_history_under_a_known_id_is_refused() -> None:
    """Nothing of it is stored."""
    async with parts() as services:
        made = await chain(services, 2)
        file = await transfer(services).export(TENANT, made[1])
        forged = file.replace(b"turn 1", b"turn X")
        assert (await refusal(services, forged)).param == "turns[1].response.id"
        longer = json.loads(forged)
        longer["turns"].append(
            json.loads(forged.replace(made[1].encode(), made[1][:13].encode() + b"0" * 32))["turns"][1]
        )
        assert (await refusal(services, json.dumps(longer).encode())).param == "turns[1].response.id"
        assert (await services.store.size()).records == 2


async def test_a_deleted_turn_is_exported_within_the_next_and_not_by_its_id() -> None:
    async with parts() as services, parts() as other:
        made = await chain(services)
        await services.executor.delete(TENANT, made[0])
        with pytest.raises(Refused):
            await transfer(services).export(TENANT, made[0])
        file = await transfer(services).export(TENANT, made[2])
        assert (await transfer(other).take_in(TENANT, file)).turns == 2
        assert made[0].encode() not in file.replace(b'"previous_response_id":"%b"' % made[0].encode(), b"")
        assert b"turn 0" in file


async def test_a_deleted_turn_that_others_need_is_not_restored() -> None:
    """A repeat would change nothing, so this is no failure of the store."""
    async with parts() as services:
        made = await chain(services)
        file = await transfer(services).export(TENANT, made[1])
        await services.store.delete(TENANT, made[1], services.clock())
        problem = await refusal(services, file)
        assert (problem.code, problem.param) == ("invalid_value", "turns")


async def test_nobody_exports_what_is_anothers() -> None:
    async with parts() as services:
        made = await chain(services, 1)
        for tenant, wanted in (("bob", made[0]), (TENANT, ResponseId("resp_" + "0" * 40))):
            with pytest.raises(Refused) as caught:
                await transfer(services).export(tenant, wanted)
            assert caught.value.problem.code == "response_not_found"


async def test_what_a_tenant_may_store_holds_for_an_import() -> None:
    async with parts() as services:
        made = await chain(services)
        file = await transfer(services).export(TENANT, made[2])
        services.rules.quotas.replace(Config(limits=LimitsConfig(stored_responses=2)))
        problem = await refusal(services, file, "bob")
        assert problem.code == "insufficient_quota"
        assert (await services.store.tenant_size("bob")).records == 2


async def test_a_large_file_is_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.gateway.turns.conversation_transfer.LARGE_BYTES", 0)
    async with parts() as services:
        made = await chain(services, 1)
        file = await transfer(services).export(TENANT, made[0])
        assert (await transfer(services).take_in("bob", file)).imported == 1
        assert (await refusal(services, b"{}")).code == "missing_required_parameter"


async def test_a_turn_is_written_as_a_request() -> None:
    async with parts() as services:
        made = await chain(services)
        written = await transfer(services).stateless_request(
            TENANT, made[2], "chat", compactions=services.executor.compactions
        )
        said = [one["content"] for one in json.loads(bytes(written.body))["messages"] if one["role"] == "user"]
        assert said == ["turn 0", "turn 1", "turn 2"]


async def test_a_conversation_of_the_api_is_there_after_an_import() -> None:
    """With its name, its metadata, and what stands behind its last response; a repeat changes nothing."""
    async with parts() as one, parts() as other:
        conversations = one.executor.conversations
        talk = (await conversations.create(TENANT, NewConversation(items("begun"), b'{"a":"b"}'))).id
        made = ident(await respond(one, create("turn", conversation=talk)))
        await conversations.add(TENANT, talk, items("behind"))
        file = await transfer(one).export_conversation(TENANT, talk)
        for imported in (1, 0):
            report = await transfer(other).take_in("bob", file)
            assert report == ImportReport(id=talk, turns=1, imported=imported)
        head = await other.store.conversation("bob", talk)
        assert head is not None
        assert head.metadata == b'{"a":"b"}'
        here, there = await conversations.links(TENANT, talk), await other.executor.conversations.links("bob", talk)
        assert items_of(there) == items_of(here)
        assert await other.store.record("bob", made, other.clock()) is not None
        await respond(other, create("then", conversation=talk), caller(other, "bob"))
        again = await transfer(one).export_conversation(TENANT, talk)
        assert (await refusal(other, again, "bob")).param == "conversation.id"


async def test_an_empty_conversation_can_be_moved_too() -> None:
    async with parts() as one, parts() as other:
        talk = (await one.executor.conversations.create(TENANT, NewConversation())).id
        file = await transfer(one).export_conversation(TENANT, talk)
        assert await transfer(other).take_in(TENANT, file) == ImportReport(id=talk, turns=0, imported=0)
        assert await other.store.conversation_chain(TENANT, talk, other.clock()) == []
        with pytest.raises(Refused) as caught:
            await transfer(other).export_conversation("bob", talk)
        assert caught.value.problem.code == "conversation_not_found"


async def test_a_conversation_that_is_erased_while_it_comes_in_is_gone() -> None:
    async with parts() as one, parts(store=_ErasingStore()) as other:
        talk = (await one.executor.conversations.create(TENANT, NewConversation(items("x")))).id
        file = await transfer(one).export_conversation(TENANT, talk)
        assert isinstance(other.store, _ErasingStore)
        other.store.services = other
        assert (await refusal(other, file)).code == "store_error"
        assert await other.store.conversation(TENANT, talk) is None
        assert (await refusal(other, file)).code == "store_error"


class _ErasingStore(MemoryStore):
    services: Services

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        await super().create_conversation(head, step)
        self.services.executor.note_erasure(TENANT)


def items(text: str) -> Input:
    return Input((user_message(text),))


def items_of(links: Sequence[ChainLink]) -> list[bytes]:
    return [item for link in links for item in (*link.input, *link.output)]


class _Slow(MemoryStore):
    """Lets others go on before it writes, as a store with a disk does."""

    async def append(self, record: Record) -> None:
        await asyncio.sleep(0)
        await super().append(record)

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        await asyncio.sleep(0)
        await super().create_conversation(head, step)


async def test_imports_of_one_file_at_once_all_succeed() -> None:
    """Each turn is stored once, and none of them is told that another one has stored it."""
    async with parts() as one, parts(store=_Slow()) as other:
        made = await chain(one, 5)
        file = await transfer(one).export(TENANT, made[-1])
        reports = await asyncio.gather(*(transfer(other).take_in(TENANT, file) for _ in range(3)))
        assert {report.id for report in reports} == {made[-1]}
        assert sum(report.imported for report in reports) == 5
        assert (await other.store.size()).records == 5


async def test_imports_of_one_conversation_at_once_all_succeed() -> None:
    async with parts() as one, parts(store=_Slow()) as other:
        given = Input((user_message("hello"),))
        head = await one.executor.conversations.create(TENANT, NewConversation(given, b"{}"))
        file = await transfer(one).export_conversation(TENANT, head.id)
        reports = await asyncio.gather(*(transfer(other).take_in(TENANT, file) for _ in range(2)))
        assert [report.id for report in reports] == [head.id] * 2
        links = await other.store.conversation_chain(TENANT, head.id, other.clock())
        assert links is not None
        assert [link.input for link in links] == [given.items]
