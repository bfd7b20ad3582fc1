"""Random histories of calls, made to both stores and to a model that is too simple to be wrong."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from segue.history.records import ChainLink, Record
from segue.stores.interface import ParentGone, Store
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.testing.store_conformance import ALICE, BOB, NOW, link_of, sample_id, sample_record
from tests.strategies import examples

tenants = st.sampled_from([ALICE, ALICE, ALICE, BOB])
picks = st.integers(min_value=0, max_value=10_000)
#: Few, so that they meet.
ITEM_IDS = ("a", "b", "c", "d")
item_ids = st.lists(st.sampled_from(ITEM_IDS), max_size=2, unique=True)


class Model:
    """A list of all records ever appended, and the set of those that were deleted or swept."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
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

    def is_there(self, tenant: str, ident: str) -> bool:
        """A record is kept as long as it, or a descendant of it, has not been deleted."""
        if (tenant, ident) not in self.records:
            return False
        children = (record.id for (t, _), record in self.records.items() if t == tenant and record.parent_id == ident)
        return (tenant, ident) not in self.buried or any(self.is_there(tenant, child) for child in children)

    def chain(self, tenant: str, ident: str, now: float) -> list[ChainLink] | None:
        if not self.lives(tenant, ident, now):
            return None
        links: list[ChainLink] = []
        walked: str | None = ident
        while walked is not None:
            record = self.records[tenant, walked]
            links.insert(0, link_of(record, alive=self.lives(tenant, walked, now)))
            walked = record.parent_id
        return links

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
        self.names = ["0"]  # of every record that was ever tried; "0" never is

    def teardown(self) -> None:
        for name in self.names:
            for tenant in (ALICE, BOB):
                self.look_up(tenant, name)
        self.runner.run(self.sqlite.aclose())
        self.runner.close()
        self.folder.cleanup()

    @property
    def stores(self) -> tuple[Store, Store]:
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

    @rule(tenant=tenants, item=st.sampled_from(ITEM_IDS))
    def find(self, tenant: str, item: str) -> None:
        """Ask for the owner of an item."""
        for store in self.stores:
            assert self.runner.run(store.find_item(tenant, item, self.now)) == self.model.owner(tenant, item, self.now)

    @invariant()
    def sizes_agree(self) -> None:
        """Both count the responses that were neither deleted nor swept."""
        for store in self.stores:
            assert self.runner.run(store.size()).records == self.model.living()


StoresAgree.TestCase.settings = settings(
    max_examples=examples(40), stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStoresAgree = StoresAgree.TestCase
