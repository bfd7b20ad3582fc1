"""Random histories of calls, made to both stores and to a model that is too simple to be wrong."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue.history.conversations import ConversationMove, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ResponseId
from segue.protocol.response_query import ResponseQuery, model_label
from segue.stores.interface import ConversationMoved, ParentGone, Store
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.testing.store_conformance import ALICE, BOB, NOW, link_of, sample_id, sample_record
from segue.testing.store_samples import link_of_step, sample_conversation, sample_conversation_id, sample_step
from tests.strategies import examples

tenants = st.sampled_from([ALICE, ALICE, ALICE, BOB])
picks = st.integers(min_value=0, max_value=10_000)
#: Few, so that they meet.
ITEM_IDS = ("a", "b", "c", "d")
item_ids = st.lists(st.sampled_from(ITEM_IDS), max_size=2, unique=True)


class Model:
    """A list of all records and steps ever appended, the set of those that were deleted or swept, and conversations."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.steps: dict[tuple[str, str], ConversationStep] = {}
        self.conversations: dict[tuple[str, str], ResponseId | None] = {}  # where each points
        self.buried: set[tuple[str, str]] = set()
        self.items: list[tuple[str, str, str]] = []  # tenant, id of an item, and its owner

    def append(self, record: Record, given: list[str], made: list[str]) -> None:
        tenant = record.tenant
        self.records[tenant, record.id] = record
        known = {item for owner, item, ident in self.items if owner == tenant and (tenant, ident) not in self.buried}
        self.items += [(tenant, item, record.id) for item in {*made, *(set(given) - known)}]

    def owner(self, tenant: str, item: str, now: float) -> str | None:
        """Items do not outlive their owner; two owners are none."""
        owners = [ident for t, i, ident in self.items if (t, i) == (tenant, item) and self.lives(tenant, ident, now)]
        return owners[0] if len(owners) == 1 else None

    def lives(self, tenant: str, ident: str, now: float) -> bool:
        key = (tenant, ident)
        return key in self.records and key not in self.buried and self.records[key].expires_at > now

    def is_there(self, tenant: str, ident: str | None) -> bool:
        """A turn is kept as long as it, or a descendant of it, lives, or a conversation points there."""
        if ident is None or (tenant, ident) in self.records.keys() - self.buried:
            return True
        turns: dict[tuple[str, str], Record | ConversationStep] = {**self.records, **self.steps}
        if (tenant, ident) not in turns:
            return False
        if ident in [turn for (owner, _), turn in self.conversations.items() if owner == tenant]:
            return True
        children = (turn.id for (owner, _), turn in turns.items() if owner == tenant and turn.parent_id == ident)
        return any(self.is_there(tenant, child) for child in children)

    def chain(self, tenant: str, ident: str, now: float) -> list[ChainLink] | None:
        return self.links(tenant, ident, now) if self.lives(tenant, ident, now) else None

    def links(self, tenant: str, ident: str | None, now: float) -> list[ChainLink]:
        links: list[ChainLink] = []
        while ident is not None:
            step = self.steps.get((tenant, ident))
            turn = step or self.records[tenant, ident]
            links.insert(0, self.link(tenant, turn, now))
            ident = turn.parent_id
        return links

    def link(self, tenant: str, turn: Record | ConversationStep, now: float) -> ChainLink:
        if isinstance(turn, ConversationStep):
            return link_of_step(turn)
        return link_of(turn, alive=self.lives(tenant, turn.id, now))

    def page(self, tenant: str, query: ResponseQuery, now: float) -> list[str] | None:
        """All are of one time, so that they are in the order in which they were appended."""
        own = [ident for owner, ident in self.records if owner == tenant and self.lives(tenant, ident, now)]
        if query.order == "desc":
            own.reverse()
        if query.after is not None:
            if query.after not in own:
                return None
            own = own[own.index(query.after) + 1 :]
        return [i for i in own if set(query.labels) <= set(self.records[tenant, i].labels())][: query.limit]

    def living(self) -> int:
        return len(self.records.keys() - self.buried)


class StoresAgree(RuleBasedStateMachine):
    """Both stores answer every call as the model does, at every time, whatever happened before."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "segue.db"
        self.sqlite = self.runner.run(SqliteStore.open(self.path, synchronous="NORMAL"))
        self.memory = MemoryStore()
        self.model = Model()
        self.now = NOW
        self.names = ["0"]  # of every turn that was ever tried; "0" never is
        self.talks = ["talk"]  # of every conversation; the first never is

    def teardown(self) -> None:
        for tenant in (ALICE, BOB):
            for name in self.names:
                self.look_up(tenant, name)
            for talk in self.talks:
                self.look_at(tenant, talk)
        self.runner.run(self.sqlite.aclose())
        self.runner.close()
        self.folder.cleanup()

    @property
    def stores(self) -> tuple[Store, ...]:
        return self.memory, self.sqlite

    def name(self, pick: int) -> str:
        """One of the names so far, the newest ones more often than the others."""
        return self.names[-1 - pick % min(len(self.names), 5 if pick % 2 else len(self.names))]

    @rule(
        tenant=tenants,
        pick=picks,
        fresh=st.booleans(),
        life=st.integers(1, 20),
        echo=st.integers(1, 3),
        given=item_ids,
        made=item_ids,
    )
    def append(
        self, tenant: str, pick: int, fresh: bool, life: int, echo: int, given: list[str], made: list[str]
    ) -> None:
        """Begin a chain, or continue or fork any turn: living, dead, freed, unknown, or another tenant's."""
        parent = None if fresh else self.name(pick)
        name = str(len(self.names))
        self.names.append(name)
        expires_at = self.now + life
        echoed = b'{"model":"%d"}' % echo
        record = sample_record(name, parent, tenant=tenant, expires_at=expires_at, echo=echoed, given=given, made=made)
        there = record.parent_id is None or self.model.is_there(tenant, record.parent_id)
        if there:
            self.model.append(record, given, made)
        for store in self.stores:
            try:
                self.runner.run(store.append(record))
            except ParentGone:
                assert not there, f"{type(store).__name__} misses the parent"
            else:
                assert there, f"{type(store).__name__} has a parent that was freed"

    @rule(tenant=tenants, pick=picks, given=st.sampled_from(["nothing", "a step", "a turn"]))
    def begin(self, tenant: str, pick: int, given: str) -> None:
        """Make a conversation: empty, with items, or on any turn."""
        talk = str(len(self.talks))
        self.talks.append(talk)
        turn = self.name(pick) if given == "a turn" else None
        step = self.step(None) if given == "a step" else None
        head = sample_conversation(talk, turn, tenant=tenant)
        there = self.model.is_there(tenant, head.turn_id)
        if there:
            self.note_step(tenant, step)
            self.model.conversations[tenant, talk] = head.turn_id if step is None else step.id
        for store in self.stores:
            try:
                self.runner.run(store.create_conversation(head, step))
            except ParentGone:
                assert not there
            else:
                assert there

    @rule(tenant=tenants, pick=picks, at=picks, stale=st.sampled_from([False, False, False, True]))
    def converse(self, tenant: str, pick: int, at: int, *, stale: bool) -> None:
        """Append a response to a conversation; or to what it pointed at some time before."""
        talk, name = self.talks[pick % len(self.talks)], str(len(self.names))
        pointing = self.model.conversations.get((tenant, talk))
        record = sample_record(name, tenant=tenant, expires_at=self.now + 5)
        record = msgspec.structs.replace(record, parent_id=sample_id(self.name(at)) if stale else pointing)
        self.names.append(name)
        known = (tenant, talk) in self.model.conversations
        moved = not known or record.parent_id != pointing
        there = self.model.is_there(tenant, record.parent_id)
        if there and not moved:
            self.model.append(record, [], [])
            self.model.conversations[tenant, talk] = record.id
        for store in self.stores:
            try:
                self.runner.run(store.append_to_conversation(sample_conversation_id(talk), record))
            except (ConversationMoved, ParentGone):
                assert moved or not there
            else:
                assert there
                assert not moved

    @rule(tenant=tenants, pick=picks, at=picks, adds=st.booleans())
    def move(self, tenant: str, pick: int, at: int, *, adds: bool) -> None:
        """Point a conversation at any turn of its chain, or at a new step behind one."""
        talk = self.talks[pick % len(self.talks)]
        pointing = self.model.conversations.get((tenant, talk))
        links = self.model.links(tenant, pointing, self.now)
        place = at % (len(links) + 1)
        to_id = links[place - 1].id if place else None
        step = self.step(to_id) if adds else None
        move = ConversationMove(from_id=pointing, to_id=None if adds else to_id, step=step, at=self.now)
        known = (tenant, talk) in self.model.conversations
        if known:
            self.note_step(tenant, step)
            self.model.conversations[tenant, talk] = to_id if step is None else step.id
        for store in self.stores:
            try:
                self.runner.run(store.move_conversation(tenant, sample_conversation_id(talk), move))
            except ConversationMoved:
                assert not known
            else:
                assert known

    def step(self, parent_id: ResponseId | None) -> ConversationStep:
        name = str(len(self.names))
        self.names.append(name)
        return msgspec.structs.replace(sample_step(name), parent_id=parent_id)

    def note_step(self, tenant: str, step: ConversationStep | None) -> None:
        if step is not None:
            self.model.steps[tenant, step.id] = step

    @rule(tenant=tenants, pick=picks)
    def end(self, tenant: str, pick: int) -> None:
        """Delete any conversation."""
        talk = self.talks[pick % len(self.talks)]
        known = self.model.conversations.pop((tenant, talk), False) is not False
        for store in self.stores:
            assert self.runner.run(store.delete_conversation(tenant, sample_conversation_id(talk))) == known

    @rule(tenant=tenants, pick=picks)
    def delete(self, tenant: str, pick: int) -> None:
        """Delete any response, also one that does not exist."""
        ident = sample_id(self.name(pick))
        lived = self.model.lives(tenant, ident, self.now)
        if lived:
            self.model.buried.add((tenant, ident))
        for store in self.stores:
            assert self.runner.run(store.delete(tenant, ident, self.now)) == lived

    @rule()
    def sweep(self) -> None:
        """Free what has expired."""
        living = self.model.records.keys() - self.model.buried
        expired = {key for key in living if self.model.records[key].expires_at <= self.now}
        self.model.buried |= expired
        for store in self.stores:
            assert set(self.runner.run(store.sweep(self.now))) == expired

    @rule(tenant=tenants, old=st.booleans())
    def erase(self, tenant: str, *, old: bool) -> None:
        """Erase what a tenant has, or what is older than all that it has."""
        living = {ident for owner, ident in self.model.records.keys() - self.model.buried if owner == tenant}
        erased = set() if old else living
        self.model.buried |= {(tenant, ident) for ident in erased}
        for store in self.stores:
            assert set(self.runner.run(store.erase(tenant, NOW if old else None))) == erased

    @rule(seconds=st.integers(1, 6))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds

    @precondition(lambda self: len(self.names) > 3)
    @rule()
    def restart(self) -> None:
        """Close the file and open it again."""
        self.runner.run(self.sqlite.aclose())
        self.sqlite = self.runner.run(SqliteStore.open(self.path, synchronous="NORMAL"))

    @rule(tenant=tenants, pick=picks)
    def read(self, tenant: str, pick: int) -> None:
        """Look anything up."""
        self.look_up(tenant, self.name(pick))

    def look_up(self, tenant: str, name: str) -> None:
        ident = sample_id(name)
        chain = self.model.chain(tenant, ident, self.now)
        record = self.model.records.get((tenant, ident)) if chain else None
        for store in self.stores:
            assert self.runner.run(store.chain(tenant, ident, self.now)) == chain
            assert self.runner.run(store.record(tenant, ident, self.now)) == record

    @rule(tenant=tenants, pick=picks)
    def look_into(self, tenant: str, pick: int) -> None:
        """Look at any conversation."""
        self.look_at(tenant, self.talks[pick % len(self.talks)])

    def look_at(self, tenant: str, talk: str) -> None:
        ident = sample_conversation_id(talk)
        known = (tenant, talk) in self.model.conversations
        pointing = self.model.conversations.get((tenant, talk))
        links = self.model.links(tenant, pointing, self.now) if known else None
        for store in self.stores:
            head = self.runner.run(store.conversation(tenant, ident))
            assert (head is not None) == known
            assert head is None or head.turn_id == pointing
            assert self.runner.run(store.conversation_chain(tenant, ident, self.now)) == links

    @rule(tenant=tenants, item=st.sampled_from(ITEM_IDS))
    def find(self, tenant: str, item: str) -> None:
        """Ask for the owner of an item."""
        for store in self.stores:
            assert self.runner.run(store.find_item(tenant, item, self.now)) == self.model.owner(tenant, item, self.now)

    @rule(tenant=tenants, echo=st.integers(0, 3), pick=picks, rising=st.booleans(), limit=st.integers(1, 3))
    def list(self, tenant: str, echo: int, pick: int, *, rising: bool, limit: int) -> None:
        """Ask for a page of responses, from the beginning or behind any."""
        after = None if pick % 2 else sample_id(self.name(pick))
        labels = (model_label(str(echo)),) if echo else ()
        query = ResponseQuery(labels=labels, order="asc" if rising else "desc", after=after, limit=limit)
        page = self.model.page(tenant, query, self.now)
        for store in self.stores:
            assert self.runner.run(store.list_responses(tenant, query, self.now)) == page

    @invariant()
    def sizes_agree(self) -> None:
        """Both count the responses that were neither deleted nor swept."""
        for store in self.stores:
            assert self.runner.run(store.size()).records == self.model.living()


StoresAgree.TestCase.settings = settings(
    max_examples=examples(40), stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStoresAgree = StoresAgree.TestCase
