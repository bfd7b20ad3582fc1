"""The executor: runs one turn, for any transport.

validate (done by `protocol`) → resolve the parent (connection, process, store) → run the upstream → forward its events
→ fold → commit the record → terminal event. A transport iterates over `Run.events()` and writes what comes; the pace
of its writing is the pace of the upstream. The record of a store=true turn is committed before its terminal event is
yielded, so an acknowledged turn is never lost. Not here: sockets, framing, and which turns run at the same time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from segue.dialects.messages.message_fold import MessageFold
from segue.dialects.messages.native_turns import native_turn
from segue.gateway.admin.metrics import Outcome
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Scope
from segue.gateway.quotas.storage_quota import StorageQuota
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.conversations import Conversations
from segue.gateway.turns.node_deletions import NodeDeletions
from segue.gateway.turns.parents import Parents
from segue.gateway.turns.reference_resolver import ReferenceResolver
from segue.gateway.turns.response_deletions import ResponseDeletions
from segue.gateway.turns.truncation import truncating
from segue.gateway.turns.turn_ends import end_of, erased, is_filtered, not_stored
from segue.gateway.turns.turn_log import TurnEnd, TurnLog, TurnTimes, turn_line
from segue.gateway.turns.turn_settings import Sources, TurnSettings
from segue.gateway.turns.upstream_use import UpstreamUse
from segue.gateway.turns.used_tokens import count_use
from segue.gateway.turns.warm_up import warm_up
from segue.history.chains import History, Turn
from segue.history.records import Record, encode_head, flatten
from segue.history.repeated_items import leave_out_repeats
from segue.protocol.compaction_object import with_retained
from segue.protocol.configuration_items import follow_updates
from segue.protocol.events import Ended, Event
from segue.protocol.ids import (
    ENTROPY_BYTES,
    ConversationId,
    ResponseId,
    new_response_id,
    parse_response_id,
    response_of_message,
)
from segue.protocol.items import Input, calls_of
from segue.protocol.problems import (
    Problem,
    Refused,
    missing,
    model_not_found,
    not_counted,
    store_mismatch,
    tool_call_not_found,
)
from segue.protocol.requests import Create, Settings
from segue.protocol.responses import Usage, encode_echo
from segue.protocol.turns import Finished, TurnStream
from segue.stores.interface import ConversationMoved, ParentGone, Store, StoreError
from segue.stores.live.advisory_locks import AdvisoryLocks, LockClaim
from segue.upstreams.interface import (
    Batch,
    Counting,
    Streaming,
    TellingSettings,
    Upstream,
    UpstreamNotes,
    UpstreamRequest,
    can_stop_between_items,
    compacts_itself,
    is_native,
)
from segue.upstreams.router import Found, Router

_log = logging.getLogger("segue.gateway")

#: From this size on, the settings of a request are echoed in another thread.
_LARGE_BYTES = 1024 * 1024
_REPLACED = Problem("server_overloaded", "The model has another upstream since the request came. Send it again.")


class ResolvedCreate(msgspec.Struct, frozen=True):
    """What a create names; what a model is `shown` of the history; the settings, with what items of it change."""

    found: Found
    history: History
    input: Input
    shown: History
    settings: Settings


class Executor:
    """Runs turns against one router, one store and one cache."""

    def __init__(
        self,
        *,
        router: Router,
        store: Store,
        parents: Parents,
        limiter: ConcurrencyLimiter,
        locks: AdvisoryLocks,
        settings: TurnSettings,
        sources: Sources,
        turn_log: TurnLog,
    ) -> None:
        self.router = router
        self.store = store
        self.cache = parents.cache
        self.parents = parents
        self.eviction = parents.eviction
        self.limiter = limiter
        self.quotas = limiter.quotas
        self.deletions = NodeDeletions(parents.nodes)
        self.compactions = parents.compactions
        self.turn_log = turn_log
        self.storage_quota = StorageQuota(self.quotas, store)
        self.retention_s = settings.retention_s
        self.clock = sources.clock
        self.monotonic = sources.monotonic
        self.entropy = sources.entropy
        self.resolver = ReferenceResolver(parents, store, max_bytes=settings.max_referenced_bytes, clock=sources.clock)
        self.conversations = Conversations(
            store,
            self.cache,
            compactions=self.compactions,
            resolver=self.resolver,
            storage_quota=self.storage_quota,
            locks=locks,
            sources=sources,
            erasures=self.erasures,
        )
        self.upstream_use = UpstreamUse()
        self._response_deletions = ResponseDeletions(store, parents, self.deletions, clock=sources.clock)
        self._erasures: dict[str, int] = {}

    def run(self, create: Create, caller: Caller, response_id: ResponseId | None = None) -> TurnRun:
        """Prepare a turn; it begins when its events are asked for. `new_id` can make its id before."""
        kind = TurnRun if create.conversation is None else _ConversationTurnRun
        return kind(self, create, caller, response_id)

    def new_id(self, create: Create) -> ResponseId:
        """Make an id for the response of a create."""
        wanted = create.previous_response_id
        parent = create.conversation if wanted is None else parse_response_id(response_of_message(wanted))
        return new_response_id(self.entropy(ENTROPY_BYTES), parent)

    def is_native(self, model: str, tenant: str, dialect: str) -> bool:
        """Tell whether what runs a model can be sent a request of this API as its client wrote it."""
        found = self.router.find(model, tenant)
        return found is not None and is_native(found.upstreams, dialect)

    async def count_input(self, create: Create, caller: Caller) -> int:
        """Return how many tokens the input of a turn would have. Nothing is run or kept.

        Raises:
            Refused: the turn could not begin, or its upstream cannot count.
        """
        resolved = await self.resolve(create, caller)
        runs, model, upstreams, _ = resolved.found
        if not isinstance(runs, Counting):
            raise Refused(not_counted(create.settings.model))
        response_id = new_response_id(self.entropy(ENTROPY_BYTES), _id_of(resolved.history.parent))
        request = UpstreamRequest(model, response_id, caller.tenant, resolved.shown, resolved.settings)
        request = msgspec.structs.replace(request, credential=caller.credential, native=create.native)
        self.upstream_use.begin(upstreams)
        try:
            return await runs.count_input(request)
        finally:
            self.upstream_use.end(upstreams)

    async def resolve(self, create: Create, caller: Caller) -> ResolvedCreate:
        """Find everything that a create names; raises `Refused`."""
        found = self._find(create, caller)
        wanted = create.previous_response_id
        parent = None if wanted is None else await self.parents.find(caller.tenant, wanted, caller.places)
        if create.conversation is not None:
            parent = await self.conversations.newest(caller.tenant, create.conversation)
            if parent is None and create.generate and not create.input.items:
                raise Refused(missing("input"))
        if parent is not None and create.store and not parent.stored:
            raise Refused(store_mismatch(parent.id))
        given = create.input
        if given.references:
            places = () if create.store else caller.places  # what is not stored must not be stored with another turn
            given = await self.resolver.resolve(caller.tenant, given, parent=parent, places=places)
        new = leave_out_repeats(parent, given)
        if not isinstance(new, Input):
            raise Refused(new)
        history = History(parent, new.items[:-1] if new.triggers else new.items)
        orphan = history.find_orphan(new.answers) if new.answers else None
        if orphan is not None:
            raise Refused(tool_call_not_found(*orphan))
        if wanted is not None or create.conversation is not None or given.references:
            found = self._find(create, caller)  # anew: it may have been replaced meanwhile
        if create.native is not None and not is_native(found.upstreams, create.native.dialect):
            raise Refused(_REPLACED)
        shown, settings = history, create.settings
        if new.compacted or new.triggers or new.updates or (parent and (parent.compacted or parent.updates)):
            shown, settings = await self._view(create, caller, parent=parent, new=new, found=found)
        return ResolvedCreate(found, history, new, shown, settings)

    async def _view(
        self, create: Create, caller: Caller, *, parent: Turn | None, new: Input, found: Found
    ) -> tuple[History, Settings]:
        """Return what a model sees of a history and of settings where items say something about those."""
        upstreams = found.upstreams
        seen = await self.compactions.view(
            caller.tenant, parent, new=new, settings=create.settings, upstreams=upstreams
        )
        if self._find(create, caller).upstreams != upstreams:  # what is seen depends on them
            raise Refused(_REPLACED)
        return seen

    def _find(self, create: Create, caller: Caller) -> Found:
        """Find what runs the model of a create. One that is not for the caller looks like none."""
        model, principal = create.settings.model, caller.principal
        found = self.router.find(model, principal.tenant) if principal.may_use(model) else None
        if found is None:
            raise Refused(model_not_found(model))
        return found

    async def delete(self, tenant: str, response_id: ResponseId) -> bool:
        """Delete a stored response, everywhere; return whether there was one. Raises `Refused`."""
        return await self._response_deletions.delete(tenant, response_id)

    def erasures(self, tenant: str) -> int:
        """Return a number that changes when what a tenant has is erased: what was begun before must not be kept."""
        return self._erasures.get(tenant, 0)

    def note_erasure(self, tenant: str) -> None:
        """Note that what a tenant has is being erased, or was erased just now."""
        self._erasures[tenant] = self._erasures.get(tenant, 0) + 1
        self.parents.note_deletion()

    async def sweep(self) -> int:
        """Remove expired responses from the store, from memory and from the upstreams; return how many there were."""
        count = 0
        while swept := await self.store.sweep(self.clock()):
            count += len(swept)
            by_tenant: dict[str, list[ResponseId]] = {}
            for tenant, response_id in swept:
                by_tenant.setdefault(tenant, []).append(response_id)
            for tenant, response_ids in by_tenant.items():
                self.eviction.forget(tenant, response_ids)
        return count


class TurnRun:
    """One turn on its way.

    `response_id` is set when the turn begins, or before. `finished` is set when the terminal event is yielded.
    `committing` is set while the record is written: then it is too late to cancel the turn. `history` is that of the
    turn as it is stored, once the turn has begun. `before_upstream` is called before its upstream is asked, when
    nothing else refuses the turn any more; it may raise `Refused`.
    """

    def __init__(
        self, executor: Executor, create: Create, caller: Caller, response_id: ResponseId | None = None
    ) -> None:
        self._executor = executor
        self._create = create
        self._makes_window = create.compaction is not None and create.compaction.window
        self._input = create.input  # with its references resolved, and without repeats, once the turn begins
        self.history = History(None, ())
        self._caller = caller
        self._tenant = caller.principal.tenant
        self._begun_at = executor.monotonic()
        self._erasures = executor.erasures(self._tenant)
        self._first_output_s: float | None = None
        self._stream: TurnStream | None = None
        self._begun: UpstreamRequest | None = None  # once its upstream has begun it
        self._remembered = False
        self._upstreams: Sequence[Upstream] = ()
        self._tells: TellingSettings | None = None
        self._notes = UpstreamNotes()
        self._scopes: Sequence[Scope] = ()
        self._refusal: str | None = None
        self.response_id = response_id
        self.finished: Finished | None = None
        self.committing = False
        self.before_upstream: Callable[[], Awaitable[None]] | None = None

    @property
    def create(self) -> Create:
        """What was asked for."""
        return self._create

    @property
    def steerable(self) -> bool:
        """Whether it may end between two items, and another response go on from there with the same settings."""
        create = self._create
        plain = create.generate and create.conversation is None and create.compaction is None
        return plain and create.form == "whole" and can_stop_between_items(self._upstreams)

    def steer(self) -> int | None:
        """Let the response end as soon as it may, between two items; return the number of the event that says so."""
        return None if self._stream is None else self._stream.steer()

    def take_number(self) -> int | None:
        """Return the number of an event that is sent at once; None if it has not begun, or has ended."""
        return None if self._stream is None else self._stream.take_number()

    @property
    def remembered(self) -> bool:
        """Whether the turn has become a parent."""
        return self._remembered

    def end_early(self, ended: Ended) -> Finished | None:
        """End the turn after its events were stopped, unless it has ended; return None if it had not begun."""
        if self._stream is not None and self.finished is None:
            self.finished = self._stream.close(ended, self._executor.clock())
        return self.finished

    async def events(self) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the turn's events in batches: the events of one batch belong into one write.

        Closing the generator, or cancelling the task that awaits it, stops the upstream at once.

        Raises:
            Refused: the turn cannot begin; nothing was yielded and nothing has changed.
        """
        # One generator and one loop, on purpose: each layer between upstream and socket costs microseconds per batch.
        executor, create = self._executor, self._create
        outcome: Outcome = "cancelled"
        batches: AsyncGenerator[Batch, None] | None = None
        try:
            request, runs = await self._prepare()
            self.response_id = request.response_id
            echo = await self._echo()
            sources = MessageFold() if create.thread is not None and create.native is not None else None
            stream = self._stream = self._stream_of(request, echo, sources)
            waiting = stream.open()
            batches = runs.stream(request) if create.generate else warm_up(runs, request)
            begun = create.background  # no client waits for a status: a turn that is refused from here on has failed
            while stream.ended is None:
                if begun and waiting:
                    yield waiting
                    waiting = []
                try:
                    batch = await anext(batches)
                except (Exception, asyncio.CancelledError) as error:
                    ended = end_of(error, request, begun=begun)
                    if ended is None:
                        raise
                    batch = (ended,)
                begun, self._begun = True, request
                events = stream.feed(batch)
                if events and self._first_output_s is None:
                    self._first_output_s = executor.monotonic() - self._begun_at
                waiting += events
            finished = stream.close(stream.ended, executor.clock())
            if finished.status != "failed" and not (create.thread is not None and is_filtered(finished)):
                turn = await self._turn_of(request, finished, sources)
                if create.store:
                    if waiting:
                        yield waiting  # the commit takes a disk write: the text need not wait for it
                        waiting = []
                    self.committing = True
                    finished = await self._commit(turn, stream, finished, echo)
                self._remember(turn, finished)
            self.finished = finished
            outcome = finished.status
            yield [*waiting, finished.terminal]
        except Refused as refused:
            outcome, self._refusal = "refused", refused.problem.told_code
            raise
        finally:
            await self._settle(batches, outcome)

    async def _prepare(self) -> tuple[UpstreamRequest, Streaming]:
        """Resolve everything the request names; raises `Refused`."""
        executor, create, caller = self._executor, self._create, self._caller
        self._scopes = await executor.limiter.begin(caller.principal)
        if create.store:
            await executor.storage_quota.check(self._tenant, executor.clock())
        resolved = await executor.resolve(create, caller)
        self._input, self.history = resolved.input, resolved.history
        parent, runs = resolved.history.parent, resolved.found.runs
        self._upstreams, self._tells = resolved.found.upstreams, resolved.found.tells
        executor.upstream_use.begin(self._upstreams)  # no await since they were found
        if self.before_upstream is not None:
            await self.before_upstream()
        continued = _id_of(parent) or create.conversation
        response_id = self.response_id or new_response_id(executor.entropy(ENTROPY_BYTES), continued)
        request = UpstreamRequest(
            resolved.found.model,
            response_id,
            self._tenant,
            resolved.shown,
            resolved.settings,
            caller.credential,
            create.store,
            self._continuable,
            native=create.native,
            size_bytes=create.size_bytes,
            notes=self._notes,
        )
        if create.compaction is not None and create.generate and not compacts_itself(resolved.found.upstreams):
            prepare, transport = executor.compactions.prepare, caller.meter.transport
            return await prepare(request, runs, self.history, wanted=create.compaction, transport=transport)
        auto = create.generate and create.settings.truncation == "auto"
        return request, truncating(runs, request) if auto else runs

    async def _echo(self) -> bytes:
        """Return the echo of the request's settings, as all events of the turn have it."""
        create = self._create
        settings = create.settings if self._tells is None else self._tells.settings_used(create.settings)
        make = partial(encode_echo, settings, store=create.store, background=create.background, thread=create.thread)
        echo = make() if create.size_bytes < _LARGE_BYTES else await asyncio.to_thread(make)
        if self._makes_window:
            echo = with_retained(echo, await self._executor.compactions.retained(self.history))
        return echo

    def _stream_of(self, request: UpstreamRequest, echo: bytes, sources: MessageFold | None) -> TurnStream:
        create, parent = self._create, self.history.parent
        return TurnStream(
            request.response_id,
            None if parent is None else parent.id,
            echo,
            self._executor.clock(),
            encrypted=create.shows_encrypted,
            sources=sources,
            conversation=create.conversation,
        )

    async def _settle(self, batches: AsyncGenerator[Batch, None] | None, outcome: Outcome) -> None:
        """Stop what still runs, and count the turn, also if who waits for that is cancelled."""
        if not self._remembered:
            self._announce_if_lost()
        try:
            if batches is not None:
                await batches.aclose()
        except Exception as error:  # noqa: BLE001 - the seam to foreign code: too late to matter to the turn
            _log.warning("action=stop error=%s", redacted_traceback(error))
        finally:
            self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        executor = self._executor
        executor.upstream_use.end(self._upstreams)
        time_s = executor.monotonic() - self._begun_at
        model = self._create.settings.model if self._upstreams else None
        used = count_use(self._begun, self._stream, failed=outcome == "failed")
        executor.quotas.end(self._scopes, used, executor.clock(), model=model)
        self._caller.meter.turn(outcome, self._first_output_s, time_s)
        if executor.turn_log.on:
            times = TurnTimes(executor.clock(), time_s, self._first_output_s)
            executor.turn_log.note(turn_line(self._caller, self._create, self._upstreams, times, self._end(outcome)))

    def _end(self, outcome: Outcome) -> TurnEnd:
        failure = None if self.finished is None else self.finished.head.error
        code = self._refusal if failure is None else failure.code
        return TurnEnd(outcome, code, self.response_id, self._usage, self._notes)

    async def _turn_of(self, request: UpstreamRequest, finished: Finished, sources: MessageFold | None) -> Turn:
        create = self._create
        native = None if create.native is None or sources is None else native_turn(create.native, sources)
        turn = Turn(
            id=request.response_id,
            parent=self.history.parent,
            input=self.history.input,
            output=finished.output,
            calls=calls_of(finished.output, self._input.calls),
            answered=self._input.answered,
            stored=create.store,
            expires_at=self._executor.clock() + self._executor.retention_s if create.store else None,
            native=native,
            thread=create.thread,
        )
        before = () if turn.parent is None else turn.parent.updates
        if before or self._input.updates:
            turn.note_updates(follow_updates(before, self._input.updates))
        if self._input.compacted or create.compaction is not None:
            await self._executor.compactions.note_end(self._caller.tenant, turn)
        return turn

    async def _commit(self, turn: Turn, stream: TurnStream, finished: Finished, echo: bytes) -> Finished:
        """Write the turn's record; a turn that could not be stored as promised has failed."""
        executor = self._executor
        if self._is_erased():
            return stream.close(erased(finished.head.usage), executor.clock())
        assert turn.expires_at is not None, "a stored turn expires"
        record = Record(
            tenant=self._tenant,
            id=turn.id,
            parent_id=_id_of(turn.parent),
            created_at=turn.expires_at - executor.retention_s,
            expires_at=turn.expires_at,
            head=encode_head(finished.head),
            echo=echo,
            input=turn.input,
            output=turn.output,
            calls=turn.calls,
            native=turn.native,
        )
        try:
            await self._append(record, turn)
            if self._is_erased():  # perhaps before the record was there, which may hold what was erased
                await executor.store.delete(record.tenant, record.id, executor.clock())  # nobody knows its id
                return stream.close(erased(finished.head.usage), executor.clock())
        except StoreError as error:
            _log.error("action=commit response_id=%s error=%r", turn.id, str(error))
            return stream.close(not_stored(finished.head.usage, error), executor.clock())
        executor.storage_quota.note_stored(record.tenant, record.size_bytes)
        return finished

    async def _append(self, record: Record, turn: Turn) -> None:
        """Write the record, as the root of a new chain if its parent was deleted meanwhile."""
        store = self._executor.store
        try:
            await store.append(record)
        except ParentGone:
            assert turn.parent is not None, "only a record with a parent can miss it"
            await store.append(flatten(record, turn.parent))

    def _remember(self, turn: Turn, finished: Finished) -> None:
        """Make the turn a parent, unless it could not be stored: in its lane's slot, and for all if it is stored."""
        if finished.status == "failed" or self._makes_window or self._is_erased():
            return
        caller, cache = self._caller, self._executor.cache
        if caller.slot is not None:
            cache.put_slot(self._tenant, caller.slot, turn)
        if turn.stored:
            cache.put_shared(self._tenant, turn)
        self._remembered = True

    def _is_erased(self) -> bool:
        """Say whether what its tenant has was erased since the turn began: it may continue what is gone."""
        return self._executor.erasures(self._tenant) != self._erasures

    @property
    def _continuable(self) -> bool:
        """Whether the response can be continued by its id if the turn ends well."""
        return not self._makes_window and (self._create.store or self._caller.slot is not None)

    @property
    def _usage(self) -> Usage | None:
        return None if self.finished is None else self.finished.head.usage

    def _announce_if_lost(self) -> None:
        """Tell the upstreams if the turn became no parent although its upstream, which came to its end, expects it."""
        ended = self._stream is not None and self._stream.ended is not None
        if ended and self.response_id is not None:
            self._executor.eviction.forget(self._tenant, [self.response_id])


class _ConversationTurnRun(TurnRun):
    """A turn of a conversation. Nobody else changes the conversation meanwhile, and its response joins it."""

    _claim: LockClaim | None = None

    async def events(self) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the turn's events. Before the last one, the conversation can go on."""
        try:
            async with aclosing(super().events()) as batches:
                async for batch in batches:
                    if self.finished is not None:
                        await self._release()
                    yield batch
        finally:
            await self._release()

    async def _prepare(self) -> tuple[UpstreamRequest, Streaming]:
        executor, caller = self._executor, self._caller
        try:
            self._claim = await executor.conversations.claim(caller.tenant, self._conversation)
        except Refused:
            self._scopes = await executor.limiter.begin(caller.principal)  # it counts as any other request
            raise
        return await super()._prepare()

    async def _release(self) -> None:
        if self._claim is not None:
            await self._claim.release()

    @property
    def _conversation(self) -> ConversationId:
        assert self._create.conversation is not None, "this is for turns of a conversation"
        return self._create.conversation

    async def _append(self, record: Record, turn: Turn) -> None:  # noqa: ARG002 - what it continues cannot be deleted
        """Write the record, and let the conversation point at it."""
        executor = self._executor
        assert self._claim is not None, "without it, the turn has not begun"
        if not await self._claim.holds():
            raise ConversationMoved(f"the conversation {self._conversation!r} was claimed by another gateway meanwhile")
        await executor.store.append_to_conversation(self._conversation, record)
        executor.conversations.note_response(record.tenant, self._conversation)


def _id_of(turn: Turn | None) -> ResponseId | None:
    return None if turn is None else turn.id
