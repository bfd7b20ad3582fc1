"""Kept turns: they run apart from the request that began them, so that a lost connection loses nothing.

A background turn runs to its end. A turn that may be resumed, or that has an idempotency key, runs on for a while when
no client follows it. Its events go to a log, and every transport reads the log, for the first client too: a client that
names the response and the last event that it has gets the rest, without a second call upstream. Not here: what a turn
is (`executor`), and where logs and claims are kept (`segue.stores`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import Literal

import msgspec

from segue.gateway.admin.metrics import Metrics
from segue.gateway.drain import DrainState, takes_no_turn
from segue.gateway.error_mapping import repeat_of
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.request_memory import RequestMemory
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.executor import Executor, TurnRun
from segue.gateway.turns.grace_period import GracePeriod
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ResponseId, parse_response_id
from segue.protocol.lost_turns import lost_turn
from segue.protocol.problems import Problem, Refused, epoch_changed, events_gone, key_reused, live_away, outcome_unknown
from segue.protocol.requests import Create
from segue.protocol.responses import Failure
from segue.protocol.turns import Finished
from segue.stores.event_logs import EventLogs, EventsGone, LogTaken, OwnerGone
from segue.stores.idempotency_keys import Claim, Claims
from segue.stores.interface import StoreError
from segue.stores.live.interface import LiveUnavailable, Notice

_log = logging.getLogger("segue.gateway")


class BackgroundSettings(msgspec.Struct, frozen=True):
    """How long a turn runs on without a follower, how long its events are kept after its end, how many may run."""

    resume_s: float
    events_s: float
    max_running: int


class _KeptTurn:
    """One kept turn while it runs."""

    def __init__(self, create: Create, caller: Caller, run: TurnRun, response_id: ResponseId) -> None:
        self.create = create
        self.tenant = caller.tenant
        self.run = run
        self.response_id = response_id
        #: Set once its first client follows it, or will not: a fast model must not outrun the client that it works for.
        self.awaited = asyncio.Event()
        if create.background and not create.stream:
            self.awaited.set()
        self.began: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.followers = 0
        self.running = False
        self.stopped = False
        self.cancelling = False
        self.unwanted = False
        self.pending: Sequence[Event] = ()

    def stop(self) -> None:
        """Stop the turn: at once, or before it begins. What ends it is not stopped, or nobody would be told of the end.

        A task that is cancelled before its first step runs nothing of its code, so it is not cancelled then.
        """
        self.stopped = True
        if self.running and self.task is not None:
            self.task.cancel()

    def report(self, problem: Problem | None) -> None:
        """Tell the client that began the turn that it has begun, or why it did not. Only the first report counts."""
        if not self.began.done():
            self.began.set_result(problem)


class BackgroundResponses:
    """Runs kept turns, and lets clients follow them."""

    def __init__(
        self,
        executor: Executor,
        *,
        logs: EventLogs,
        claims: Claims,
        grace: GracePeriod,
        settings: BackgroundSettings,
        memory: RequestMemory,
        metrics: Metrics,
        drain: DrainState,
    ) -> None:
        self._executor = executor
        self._logs = logs
        self._claims = claims
        self._grace = grace
        self._settings = settings
        self._memory = memory
        self._metrics = metrics
        self._drain = drain
        self._running: dict[tuple[str, ResponseId], _KeptTurn] = {}
        self._last_expiry = 0.0  # of all logs that have ended
        self._purging: asyncio.TimerHandle | None = None
        self._purge: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """How many kept turns run."""
        return len(self._running)

    # --- what transports ask for -------------------------------------------------------------------------------------

    async def create(self, create: Create, caller: Caller) -> ResponseId:
        """Begin a turn and return its id; with a known idempotency key, the id of the turn that the key stands for.

        Raises:
            Refused: the turn cannot begin.
        """
        before: ResponseId | None = None
        while True:
            response_id = self._executor.new_id(create)
            try:
                await self._logs.open(caller.tenant, response_id, shared=create.store)
                known = await self._claim(create, caller.tenant, response_id)
            except BaseException:  # its client may have left: a repeat must not wait for a turn that never begins
                await self._discard(create, caller.tenant, response_id)
                raise
            if known is None:
                return await self._begin(create, caller, response_id)
            await self._logs.drop(caller.tenant, response_id)
            other = self._running.get((caller.tenant, known))
            begun = await self._has_begun(caller.tenant, known) if other is None else await self._wait(other) is None
            if begun or known == before:
                self._metrics.repeats.inc()
                return known
            before = known  # that turn was refused and has released its key: this request may begin one

    async def _begin(self, create: Create, caller: Caller, response_id: ResponseId) -> ResponseId:
        full = self._is_full(caller.tenant)
        if full or (self._drain.draining and not caller.through_tunnel):
            await self._discard(create, caller.tenant, response_id)
            message = "No more turns can be kept at the moment. Try again."
            raise Refused(Problem("server_overloaded", message) if full else takes_no_turn())
        # The client may be gone at the end, and its slot with it: an unstored turn goes where its grace period begins.
        slot = None if create.store else self._grace.slot(caller.tenant, response_id)
        run = self._executor.run(create, msgspec.structs.replace(caller, slot=slot), response_id)
        kept = self._running[caller.tenant, response_id] = _KeptTurn(create, caller, run, response_id)
        if create.idempotency_key is not None:
            run.before_upstream = partial(self._forward, kept)
        kept.task = asyncio.get_running_loop().create_task(self._run_into_log(kept))
        problem = await self._wait(kept)
        if problem is not None:
            raise Refused(problem)
        return response_id

    def _is_full(self, tenant: str) -> bool:
        """Say whether a tenant may keep no more turns: beyond the bound, those below their even share still may."""
        most = self._settings.max_running
        if len(self._running) < most:
            return False
        turns = Counter(owner for owner, _ in self._running)
        return turns[tenant] >= max(1, most // len({*turns, tenant}))

    async def _wait(self, kept: _KeptTurn) -> Problem | None:
        """Wait until a turn has begun; return why it did not, or None. To wait for a turn is to follow it."""
        self._attach(kept)
        try:
            return await asyncio.shield(kept.began)
        except asyncio.CancelledError:
            kept.awaited.set()
            raise
        finally:
            self._detach(kept)

    async def resume(self, tenant: str, response_id: str, after: int) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events of a kept turn to a client that comes back for them, and count how that goes.

        Raises:
            Refused: they are not there, for this tenant.
        """
        metrics, found = self._metrics, False
        try:
            async with aclosing(self.follow(tenant, response_id, after)) as batches:
                async for batch in batches:
                    if not found:
                        found = True
                        metrics.resumed.inc()
                    yield batch
        except Refused:
            metrics.not_resumed.inc()
            raise

    async def follow(self, tenant: str, response_id: str, after: int) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events of a kept turn that follow a number, to its end.

        Raises:
            Refused: they are not there, for this tenant.
        """
        ident = parse_response_id(response_id)
        if ident is None:
            raise Refused(events_gone(response_id))
        kept = self._running.get((tenant, ident))
        if kept is None:
            async with aclosing(self._read_log(tenant, ident, after)) as batches:
                async for batch in batches:
                    yield batch
            return
        self._attach(kept)
        try:
            async with aclosing(self._logs.follow(tenant, ident, after)) as batches:
                async for batch in batches:
                    kept.awaited.set()
                    yield batch
        except EventsGone:
            raise Refused(events_gone(response_id)) from None
        finally:
            self._detach(kept)

    async def _read_log(
        self, tenant: str, response_id: ResponseId, after: int
    ) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events of a turn that does not run here: it has ended, or another gateway runs it."""
        while True:
            try:
                async with aclosing(self._logs.follow(tenant, response_id, after)) as batches:
                    async for batch in batches:
                        yield batch
                        after = batch[-1].sequence_number
                return
            except EventsGone as gone:
                raise Refused(events_gone(response_id, gone.held_at)) from None
            except OwnerGone as gone:
                await self._end_lost(tenant, response_id, gone)

    async def latest(self, tenant: str, response_id: ResponseId) -> Event | None:
        """Return the event that shows a kept turn as it is now, running or ended; None if it is not kept.

        Raises:
            Refused: another gateway may keep it, and that cannot be found out.
        """
        try:
            try:
                return await self._logs.latest(tenant, response_id)
            except OwnerGone as gone:
                await self._end_lost(tenant, response_id, gone)
                return await self._logs.latest(tenant, response_id)
        except LiveUnavailable:
            raise Refused(live_away()) from None

    async def _end_lost(self, tenant: str, response_id: ResponseId, gone: OwnerGone) -> None:
        """End the log of a turn whose gateway is gone: as failed, unless its response was stored, to be retrieved."""
        try:
            stored = await self._executor.store.record(tenant, response_id, self._executor.clock())
        except StoreError as error:
            _log.error("action=end_lost response_id=%s error=%r", response_id, str(error))
            raise Refused(Problem("store_error", "The store does not answer at the moment. Try again.")) from error
        if stored is not None or gone.latest is None:
            await self._logs.drop(tenant, response_id)
            return
        try:
            event = lost_turn(gone.latest, gone.number)
            await self._logs.fail(tenant, response_id, event, keep_s=self._settings.events_s)
        except LiveUnavailable:
            raise Refused(live_away()) from None

    async def _has_begun(self, tenant: str, response_id: ResponseId) -> bool:
        """Wait until a turn has begun that another gateway runs; False if it was refused."""
        try:
            return await self._logs.begun(tenant, response_id)
        except LiveUnavailable:
            raise Refused(live_away()) from None

    async def cancel(self, tenant: str, response_id: ResponseId, *, everywhere: bool = True) -> None:
        """Stop a background turn that runs; it ends as cancelled. A turn that has ended, or is being stored, stays."""
        kept = self._running.get((tenant, response_id))
        if kept is None and everywhere:
            await self._stop_elsewhere("cancelled", tenant, response_id)
        if kept is None or kept.task is None:
            return
        if not kept.run.committing:
            kept.cancelling = True
            kept.stop()
        await asyncio.wait([kept.task])

    async def forget(self, tenant: str, response_id: ResponseId) -> bool:
        """Stop a turn and forget its events, at whatever gateway; return whether there was anything to forget."""
        there = await self.latest(tenant, response_id) is not None
        if (tenant, response_id) not in self._running:
            await self._stop_elsewhere("forgotten", tenant, response_id)
        await self.forget_here(tenant, response_id)
        if there:
            self._executor.eviction.forget(tenant, [response_id])
        return there

    async def forget_here(self, tenant: str, response_id: ResponseId) -> None:
        """Stop a turn that runs here, and forget its events."""
        kept = self._running.get((tenant, response_id))
        if kept is not None and kept.task is not None:
            if not kept.run.committing:  # otherwise the store would keep what is to be forgotten
                kept.stop()
            await asyncio.wait([kept.task])
        await self._logs.drop(tenant, response_id)
        self._grace.drop(tenant, response_id)

    async def _stop_elsewhere(
        self, how: Literal["forgotten", "cancelled"], tenant: str, response_id: ResponseId
    ) -> None:
        """Have another gateway stop a turn that runs there, if there is one."""
        try:
            if await self._logs.runs_elsewhere(tenant, response_id):
                await self._executor.deletions.tell(Notice(how, tenant, (response_id,)))
        except LiveUnavailable:
            raise Refused(live_away()) from None

    def delete_when_stored(self, tenant: str, response_id: ResponseId) -> None:
        """Let a turn that is being stored be deleted afterwards; one that is not is stopped by who asks for this."""
        kept = self._running.get((tenant, response_id))
        if kept is not None:
            kept.unwanted = True

    async def drop_events(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Drop the events in memory of responses that another gateway has deleted."""
        for response_id in response_ids:
            if self._logs.holds(tenant, response_id) and (tenant, response_id) not in self._running:
                await self._logs.drop(tenant, response_id)
                self._grace.drop(tenant, response_id)

    async def distrust(self) -> None:
        """Drop the events in memory that another gateway may have deleted."""
        await self._logs.distrust()

    async def settled(self, tenant: str, response_id: ResponseId) -> None:
        """Wait until every gateway can see the end of a turn that has ended."""
        await self._logs.settled(tenant, response_id)

    async def forget_tenant(self, tenant: str, *, everywhere: bool = True) -> int:
        """Stop the turns of a tenant, and forget their events and keys; return how many there were.

        Only what is here is forgotten, unless `everywhere` is said.

        A turn that is being stored is not stopped; whoever erases the tenant takes care of what it stores.
        """
        running = [kept for (owner, _), kept in self._running.items() if owner == tenant]
        for kept in running:
            if not kept.run.committing:
                kept.stop()
        await asyncio.gather(*(kept.task for kept in running if kept.task is not None), return_exceptions=True)
        try:
            if everywhere:
                await self._claims.drop_tenant(tenant)
            return await self._logs.drop_tenant(tenant, everywhere=everywhere)
        except LiveUnavailable:
            raise Refused(live_away()) from None

    async def aclose(self) -> None:
        """Stop everything."""
        if self._purging is not None:
            self._purging.cancel()
        tasks = [kept.task for kept in self._running.values() if kept.task is not None]
        for kept in self._running.values():
            kept.stop()
        await asyncio.gather(*tasks, *([] if self._purge is None else [self._purge]), return_exceptions=True)

    # --- running -----------------------------------------------------------------------------------------------------

    async def _run_into_log(self, kept: _KeptTurn) -> None:
        """Run a turn into its log, and end it."""
        held = self._memory.keep(kept.tenant, kept.create.size_bytes)
        try:
            kept.running = not kept.stopped
            end = await self._run(kept) if kept.running else self._stop(kept)
            kept.running = False
            await end
        finally:
            held.release()
            del self._running[kept.tenant, kept.response_id]
            if kept.timer is not None:
                kept.timer.cancel()

    async def _run(self, kept: _KeptTurn) -> Coroutine[None, None, None]:
        """Run a turn into its log, and return what ends it."""
        tenant, response_id, run = kept.tenant, kept.response_id, kept.run
        try:
            with self._drain.turn_running():
                async with aclosing(run.events()) as batches:
                    async for batch in batches:
                        kept.pending = batch
                        await self._logs.wait_for_room(tenant, response_id)
                        if not await self._write(kept):
                            return self._refuse(kept, live_away())
                        await kept.awaited.wait()
                        await asyncio.sleep(0)  # without followers, nothing else here lets other tasks run
        except Refused as refused:
            return self._refuse(kept, refused.problem)
        except LogTaken:
            return self._abandon(kept)
        except asyncio.CancelledError:
            return self._stop(kept)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave clients waiting
            _log.error("action=keep response_id=%s error=%s", response_id, redacted_traceback(error))
            return self._fail(kept, _broken())
        return self._finish(kept)

    async def _write(self, kept: _KeptTurn) -> bool:
        """Append what the turn has yielded to its log; from then on the turn has begun.

        Nobody is told of a response that no other gateway knows: who is told may ask there, and this one may die. A
        background turn that cannot be made known does not begin: False, before its upstream was asked. The client of
        any other turn follows it here, and it goes on.
        """
        batch, kept.pending = kept.pending, ()
        await self._logs.append(kept.tenant, kept.response_id, batch)
        if not kept.began.done():
            known = await self._logs.published(kept.tenant, kept.response_id)
            if not known and kept.create.background:
                return False
        kept.report(None)
        return True

    async def _refuse(self, kept: _KeptTurn, problem: Problem) -> None:
        """End a turn that came to nothing."""
        await self._discard(kept.create, kept.tenant, kept.response_id, has_run=repeat_of(problem) == "paid")
        kept.report(problem)

    async def _abandon(self, kept: _KeptTurn) -> None:
        """End a turn that another gateway has ended already. Its key goes on to stand for that end."""
        tenant, response_id, key = kept.tenant, kept.response_id, kept.create.idempotency_key
        now = self._executor.clock()
        if key is not None:
            await self._claims.expire(tenant, key, response_id, at=now + self._settings.events_s, now=now)
        await self._logs.drop(tenant, response_id)
        self._grace.drop(tenant, response_id)
        self._executor.eviction.release(tenant, [response_id])
        kept.report(outcome_unknown())

    async def _stop(self, kept: _KeptTurn) -> None:
        """End a turn whose task was cancelled, maybe by its client."""
        finished = kept.run.end_early(Ended("cancelled")) if kept.cancelling else None
        if finished is None:
            await self._fail(kept, msgspec.structs.replace(takes_no_turn(), repeat="paid"))  # it may have run
        else:
            await self._end_early(kept, finished)

    async def _fail(self, kept: _KeptTurn, problem: Problem) -> None:
        """End a turn that broke off. A background turn was accepted: whoever asks for it is to learn that it failed.

        Of any other, which has a client that is told, nothing is left.
        """
        accepted = kept.create.background and kept.began.done()
        ended = Ended("failed", error=Failure(problem.code, problem.message))
        finished = kept.run.end_early(ended) if accepted else None
        if finished is None:
            await self._refuse(kept, problem)
        else:
            await self._end_early(kept, finished)

    async def _end_early(self, kept: _KeptTurn, finished: Finished) -> None:
        """Write the end of a turn behind what of its events was not written."""
        if finished.terminal not in kept.pending:
            kept.pending = [*kept.pending, finished.terminal]
        try:
            problem = None if await self._write(kept) else live_away()
        except LogTaken:
            await self._abandon(kept)
            return
        except Exception as error:  # noqa: BLE001 - as above: a log that cannot be written must not keep its followers
            _log.error("action=end response_id=%s error=%s", kept.response_id, redacted_traceback(error))
            problem = _broken()
        if problem is None:
            await self._finish(kept)
        else:
            await self._refuse(kept, problem)

    async def _finish(self, kept: _KeptTurn) -> None:
        """Set until when events, key and state of a turn are kept. That of a failed or cancelled one is for repeats."""
        tenant, response_id, create = kept.tenant, kept.response_id, kept.create
        if kept.unwanted:
            await self._delete(tenant, response_id)
        expires_at = self._executor.clock() + self._settings.events_s
        finished = kept.run.finished
        good = finished is not None and finished.status in {"completed", "incomplete"}
        if create.idempotency_key is not None:
            if good:
                now = self._executor.clock()
                await self._claims.expire(tenant, create.idempotency_key, response_id, at=expires_at, now=now)
            else:
                await self._spend(create.idempotency_key, tenant, response_id)
        turn = self._executor.cache.peek_slot(self._grace.slot(tenant, response_id))
        if turn is not None:
            self._grace.retain(tenant, turn, expires_at)
        await self._logs.end(tenant, response_id, expires_at)
        self._last_expiry = expires_at
        self._arm()

    async def _delete(self, tenant: str, response_id: ResponseId) -> None:
        """Delete what was forgotten elsewhere while it was stored. Its followers wait for the end in any case."""
        try:
            await self._executor.delete(tenant, response_id)
        except (Refused, StoreError) as error:
            _log.error("action=delete response_id=%s error=%s", response_id, type(error).__name__)

    async def _discard(self, create: Create, tenant: str, response_id: ResponseId, *, has_run: bool = False) -> None:
        """Leave no trace of a turn; its key goes first, so that a request that waits for the turn can begin its own."""
        if create.idempotency_key is not None and has_run:
            await self._spend(create.idempotency_key, tenant, response_id)
        elif create.idempotency_key is not None:
            await self._claims.release(tenant, create.idempotency_key, response_id)
        await self._logs.drop(tenant, response_id)
        self._grace.drop(tenant, response_id)
        self._executor.eviction.release(tenant, [response_id])

    async def _claim(self, create: Create, tenant: str, response_id: ResponseId) -> ResponseId | None:
        """Claim the idempotency key of a create, if it has one; return the response that has claimed it already."""
        if create.idempotency_key is None:
            return None
        mine, now, repeats = Claim(response_id, create.digest()), self._executor.clock(), create.epoch is not None
        try:
            claim = await self._claims.claim(tenant, create.idempotency_key, mine, now, repeats=repeats)
        except LiveUnavailable:
            raise Refused(live_away()) from None
        if repeats and create.epoch != self._executor.parents.nodes.epoch.hex():  # since the request came
            await self._claims.release(tenant, create.idempotency_key, response_id)
            raise Refused(epoch_changed())
        if claim.digest != mine.digest:
            raise Refused(key_reused())
        if claim.lost and await self.latest(tenant, claim.response_id) is None:
            raise Refused(outcome_unknown())  # with a log, its end says so
        return None if claim.response_id == response_id else claim.response_id

    async def _forward(self, kept: _KeptTurn) -> None:
        """Note that a turn with a key goes to its upstream, unless another gateway has taken the key over."""
        key = kept.create.idempotency_key
        assert key is not None, "it has one"
        try:
            mine = await self._claims.forward(kept.tenant, key, kept.response_id)
        except LiveUnavailable:
            mine = False
        if not mine:
            raise Refused(live_away())

    async def _spend(self, key: str, tenant: str, response_id: ResponseId) -> None:
        """Give a key back though the model ran. A create that names the epoch is a repeat, and is told so."""
        now = self._executor.clock()
        expires_at = now + self._settings.events_s
        await self._claims.spend(tenant, key, response_id, at=expires_at, now=now)
        self._last_expiry = expires_at
        self._arm()

    # --- followers ---------------------------------------------------------------------------------------------------

    def _attach(self, kept: _KeptTurn) -> None:
        kept.followers += 1
        if kept.timer is not None:
            kept.timer.cancel()
            kept.timer = None

    def _detach(self, kept: _KeptTurn) -> None:
        kept.followers -= 1
        if not kept.followers:
            self._start_grace(kept)

    def _start_grace(self, kept: _KeptTurn) -> None:
        """Let a turn without followers run on for a while, and a background turn to its end."""
        if kept.create.background or kept.task is None or kept.task.done():
            return
        kept.timer = asyncio.get_running_loop().call_later(self._settings.resume_s, kept.stop)

    # --- expiry ------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._purging is None:
            self._purging = asyncio.get_running_loop().call_later(self._settings.events_s, self._on_timer)

    def _on_timer(self) -> None:
        self._purging = None
        self._purge = asyncio.get_running_loop().create_task(self._purge_expired())

    async def _purge_expired(self) -> None:
        now = self._executor.clock()
        await self._logs.purge(now)
        await self._claims.purge(now)
        if self._last_expiry > now:
            self._arm()


def _broken() -> Problem:
    """A bug of ours ended a turn."""
    return Problem("server_error", "The gateway failed; its log has more. Try again.")
