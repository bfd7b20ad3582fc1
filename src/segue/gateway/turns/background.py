"""Kept turns: turns that run apart from whoever asked for them, so that a lost connection loses nothing.

A background turn runs to its end. A turn that may be resumed, or that has an idempotency key, runs on for a while when
nobody follows it. Its events go to a log, and every transport reads the log, the first client too: whoever names the
response and the last event it has gets the rest, without a second call upstream. Not here: what a turn is (executor),
where logs and claims are kept (stores).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Protocol

import msgspec

from segue.gateway.redacted_traceback import outline
from segue.gateway.turns.executor import Caller, Executor, Run
from segue.gateway.turns.grace_period import Parking
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId, parse_response_id
from segue.protocol.problems import Problem, Refused, events_gone, key_reused
from segue.protocol.requests import Create
from segue.stores.claims import Claim, Claims
from segue.stores.event_logs import EventLogs, EventsGone

_log = logging.getLogger("segue.gateway")


class Settings(msgspec.Struct, frozen=True):
    """How long a turn runs on without anybody, how long its events are kept after its end, how many may run."""

    resume_s: float
    events_s: float
    max_running: int


class _Watch(Protocol):
    """What counts running turns, so that a shutdown waits for them."""

    def turn_running(self) -> AbstractContextManager[None]: ...


class _Kept:
    """One kept turn while it runs."""

    def __init__(self, create: Create, caller: Caller, run: Run, response_id: ResponseId) -> None:
        self.create = create
        self.tenant = caller.tenant
        self.run = run
        self.response_id = response_id
        #: Set once its first client follows it, or will not: a fast model must not outrun the client it works for.
        self.awaited = asyncio.Event()
        if create.background and not create.stream:
            self.awaited.set()
        self.began: asyncio.Future[Problem | None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.followers = 0
        self.cancelling = False
        self.pending: Sequence[Event] = ()


class Keeper:
    """Runs kept turns, and lets clients follow them."""

    def __init__(
        self,
        executor: Executor,
        *,
        logs: EventLogs,
        claims: Claims,
        parking: Parking,
        settings: Settings,
        watch: _Watch,
    ) -> None:
        self._executor = executor
        self._logs = logs
        self._claims = claims
        self._parking = parking
        self._settings = settings
        self._watch = watch
        self._running: dict[tuple[str, ResponseId], _Kept] = {}
        self._newest = 0.0  # when the last log that ended is to be forgotten
        self._purging: asyncio.TimerHandle | None = None
        self._purge: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """How many kept turns run."""
        return len(self._running)

    # --- what transports ask for -------------------------------------------------------------------------------------

    async def create(self, create: Create, caller: Caller) -> ResponseId:
        """Begin a turn and return its id; with a key that is known, the id of the turn that it stands for.

        Raises:
            Refused: the turn cannot begin.
        """
        while True:
            response_id = self._executor.name(create)
            await self._logs.open(caller.tenant, response_id)
            try:
                known = await self._claim(create, caller.tenant, response_id)
            except Refused:
                await self._logs.drop(caller.tenant, response_id)
                raise
            if known is None:
                return await self._begin(create, caller, response_id)
            await self._logs.drop(caller.tenant, response_id)
            other = self._running.get((caller.tenant, known))
            if other is None or await self._wait(other) is None:
                self._executor.metrics.repeats.inc()
                return known
            # It was refused, and has given its key back: this request may fare better.

    async def _begin(self, create: Create, caller: Caller, response_id: ResponseId) -> ResponseId:
        if len(self._running) >= self._settings.max_running:
            await self._give_up(create, caller.tenant, response_id)
            raise Refused(Problem("server_overloaded", "No more turns can be kept at the moment. Try again."))
        slot = None if create.store else self._parking.slot(caller.tenant, response_id)
        others = [*([] if caller.slot is None else [caller.slot]), *caller.others]
        run = self._executor.run(create, msgspec.structs.replace(caller, slot=slot, others=others), response_id)
        kept = self._running[caller.tenant, response_id] = _Kept(create, caller, run, response_id)
        kept.task = asyncio.get_running_loop().create_task(self._carry(kept))
        problem = await self._wait(kept)
        if problem is not None:
            raise Refused(problem)
        return response_id

    async def _wait(self, kept: _Kept) -> Problem | None:
        """Wait until a turn has begun, or why it did not. Who waits for it follows it."""
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
        metrics, found = self._executor.metrics, False
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
        if kept is not None:
            self._attach(kept)
        try:
            async with aclosing(self._logs.follow(tenant, ident, after)) as batches:
                async for batch in batches:
                    if kept is not None:
                        kept.awaited.set()
                    yield batch
        except EventsGone:
            raise Refused(events_gone(response_id)) from None
        finally:
            if kept is not None:
                self._detach(kept)

    async def latest(self, tenant: str, response_id: ResponseId) -> Event | None:
        """Return the event that tells the present state of a kept turn, running or ended; None if it is not kept."""
        return await self._logs.latest(tenant, response_id)

    async def cancel(self, tenant: str, response_id: ResponseId) -> None:
        """Stop a background turn that runs; it ends as cancelled. One that has ended, or is being stored, is left."""
        kept = self._running.get((tenant, response_id))
        if kept is None or kept.task is None:
            return
        if not kept.run.committing:
            kept.cancelling = True
            kept.task.cancel()
        await asyncio.wait([kept.task])

    async def forget(self, tenant: str, response_id: ResponseId) -> bool:
        """Stop a turn and forget its events; tell whether there was anything to forget."""
        there = await self._logs.latest(tenant, response_id) is not None
        kept = self._running.get((tenant, response_id))
        if kept is not None and kept.task is not None:
            if not kept.run.committing:  # else the store would keep what is to be forgotten
                kept.task.cancel()
            await asyncio.wait([kept.task])
        await self._logs.drop(tenant, response_id)
        self._parking.drop(tenant, response_id)
        if there:
            self._executor.forgetter.forget(tenant, [response_id])
        return there

    async def close(self) -> None:
        """Stop everything."""
        if self._purging is not None:
            self._purging.cancel()
        tasks = [kept.task for kept in self._running.values() if kept.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *([] if self._purge is None else [self._purge]), return_exceptions=True)

    # --- running -----------------------------------------------------------------------------------------------------

    async def _carry(self, kept: _Kept) -> None:
        """Run a turn into its log."""
        tenant, response_id, run = kept.tenant, kept.response_id, kept.run
        try:
            with self._watch.turn_running():
                async with aclosing(run.events()) as batches:
                    async for batch in batches:
                        kept.pending = batch
                        await self._logs.room(tenant, response_id)
                        await self._write(kept)
                        await kept.awaited.wait()
                        await asyncio.sleep(0)  # without followers nothing else would let others run
        except Refused as refused:
            await self._give_up(kept.create, tenant, response_id)
            _tell(kept, refused.problem)
        except asyncio.CancelledError:
            await self._stop(kept)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave clients waiting
            _log.error("action=keep response_id=%s error=%s", response_id, outline(error))
            await self._give_up(kept.create, tenant, response_id)
            _tell(kept, Problem("server_error", "The gateway failed; its log has more. Try again."))
        else:
            await self._finish(kept)
        finally:
            del self._running[tenant, response_id]
            if kept.timer is not None:
                kept.timer.cancel()

    async def _write(self, kept: _Kept) -> None:
        """Put what the turn has yielded into its log; from then on it has begun."""
        batch, kept.pending = kept.pending, ()
        await self._logs.append(kept.tenant, kept.response_id, batch)
        _tell(kept, None)

    async def _stop(self, kept: _Kept) -> None:
        """End a turn whose task was cancelled: for good, or as a response that was cancelled."""
        finished = kept.run.cancelled() if kept.cancelling else None
        if finished is None:
            await self._give_up(kept.create, kept.tenant, kept.response_id)
            _tell(kept, Problem("server_overloaded", "The gateway is shutting down. Send the request again."))
            return
        kept.pending = [*kept.pending, finished.terminal]
        await self._write(kept)
        await self._finish(kept)

    async def _finish(self, kept: _Kept) -> None:
        """Say until when events, key and state of a turn are kept. One that came to nothing gives its key back."""
        tenant, response_id, create = kept.tenant, kept.response_id, kept.create
        expires_at = self._executor.clock() + self._settings.events_s
        finished = kept.run.finished
        good = finished is not None and finished.status in {"completed", "incomplete"}
        if create.idempotency_key is not None:
            if good:
                await self._claims.expire(tenant, create.idempotency_key, expires_at)
            else:
                await self._claims.release(tenant, create.idempotency_key)
        turn = self._executor.cache.peek_slot(self._parking.slot(tenant, response_id))
        if turn is not None:
            self._parking.park(tenant, turn, expires_at)
        await self._logs.end(tenant, response_id, expires_at)
        self._newest = expires_at
        self._arm()

    async def _give_up(self, create: Create, tenant: str, response_id: ResponseId) -> None:
        """Leave no trace of a turn; its key first, so that whoever waits for the turn can try for itself."""
        if create.idempotency_key is not None:
            await self._claims.release(tenant, create.idempotency_key)
        await self._logs.drop(tenant, response_id)
        self._parking.drop(tenant, response_id)
        self._executor.forgetter.release(tenant, [response_id])

    async def _claim(self, create: Create, tenant: str, response_id: ResponseId) -> ResponseId | None:
        """Claim the key of a create, if it has one; return the response that has it already."""
        if create.idempotency_key is None:
            return None
        mine = Claim(response_id, create.digest())
        claim = await self._claims.claim(tenant, create.idempotency_key, mine, self._executor.clock())
        if claim.digest != mine.digest:
            raise Refused(key_reused())
        return None if claim.response_id == response_id else claim.response_id

    # --- followers ---------------------------------------------------------------------------------------------------

    def _attach(self, kept: _Kept) -> None:
        kept.followers += 1
        if kept.timer is not None:
            kept.timer.cancel()
            kept.timer = None

    def _detach(self, kept: _Kept) -> None:
        kept.followers -= 1
        if not kept.followers:
            self._start_grace(kept)

    def _start_grace(self, kept: _Kept) -> None:
        """Let a turn that nobody follows run on for a while; a background turn for ever."""
        if kept.create.background or kept.task is None or kept.task.done():
            return
        kept.timer = asyncio.get_running_loop().call_later(self._settings.resume_s, kept.task.cancel)

    # --- forgetting --------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._purging is None:
            self._purging = asyncio.get_running_loop().call_later(self._settings.events_s, self._on_timer)

    def _on_timer(self) -> None:
        self._purging = None
        self._purge = asyncio.get_running_loop().create_task(self._forget_old())

    async def _forget_old(self) -> None:
        now = self._executor.clock()
        await self._logs.purge(now)
        await self._claims.purge(now)
        if self._newest > now:
            self._arm()


def _tell(kept: _Kept, problem: Problem | None) -> None:
    """Tell whoever began the turn how that went, once."""
    if not kept.began.done():
        kept.began.set_result(problem)
