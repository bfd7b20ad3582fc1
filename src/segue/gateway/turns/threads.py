"""Message threads: where the message is that a request continues, who continues it, and for how long it is held.

A message of a thread is a turn like every other, whose id begins with `msg_` in the Messages API. Stored, it lives as
long as every stored response. Unstored, it is in memory for a while after its last use, in a slot of the grace period.
One request at a time may continue a message, at whatever gateway. What it made stands beside what another one made
before: a fork, unless the configuration forbids that. Not here: what a thread keeps
(`segue.dialects.messages.threads`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from segue.config import Config
from segue.config.limits import ThreadKeeping
from segue.gateway.turns.executor import TurnRun
from segue.gateway.turns.grace_period import GracePeriod
from segue.gateway.turns.parents import Parents
from segue.history.cache import Slot, TurnCache
from segue.history.chains import Turn
from segue.protocol.events import Event
from segue.protocol.ids import response_of_message
from segue.protocol.problems import Refused, thread_continued, thread_in_flight, thread_not_found
from segue.protocol.requests import ThreadContext
from segue.protocol.responses import thread_of
from segue.stores.interface import Store
from segue.stores.live.advisory_locks import AdvisoryLocks, LockClaim, MemoryLocks


class ThreadRules(msgspec.Struct, frozen=True):
    """How long an unstored message can be continued, whether one may have two successors, and whose are stored."""

    held_s: float
    forks: bool
    keeping: ThreadKeeping
    by_tenant: Mapping[str, ThreadKeeping]

    @classmethod
    def of(cls, config: Config) -> ThreadRules:
        """Return the rules of a configuration. No thread of a tenant with zero retention is stored."""
        server = config.server
        by_tenant = {tenant.name: tenant.threads for tenant in config.tenant if tenant.threads is not None}
        by_tenant.update({tenant.name: "memory" for tenant in config.tenant if tenant.zero_retention})
        return cls(server.thread_s, server.thread_forks, server.threads, by_tenant)


class Anchor(msgspec.Struct, frozen=True):
    """The message that a request continues, and what its thread keeps beside the messages."""

    message_id: str
    turn: Turn
    context: ThreadContext


class ThreadClaim(LockClaim):
    """The right of one request to continue a message."""

    __slots__ = ("turn",)

    def __init__(self, locks: AdvisoryLocks, tenant: str, turn: Turn, entropy: Callable[[int], bytes]) -> None:
        super().__init__(locks, tenant, f"message:{turn.id}", entropy)
        self.turn = turn


class Threads:
    """The message threads of all tenants; `clock` gives unix seconds."""

    def __init__(
        self,
        rules: ThreadRules,
        *,
        parents: Parents,
        store: Store,
        cache: TurnCache,
        grace: GracePeriod,
        locks: AdvisoryLocks,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self.rules = rules
        self._parents = parents
        self._store = store
        self._cache = cache
        self._grace = grace
        self._locks = locks
        self._own_locks = MemoryLocks()  # of what only this gateway has
        self._clock = clock
        self._entropy = entropy

    def slot(self, tenant: str, response_id: str) -> Slot:
        """Return where an unstored message is held."""
        return self._grace.slot(tenant, response_id)

    def places(self, tenant: str, wanted: str | None) -> Sequence[Slot]:
        """Return where an unstored message may be that a request names, through whichever door it comes."""
        if wanted is None:
            return ()
        response_id = response_of_message(wanted)
        slot = self.slot(tenant, response_id)
        turn = self._cache.peek_slot(slot)
        held = turn is not None and turn.thread is not None and self._grace.holds(tenant, response_id)
        return (slot,) if held else ()

    def stores(self, tenant: str) -> bool:
        """Tell whether the messages of a tenant's threads are stored."""
        return self.rules.by_tenant.get(tenant, self.rules.keeping) == "durable"

    async def find(self, tenant: str, message_id: str) -> Anchor:
        """Return the message with this id.

        Raises:
            Refused: there is none for this tenant, or the store cannot be read.
        """
        try:
            turn = await self._parents.find(tenant, message_id, self.places(tenant, message_id))
        except Refused as refused:
            if refused.problem.code != "previous_response_not_found":
                raise
            raise Refused(thread_not_found(message_id)) from None
        context = turn.thread or await self._context(tenant, turn)
        if context is None:
            raise Refused(thread_not_found(message_id))
        return Anchor(message_id, turn, context)

    async def _context(self, tenant: str, turn: Turn) -> ThreadContext | None:
        """Return what a thread goes on with from a response that came from the store, or through another door."""
        record = await self._store.record(tenant, turn.id, self._clock()) if turn.stored else None
        return None if record is None else thread_of(record.echo)

    @asynccontextmanager
    async def claim(self, tenant: str, anchor: Anchor) -> AsyncIterator[ThreadClaim]:
        """Let nobody else continue a message within a block, or until the turn of this claim has ended.

        Raises:
            Refused: another request continues it, at whatever gateway, or none may any more.
        """
        turn = anchor.turn
        locks = self._locks if turn.stored else self._own_locks
        claim = ThreadClaim(locks, tenant, turn, self._entropy)
        if not await claim.take():
            raise Refused(thread_in_flight(anchor.message_id))
        try:
            if not self.rules.forks and await self._is_continued(tenant, turn):
                raise Refused(thread_continued(anchor.message_id))
            self.hold(tenant, turn)
            yield claim
        finally:
            await claim.release()

    async def _is_continued(self, tenant: str, turn: Turn) -> bool:
        """Say whether something continues a message; of a stored one, the store knows, whoever has continued it."""
        if turn.stored and not turn.continued:
            turn.continued = await self._store.is_continued(tenant, turn.id)
        return turn.continued

    def hold(self, tenant: str, turn: Turn) -> None:
        """Hold an unstored message from now on, as long as the rules say."""
        if not turn.stored:
            self._grace.retain(tenant, turn, self._clock() + self.rules.held_s)

    async def follow(
        self, run: TurnRun, tenant: str, claim: ThreadClaim | None
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events of a turn of a thread. Before the last one, it can be continued, and its claim is gone."""
        async with aclosing(run.events()) as batches:
            async for batch in batches:
                if run.finished is not None:
                    await self._settle(run, tenant, claim)
                yield batch

    async def _settle(self, run: TurnRun, tenant: str, claim: ThreadClaim | None) -> None:
        assert run.response_id is not None, "a turn that has finished has an id"
        turn = self._cache.peek_slot(self.slot(tenant, run.response_id))
        if turn is not None:
            self.hold(tenant, turn)
        if claim is not None:
            claim.turn.continued = claim.turn.continued or run.remembered
            await claim.release()
