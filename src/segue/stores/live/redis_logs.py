"""Event logs that every node can read: each is in memory where its turn runs, and is copied from there to a stream.

What copies a log is one of its followers: it reads pages of all that has come meanwhile, and a log that is full waits
for it. While Redis is away it follows nothing, so that the turn goes on, and afterwards it copies the rest. A log whose
events are not shared (its response is not stored) is known to the other nodes, without any event. A reader at another
node asks for what is new after a pause that grows while nothing comes. Not here: what is done about a log whose node is
gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

import msgspec

from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.stores.event_logs import EventsGone, LogTaken, MemoryEventLogs, OwnerGone
from segue.stores.live.event_batches import decode_events, encode_events
from segue.stores.live.interface import LiveUnavailable, Nodes
from segue.stores.live.owed_work import OwedWork
from segue.stores.live.redis_link import RedisLink, load_script
from segue.stores.live.tenant_keys import tenant_tag

#: How long a log is kept at most while its turn runs: longer than any turn does.
_RUNNING_MS: Final = 24 * 3600 * 1000
#: After how long it is tried again to copy a log.
_AGAIN_S: Final = 0.25
#: How often a reader looks for what is new: at first, and at most; and for how long it bears that Redis is away.
_FIRST_LOOK_S, _LONGEST_LOOK_S, _PATIENCE_S = 0.01, 0.25, 20.0
#: For how long a log may lack events that its own node has shown already.
_LAG_S: Final = 2.0
#: So many entries are read at once; each is a page of a log.
_ENTRIES = 4


class _LogCopy:
    """The copy of one log: how far it is, and until when it is to be kept."""

    def __init__(self, tenant: str, response_id: ResponseId, token: int, *, shared: bool) -> None:
        self.tenant = tenant
        self.response_id = response_id
        self.token = token
        self.shared = shared
        self.sent = -1
        self.echo_sent = False
        self.expires_at: float | None = None
        self.taken = False
        self.tried = asyncio.Event()
        """Set when something was copied, or could not be."""
        self.task: asyncio.Task[None] | None = None


class _SeenLog(msgspec.Struct, frozen=True):
    """What of a log is in Redis."""

    running: bool
    node: str
    address: str
    shared: bool
    last: int
    latest: bytes
    echo: bytes
    entries: Sequence[bytes]


class RedisEventLogs:
    """The event logs of this node, and a way to those of the others. `clock` gives unix seconds."""

    def __init__(
        self,
        local: MemoryEventLogs,
        link: RedisLink,
        nodes: Nodes,
        *,
        log_bytes: int,
        tenant_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._local = local
        self._link = link
        self._nodes = nodes
        self._log_bytes = log_bytes
        self._tenant_bytes = tenant_bytes
        self._clock = clock
        self._copies: dict[tuple[str, ResponseId], _LogCopy] = {}
        self._owed: OwedWork[tuple[str, ResponseId]] = OwedWork(lambda log: self._drop(*log))
        self._opening, self._appending, self._reading, self._dropping = map(
            load_script, ("open_log", "append_log", "read_log", "drop_logs")
        )

    # --- writing -----------------------------------------------------------------------------------------------------

    async def open(self, tenant: str, response_id: ResponseId, *, shared: bool) -> None:
        """Begin an empty log; if Redis is away, in memory for the time being."""
        await self._local.open(tenant, response_id, shared=shared)
        copy = _LogCopy(tenant, response_id, self._nodes.token, shared=shared)
        self._copies[tenant, response_id] = copy
        with contextlib.suppress(LiveUnavailable):  # what copies it tries again
            await self._open(copy)
        copy.task = asyncio.get_running_loop().create_task(self._copy(copy))
        copy.task.add_done_callback(lambda _: copy.tried.set())

    async def wait_for_room(self, tenant: str, response_id: ResponseId) -> None:
        """Wait as the log in memory does, whose copy is one of its followers."""
        copy = self._copies.get((tenant, response_id))
        if copy is not None and copy.taken:
            raise LogTaken
        await self._local.wait_for_room(tenant, response_id)

    async def append(self, tenant: str, response_id: ResponseId, events: Sequence[Event]) -> None:
        """Add events in memory; they are copied from there."""
        await self._local.append(tenant, response_id, events)

    async def end(self, tenant: str, response_id: ResponseId, expires_at: float) -> None:
        """Mark the log as complete."""
        copy = self._copies.get((tenant, response_id))
        if copy is not None:
            copy.expires_at = expires_at
        await self._local.end(tenant, response_id, expires_at)

    async def fail(self, tenant: str, response_id: ResponseId, event: Event, *, keep_s: float) -> None:
        """End a log of a node that is gone with this event, unless somebody else has ended it."""
        number, keep_ms = event.sequence_number, int(keep_s * 1000)
        entry = encode_events([event])
        with contextlib.suppress(_CopyGone):  # whoever has dropped it, there is nothing to end
            await self._append(tenant, response_id, "", number, number, entry, keep_ms=keep_ms, latest=entry, ends=True)

    async def drop(self, tenant: str, response_id: ResponseId) -> None:
        """Drop the log, here and in Redis; if that is away, as soon as it is back, or readers would wait for an end."""
        await self._local.drop(tenant, response_id)
        copy = await self._stop((tenant, response_id))
        if copy is None or not copy.taken:
            await self._owed.do_or_owe((tenant, response_id))

    async def drop_tenant(self, tenant: str, *, everywhere: bool = True) -> int:
        """Drop all logs of a tenant here; and in Redis, those of other nodes too."""
        dropped = await self._local.drop_tenant(tenant)
        for key in [key for key in self._copies if key[0] == tenant]:
            await self._stop(key)
        return max(dropped, await self._drop(tenant, "")) if everywhere else dropped

    async def purge(self, now: float) -> None:
        """Drop the logs in memory that have expired; those in Redis expire by themselves."""
        await self._local.purge(now)
        for key, copy in list(self._copies.items()):
            if copy.expires_at is not None and copy.expires_at <= now:
                await self._stop(key)

    async def published(self, tenant: str, response_id: ResponseId) -> bool:
        """Wait until it was tried to copy what the log had first; False if that failed, as when Redis is away.

        Without a lease too: other nodes would take this one for dead, and end the log.
        """
        copy = self._copies.get((tenant, response_id))
        if copy is None:
            return False
        await copy.tried.wait()
        return copy.sent >= 0 and self._nodes.held

    async def settled(self, tenant: str, response_id: ResponseId) -> None:
        """Wait until a log that has ended is copied."""
        copy = self._copies.get((tenant, response_id))
        if copy is not None and copy.task is not None:
            await asyncio.wait([copy.task])

    async def aclose(self) -> None:
        """Copy nothing more."""
        await self._owed.aclose()
        for key in list(self._copies):
            await self._stop(key)

    # --- reading -----------------------------------------------------------------------------------------------------

    def holds(self, tenant: str, response_id: ResponseId) -> bool:
        """Tell whether a log is in the memory of this node."""
        return self._local.holds(tenant, response_id)

    async def distrust(self) -> None:
        """Drop from memory the logs that are whole in Redis: those that were deleted are not there."""
        for key, copy in list(self._copies.items()):
            if copy.shared and copy.task is not None and copy.task.done():
                await self._stop(key)
                await self._local.drop(*key)

    async def latest(self, tenant: str, response_id: ResponseId) -> Event | None:
        """Return the latest event that carries the response object."""
        if self._is_trusted(tenant, response_id):
            return await self._local.latest(tenant, response_id)
        seen = await self._read(tenant, response_id, -1, entries=0, echo=True)
        if seen is None:
            return None
        if await self._is_orphaned(seen):
            raise OwnerGone(_latest_of(seen), seen.last + 1)
        return _latest_of(seen)

    async def begun(self, tenant: str, response_id: ResponseId) -> bool:
        """Wait until a log has an event; False if it is dropped before."""
        pause = _FIRST_LOOK_S
        while not self._local.holds(tenant, response_id):
            seen = await self._read(tenant, response_id, -1, entries=0, echo=False)
            if seen is None or seen.last >= 0 or not seen.shared or await self._is_orphaned(seen):
                return seen is not None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK_S)
        return True

    async def runs_elsewhere(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether the turn of a log runs at another node."""
        if self._local.holds(tenant, response_id):
            return False
        seen = await self._read(tenant, response_id, -1, entries=0, echo=False)
        return seen is not None and seen.running and not await self._is_orphaned(seen)

    async def follow(self, tenant: str, response_id: ResponseId, after: int) -> AsyncGenerator[Sequence[Event], None]:
        """Yield what follows `after`, from memory if the log is of this node."""
        local = self._is_trusted(tenant, response_id)
        follow = self._local.follow if local else self._follow_elsewhere
        async with aclosing(follow(tenant, response_id, after)) as pages:
            async for page in pages:
                yield page

    def _is_trusted(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether a log is here, and nobody can have deleted it without this node knowing."""
        copy = self._copies.get((tenant, response_id))
        ended = copy is not None and copy.shared and copy.expires_at is not None
        return self._local.holds(tenant, response_id) and (self._nodes.held or not ended)

    async def _follow_elsewhere(
        self, tenant: str, response_id: ResponseId, after: int
    ) -> AsyncGenerator[Sequence[Event], None]:
        echo, pause, failed_s, waited_s = b"", _FIRST_LOOK_S, 0.0, 0.0
        while True:
            try:
                seen = await self._read(tenant, response_id, after, entries=_ENTRIES, echo=not echo)
                orphaned = seen is not None and not seen.entries and await self._is_orphaned(seen)
            except LiveUnavailable:
                failed_s += _LONGEST_LOOK_S
                if failed_s > _PATIENCE_S:
                    raise EventsGone from None
                await asyncio.sleep(_LONGEST_LOOK_S)
                continue
            if seen is None or not seen.shared:
                raise EventsGone("" if seen is None else seen.address)
            if after > seen.last and (not seen.running or waited_s > _LAG_S):
                raise EventsGone
            echo, failed_s = echo or seen.echo, 0.0
            page = _page_of(seen.entries, echo, after)
            if page:
                yield page
                after, pause = page[-1].sequence_number, _FIRST_LOOK_S
                continue
            if orphaned:
                raise OwnerGone(_latest_of(seen, echo), seen.last + 1)
            if not seen.running:
                return
            await asyncio.sleep(pause)
            waited_s += pause
            pause = min(pause * 2, _LONGEST_LOOK_S)

    async def _read(
        self, tenant: str, response_id: ResponseId, after: int, *, entries: int, echo: bool
    ) -> _SeenLog | None:
        keys = [self._key(tenant, response_id), self._stream(tenant, response_id)]
        found = await self._link.run(self._reading, keys, after, entries, int(echo))
        if not found:
            return None
        state, node, address, shared, last, latest, known_echo, pages = found
        return _SeenLog(
            state == b"running", node.decode(), address.decode(), shared == b"1", int(last), latest, known_echo, pages
        )

    async def _is_orphaned(self, seen: _SeenLog) -> bool:
        """Say whether the node that writes a log lives no more; then there will be no end of it."""
        return seen.running and await self._nodes.is_gone(seen.node)

    # --- copying -----------------------------------------------------------------------------------------------------

    async def _copy(self, copy: _LogCopy) -> None:
        """Copy a log to its end, also when Redis goes away and comes back meanwhile, with all data or with none."""
        while True:
            try:
                copy.taken = not await self._copy_pages(copy)
                return
            except _CopyGone:
                pass  # it is begun anew
            except EventsGone:  # they were dropped from memory before they were copied
                copy.sent = self._local.first_kept(copy.tenant, copy.response_id) - 1
                if not self._local.holds(copy.tenant, copy.response_id):
                    return
                continue
            except LiveUnavailable:
                copy.tried.set()
            await asyncio.sleep(_AGAIN_S)

    async def _copy_pages(self, copy: _LogCopy) -> bool:
        """Copy pages to the end; False if another node has ended the log."""
        tenant, response_id = copy.tenant, copy.response_id
        await self._open(copy)
        async with aclosing(self._local.follow(tenant, response_id, copy.sent)) as pages:
            async for page in pages:
                if copy.shared and not await self._send(copy, page):
                    return False
                copy.sent = page[-1].sequence_number
                copy.tried.set()
        expires_at = copy.expires_at or self._clock()
        keep_ms = max(1, int((expires_at - self._clock()) * 1000))
        return await self._append(tenant, response_id, str(copy.token), 0, copy.sent, b"", keep_ms=keep_ms, ends=True)

    async def _send(self, copy: _LogCopy, page: Sequence[Event]) -> bool:
        echo = b"" if copy.echo_sent else next((event.echo for event in page if event.echo), b"")
        latest = [event for event in page if event.echo][-1:]
        sent = await self._append(
            copy.tenant,
            copy.response_id,
            str(copy.token),
            page[0].sequence_number,
            page[-1].sequence_number,
            encode_events(page),
            keep_ms=_RUNNING_MS,
            echo=echo,
            latest=encode_events(latest) if latest else b"",
        )
        copy.echo_sent = copy.echo_sent or bool(echo)
        return sent

    async def _append(  # noqa: PLR0913 - what one script is given
        self,
        tenant: str,
        response_id: ResponseId,
        token: str,
        first: int,
        last: int,
        entry: bytes,
        *,
        keep_ms: int,
        echo: bytes = b"",
        latest: bytes = b"",
        ends: bool = False,
    ) -> bool:
        """Add an entry; False if another node has ended the log. Raises `_CopyGone`."""
        keys = [self._key(tenant, response_id), self._stream(tenant, response_id), *self._shared_keys(tenant)]
        running = max(1, sum(copy.expires_at is None for copy in self._copies.values()))
        bounds = (min(self._log_bytes, self._tenant_bytes // running), self._tenant_bytes)
        args = (response_id, token, first, last, entry, echo, latest, *bounds, keep_ms, int(ends))
        prefixes = (self._key(tenant, ""), self._stream(tenant, ""))
        result: bytes = await self._link.run(self._appending, keys, *args, *prefixes)
        if result == b"gone":
            raise _CopyGone
        return result != b"fenced"

    async def _open(self, copy: _LogCopy) -> None:
        tenant, response_id = copy.tenant, copy.response_id
        keys = [self._key(tenant, response_id), *self._shared_keys(tenant)]
        about = (response_id, self._nodes.id, copy.token, self._nodes.address, int(copy.shared), _RUNNING_MS)
        if await self._link.run(self._opening, keys, *about):  # what was there before is lost
            copy.sent, copy.echo_sent = -1, False

    async def _drop(self, tenant: str, response_id: str) -> int:
        prefixes = (self._key(tenant, ""), self._stream(tenant, ""))
        dropped: int = await self._link.run(self._dropping, self._shared_keys(tenant), response_id, *prefixes)
        return dropped

    async def _stop(self, key: tuple[str, ResponseId]) -> _LogCopy | None:
        """Take a copy out, and stop its task. Another call may have done so while this one waited for something."""
        copy = self._copies.pop(key, None)
        if copy is not None and copy.task is not None:
            copy.task.cancel()
            await asyncio.gather(copy.task, return_exceptions=True)
        return copy

    def _key(self, tenant: str, response_id: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:log:{response_id}"

    def _stream(self, tenant: str, response_id: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:events:{response_id}"

    def _shared_keys(self, tenant: str) -> list[str]:
        tag = tenant_tag(self._link.prefix, tenant)
        return [f"{tag}:logs", f"{tag}:log-bytes"]


class _CopyGone(Exception):
    """What was copied of a log is gone: Redis has lost its data, or another node has dropped it."""


def _page_of(entries: Sequence[bytes], echo: bytes, after: int) -> list[Event]:
    """Return the events of entries that follow a number. Raises `EventsGone` if some of them are missing.

    Entries may overlap: one whose sender got no answer may be there, and what was sent again has more at its end.
    """
    page: list[Event] = []
    for entry in entries:
        for event in decode_events(entry, echo):
            ahead = event.sequence_number - after - len(page)
            if ahead > 1:
                raise EventsGone
            if ahead == 1:
                page.append(event)
    return page


def _latest_of(seen: _SeenLog, echo: bytes = b"") -> Event | None:
    return decode_events(seen.latest, seen.echo or echo)[-1] if seen.latest else None
