"""Leases of nodes in Redis, and the notices that nodes send each other.

One loop reads the notices of the others, acts on them, and renews the lease, which says how far it has read. So a node
that does not act on notices has no lease before long, and who waits for it waits no longer than that. Not here: what
is done about a notice, and what a node without a lease does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from segue.stores.live.interface import Act, LiveUnavailable, NodeLease, Notice
from segue.stores.live.lease_clock import TRUSTED_SHARE, boot_time
from segue.stores.live.live_url import LiveUrl
from segue.stores.live.redis_link import CALL_S, Client, RedisLink, connect, disconnect, load_script

_log = logging.getLogger("segue.live")

#: How long a lease lasts after its renewal.
LEASE_S: Final = 9.0
#: How long what grows is remembered: last tokens, the epoch.
_KEPT_MS = 7 * 24 * 3600 * 1000
#: So many notices are kept. A node that has missed some drops all that they may be about.
_MOST_NOTICES = 10_000
_NOTICES_KEPT_MS = 3600 * 1000
_EPOCH_BYTES = 8
#: The id before all notices.
_NOTHING = "0-0"
#: How long the loop rests after a failure.
_AGAIN_S = 0.25
#: How often it is looked whether all nodes have acted on a notice: at first, and at most.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.002, 0.1


class _TakenNotice(msgspec.Struct, frozen=True):
    """A notice as it is in the stream: its id, the node that told it, its number, and what it says."""

    id: str
    sender: str
    number: int
    notice: Notice


class RedisNodes:
    """The nodes that share one Redis."""

    def __init__(
        self,
        link: RedisLink,
        where: LiveUrl,
        *,
        node: str,
        address: str,
        started_at: float,
        lease_s: float = LEASE_S,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self.id = node
        self.token = 0
        self.epoch = b""
        self._on_lost: Callable[[], Awaitable[None]] = _nothing
        self._link = link
        self._where = where
        self.address = address
        self._started_at = started_at
        self._lease_s = lease_s
        self._monotonic = monotonic or boot_time
        self._held_until = -1.0
        self._draining = False
        self._read_up_to = _NOTHING
        self._number: int | None = None  # of the latest notice
        self._loss: str | None = None  # why the node may have missed something, until it has acted on that
        self._own: set[str] = set()  # notices of this node that it has read itself
        self._reader: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        tag = f"{where.prefix}:{{nodes}}"
        self._index, self._tokens, self._epochs = f"{tag}:leases", f"{tag}:token", f"{tag}:epoch"
        self._lease = f"{tag}:lease:"
        self._losses = f"{tag}:lost"
        self._stream, self._numbers = f"{tag}:notices", f"{tag}:notices:number"
        self._renew, self._list, self._end, self._add, self._read_epoch = map(
            load_script, ("renew_lease", "list_leases", "end_lease", "add_notice", "read_epoch")
        )

    @property
    def held(self) -> bool:
        """Whether the lease holds, by this process's own clock."""
        return self._monotonic() < self._held_until

    def watch(self, on_lost: Callable[[], Awaitable[None]]) -> None:
        """Call this when the node may have missed what others did."""
        self._on_lost = on_lost

    async def start(self, act: Act) -> None:
        """Take a lease, and begin to renew it and to act on notices."""
        self._reader = reader = connect(self._where, timeout_s=self._block_s + CALL_S)
        try:
            await self._begin_after_latest(reader)
            await self._renew_lease()
        except (RedisError, OSError) as error:
            raise LiveUnavailable(f"Redis cannot be used: {error}") from error
        self._keeper = asyncio.create_task(self._keep(reader, act))

    async def living(self) -> Sequence[NodeLease]:
        """Return the nodes that live."""
        return (await self._look())[0]

    async def is_gone(self, node: str) -> bool:
        """Say whether a node lives no more. After a loss of data that is not known for the time of a lease."""
        leases, whole = await self._look()
        return whole and node != self.id and all(one.node != node for one in leases)

    async def tell(self, notice: Notice) -> None:
        """Tell all others, and return when each of them has acted, or lives no more."""
        give_up_at = self._monotonic() + 2 * self._lease_s
        told = sent_in = None
        pause = _FIRST_LOOK_S
        while self._monotonic() < give_up_at:
            if told is None or sent_in != self.epoch or (told not in self._own and _is_read(told, self._read_up_to)):
                sent_in, told = self.epoch, await self._send(notice)  # it was lost, with a primary or with all data
            leases, whole = await self._look()
            others = [one for one in leases if one.node != self.id]
            if whole and told in self._own and all(_is_read(told, one.read_up_to) for one in others):
                self._own.discard(told)
                if self.held:
                    return
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK_S)
        raise LiveUnavailable("not every gateway has confirmed a notice")

    async def is_lost(self) -> bool:
        """Say whether the data was lost since the lease was renewed: what is found there now is not all there was."""
        epoch: bytes | None = await self._link.run(self._read_epoch, [self._epochs])
        return epoch != self.epoch

    async def drain(self) -> None:
        """Let the others know that this node is leaving: at once, or with the next renewal."""
        self._draining = True
        with contextlib.suppress(LiveUnavailable):
            await self._renew_lease()

    async def aclose(self) -> None:
        """Give the lease back."""
        reader, keeper = self._reader, self._keeper
        self._reader = self._keeper = None
        if keeper is not None:
            keeper.cancel()
        if reader is not None:
            await disconnect(reader)  # its client may lose a cancellation: then the loop ends with its connection
        if keeper is None:
            return
        await asyncio.gather(keeper, return_exceptions=True)
        self._held_until = -1.0
        with contextlib.suppress(LiveUnavailable):  # then it ends by itself
            await self._link.run(self._end, [self._lease + self.id, self._index], self.id, self.token)

    def stand_still(self) -> None:
        """Hear and renew nothing any more, as a process does that was stopped (for tests)."""
        if self._keeper is not None:
            self._keeper.cancel()

    @property
    def _block_s(self) -> float:
        return self._lease_s / 6

    async def _look(self) -> tuple[Sequence[NodeLease], bool]:
        """Return the leases that are there, and whether those are all that nodes may count on."""
        epoch, lost, leases = await self._link.run(self._list, [self._index, self._epochs, self._losses], self._lease)
        return [_lease_of(fields) for fields in leases], epoch == self.epoch and not lost

    async def _send(self, notice: Notice) -> str:
        if not self.held:
            raise LiveUnavailable("the lease of this gateway is over")
        text = msgspec.json.encode(notice)
        keys = [self._stream, self._numbers]
        answer: bytes = await self._link.run(self._add, keys, self.id, text, _MOST_NOTICES, _NOTICES_KEPT_MS, _KEPT_MS)
        return answer.decode()

    # --- the loop ----------------------------------------------------------------------------------------------------

    async def _keep(self, reader: Client, act: Act) -> None:
        while self._reader is reader:
            try:
                for taken in await self._read(reader):
                    await self._take(taken, act)
                await self._renew_lease()
            except (LiveUnavailable, RedisError, OSError):
                await asyncio.sleep(_AGAIN_S)
            except Exception as error:  # noqa: BLE001 - the loop must go on, or the node is lost to all others
                _log.error("action=live node=%s error=%s", self.id, type(error).__name__)
                await asyncio.sleep(_AGAIN_S)

    async def _begin_after_latest(self, reader: Client) -> None:
        """Begin with the notices to come: there is nothing here yet that earlier ones are about."""
        answer: Any = await reader.xrevrange(self._stream, count=1)
        for ident, fields in answer:
            taken = _notice_of(ident, fields)
            self._read_up_to, self._number = taken.id, taken.number

    async def _read(self, reader: Client) -> Sequence[_TakenNotice]:
        answer: Any = await reader.xread({self._stream: self._read_up_to}, count=100, block=int(self._block_s * 1000))
        return [_notice_of(*entry) for _, entries in answer for entry in entries]

    async def _take(self, taken: _TakenNotice, act: Act) -> None:
        missed = self._number is not None and taken.number != self._number + 1
        self._number, self._read_up_to = taken.number, taken.id
        if missed:
            await self._lose("notices were missed")
        if taken.sender == self.id:
            self._own.add(taken.id)
            return
        try:
            await act(taken.notice)
        except Exception as error:  # noqa: BLE001 - the loop must go on, or the node is lost to all others
            _log.error("action=notice kind=%s error=%s", taken.notice.kind, type(error).__name__)
            await self._lose("a notice could not be acted on")

    async def _renew_lease(self) -> None:
        """Renew the lease; it counts from before it was asked for."""
        asked_at = self._monotonic()
        keys = [self._lease + self.id, self._index, self._tokens, self._epochs, self._losses, self._numbers]
        about = (self.id, self.token, self.address, self._started_at, int(self._draining), self._read_up_to)
        lease_ms = int(self._lease_s * 1000)
        fresh = os.urandom(_EPOCH_BYTES)
        token, epoch = await self._link.run(self._renew, keys, *about, lease_ms, fresh, _KEPT_MS, self.epoch)
        had, knew = self.token, self.epoch
        self.token, self.epoch = int(token), epoch  # first: who hears of a loss tells clients the new epoch
        if knew not in (b"", epoch):
            self._read_up_to, self._number = _NOTHING, None
            self._loss = "the data in Redis was lost"
        elif had not in (0, self.token):
            self._loss = "the lease was over"
        if self._loss is not None:
            await self._lose(self._loss)
        if self._loss is None:
            self._held_until = asked_at + self._lease_s * TRUSTED_SHARE

    async def _lose(self, why: str) -> None:
        """Say that the node may have missed something. Until that was heard, it does not trust its lease."""
        self._loss = why
        _log.warning("action=live node=%s %s: what is in memory is read again", self.id, why)
        try:
            await self._on_lost()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again before the lease is renewed
            _log.error("action=live node=%s error=%s", self.id, type(error).__name__)
            return
        self._loss = None


async def _nothing() -> None:
    """Nobody watches."""


def _lease_of(fields: Sequence[bytes]) -> NodeLease:
    node, token, address, started_at, draining, read_up_to = (field.decode() for field in fields)
    return NodeLease(node, int(token), address, float(started_at), draining == "1", read_up_to)


def _notice_of(ident: bytes, fields: Mapping[bytes, bytes]) -> _TakenNotice:
    notice = msgspec.json.decode(fields[b"notice"], type=Notice)
    return _TakenNotice(ident.decode(), fields[b"from"].decode(), int(fields[b"number"]), notice)


def _is_read(ident: str, read_up_to: str) -> bool:
    """Say whether who has read up to an id has read this one."""
    return _order(ident) <= _order(read_up_to)


def _order(ident: str) -> tuple[int, int]:
    time_ms, _, number = ident.partition("-")
    return int(time_ms), int(number)
