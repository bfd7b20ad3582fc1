"""Where the turn is that a request continues. This module alone answers that, for every transport.

A parent may be in the slots that its caller may look into (`places`: on a WebSocket the lane's own slot, the other
lanes, what is held for a fork, the grace period), in the process-wide cache of stored turns, or in the store. They are
searched in this order. `ConnectionSlots` are the slots of one connection. Not here: what a slot costs and when the
budget empties one (`segue.history.cache`), and when a lane runs a turn (`segue.protocol.session`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from segue.gateway.admin.metrics import Metrics
from segue.gateway.turns.compaction import Compactions
from segue.gateway.turns.eviction import Eviction
from segue.gateway.turns.grace_period import GracePeriod
from segue.history.cache import Slot, TurnCache
from segue.history.chains import Turn, lineage
from segue.protocol.ids import ResponseId, parse_response_id, response_of_message
from segue.protocol.problems import Problem, Refused, previous_response_not_found
from segue.stores.interface import Store, StoreError
from segue.stores.live.interface import Nodes

_log = logging.getLogger("segue.gateway")


class Parents:
    """Finds parents in memory and in the store, with what a model sees of them. `clock` gives unix seconds."""

    def __init__(
        self,
        cache: TurnCache,
        store: Store,
        *,
        eviction: Eviction,
        grace: GracePeriod,
        metrics: Metrics,
        compactions: Compactions,
        nodes: Nodes,
        clock: Callable[[], float],
    ) -> None:
        self.nodes = nodes
        self.cache = cache
        self._store = store
        self.eviction = eviction
        self._grace = grace
        self._metrics = metrics
        self.compactions = compactions
        self._clock = clock
        self._deletions = 0

    async def find(self, tenant: str, wanted: str, places: Sequence[Slot]) -> Turn:
        """Return the turn with the id `wanted`.

        Raises:
            Refused: there is none for this tenant, or the store cannot be read.
        """
        metrics, response_id = self._metrics, parse_response_id(response_of_message(wanted))
        if not self.nodes.held:  # another gateway may have deleted some, and does not wait for this one any more
            self.cache.drop_stored(tenant)
        if response_id is not None:
            now = self._clock()
            turn = self._first_in(places, response_id, now)
            if turn is not None:
                metrics.hit["connection"].inc()
                return turn
            turn = self.cache.find_shared(tenant, response_id, now)
            if turn is not None:
                metrics.hit["process"].inc()
                return turn
            turn = await self._load(tenant, response_id, now)
            if turn is not None:
                metrics.hit["store"].inc()
                return turn
        metrics.misses.inc()
        raise Refused(previous_response_not_found(wanted))

    async def look_up(self, tenant: str, response_id: ResponseId) -> Turn | None:
        """Return a stored turn from memory or from the store, to look at its items.

        Raises:
            Refused: the store cannot be read.
        """
        now = self._clock()
        if not self.nodes.held:
            self.cache.drop_stored(tenant)
        return self.cache.find_shared(tenant, response_id, now) or await self._load(tenant, response_id, now)

    def unstored(self, places: Iterable[Slot]) -> Iterator[Turn]:
        """Yield the unstored turns of the chains in these places, the newest of each chain first."""
        for slot in places:
            turn = self.cache.peek_slot(slot)
            while turn is not None and not turn.stored:
                yield turn
                turn = turn.parent

    def connection(self, tenant: str) -> ConnectionSlots:
        """Return the slots of a new connection."""
        return ConnectionSlots(self, self.cache, tenant, eviction=self.eviction, grace=self._grace)

    def in_memory(self, tenant: str, response_id: str, places: Iterable[Slot]) -> Turn | None:
        """Return a turn from these places or the cache of stored turns; None if only the store may have it."""
        now, ident = self._clock(), parse_response_id(response_id)
        if not self.nodes.held:
            self.cache.drop_stored(tenant)
        turn = self._first_in(places, response_id, now)
        return self.cache.find_shared(tenant, ident, now) if turn is None and ident is not None else turn

    def in_slots(self, response_id: str, places: Iterable[Slot]) -> Turn | None:
        """Return a turn from the first of these places that holds it."""
        return self._first_in(places, response_id, self._clock())

    def note_deletion(self) -> None:
        """Note that a response was deleted: what is being read from the store may be out of date."""
        self._deletions += 1

    def _first_in(self, places: Iterable[Slot], response_id: str, now: float) -> Turn | None:
        for slot in places:
            turn = self.cache.find_in_slot(slot, response_id, now)
            if turn is not None:
                return turn
        return None

    async def _load(self, tenant: str, response_id: ResponseId, now: float) -> Turn | None:
        """Read a chain from the store, and keep it in memory for the next turn."""
        deletions = self._deletions
        try:
            links = await self._store.chain(tenant, response_id, now)
        except StoreError as error:
            _log.error("action=load response_id=%s error=%r", response_id, str(error))
            message = "The store cannot be read at the moment. Try again, or send the full input."
            raise Refused(Problem("store_error", message)) from error
        if links is None:
            return None
        turn = await self.compactions.restore(tenant, links, lambda ident: self.cache.peek_stored(tenant, ident))
        # In memory a chain may reach further up than in the store: a child of a deleted parent is stored as a root.
        read = zip(links, lineage(turn)[-len(links) :], strict=True)
        alive = [ancestor for link, ancestor in read if link.alive]
        if self._deletions == deletions:  # otherwise one of them may have been deleted after it was read
            for ancestor in alive:
                self.cache.put_shared(tenant, ancestor)
        return turn


class ConnectionSlots:
    """What one connection holds: the latest turn of each lane, and the parents of forks that wait for their turn."""

    __slots__ = ("_cache", "_forks", "_grace", "_lanes", "_parents", "_scoped", "_tenant")  # thousands of them are idle

    def __init__(
        self, parents: Parents, cache: TurnCache, tenant: str, *, eviction: Eviction, grace: GracePeriod
    ) -> None:
        self._parents = parents
        self._cache = cache
        self._tenant = tenant
        self._grace = grace
        self._scoped = eviction.connection(tenant)
        self._lanes: dict[str, Slot] = {}
        self._forks: dict[int, Slot] = {}  # by the number of the request

    def lane(self, lane: str) -> Slot:
        """Return the slot of a lane's latest turn."""
        return self._lanes.setdefault(lane, (self, lane))

    def places(self, lane: str, number: int, wanted: str | None, *, refers: bool = False) -> Sequence[Slot]:
        """Return where the parent `wanted` by request `number` of a lane may be, the likeliest place first.

        A request that `refers` to items has them looked for in the same places, whatever it continues.
        """
        own = self.lane(lane)
        if wanted is None and not refers:
            return ()
        places = [own, *(slot for name, slot in self._lanes.items() if name != lane)]
        if wanted is None:
            return places
        fork = self._forks.get(number)
        if fork is not None:
            places.append(fork)
        places.append(self._grace.slot(self._tenant, response_of_message(wanted)))
        return places

    def holds(self, response_id: str) -> bool:
        """Tell whether a response is the latest of a lane."""
        return self._parents.in_slots(response_id, self._lanes.values()) is not None

    def hold_for_fork(self, lane: str, number: int, wanted: str) -> None:
        """Keep the parent that request `number` of a lane will continue, though its own lane goes on meanwhile.

        If the request's own lane has the parent, it is no fork. A stored parent is found by its id.
        """
        if self._parents.in_slots(wanted, [self.lane(lane)]) is not None:
            return
        turn = self._parents.in_slots(wanted, self._lanes.values())
        if turn is not None and not turn.stored:
            slot = self._forks[number] = ((self, number), lane)
            self._cache.put_slot(self._tenant, slot, turn)

    def release_fork(self, number: int) -> None:
        """Drop what was held for a request: its turn is over."""
        slot = self._forks.pop(number, None)
        if slot is not None:
            self._cache.drop_slot(slot)

    def adopt(self, lane: str, response_id: str) -> None:
        """Make a kept turn that has ended the latest of a lane."""
        turn = self._parents.in_memory(self._tenant, response_id, [self._grace.slot(self._tenant, response_id)])
        if turn is None:
            self._cache.drop_slot(self.lane(lane))
            return
        self._cache.put_slot(self._tenant, self.lane(lane), turn)
        if not turn.stored:
            self._scoped.add(turn.id)

    def evict(self, lane: str, response_id: str) -> None:
        """Forget a response if it is the lane's latest."""
        turn = self._cache.peek_slot(self.lane(lane))
        if turn is not None and turn.id == response_id:
            self._cache.drop_slot(self.lane(lane))
            self._grace.drop(self._tenant, response_id)

    def note_unstored(self, response_id: ResponseId) -> None:
        """Let an unstored response end with the connection, whatever became of its turn."""
        self._scoped.add(response_id)

    def close(self, grace_until: float | None) -> None:
        """Give up all slots; with `grace_until`, the lanes' unstored turns enter their grace period."""
        if grace_until is not None:
            for slot in self._lanes.values():
                turn = self._cache.peek_slot(slot)
                if turn is not None and not turn.stored:
                    self._grace.retain(self._tenant, turn, grace_until)
        for slot in (*self._lanes.values(), *self._forks.values()):
            self._cache.drop_slot(slot)
        self._scoped.close()
