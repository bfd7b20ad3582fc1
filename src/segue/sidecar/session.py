"""One session with a gateway: the exchanges that it carries, and the links that carry them, one after the other.

Data runs one way. To send something, ask the session (`open`, `send`, `consume_to`, `cancel` …). The session writes
what comes back into the `AgentExchange`; to receive it, wait there and read, or let the exchange call you when a packet
was taken (`pass_on`). The session sets `attention` when its owner has to act, and the owner then looks.

When a link is lost, the session looks for its gateway again, with growing waits. Not here: at which addresses
(`segue.sidecar.gateway_addresses`), how long exchanges wait for a link (`segue.sidecar.link_status`), which session
takes new exchanges (`segue.sidecar.session_pool`), and how agents are answered (`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import count
from typing import TypeAlias, assert_never

import msgspec

from segue.network_changes.watch import NetworkChange
from segue.packet_writer import PacketWriter
from segue.sidecar.arriving_reply import ArrivingReply, Ending
from segue.sidecar.connector import (
    GatewayRefusedError,
    GatewayUnreachableError,
    LinkIntroduction,
    TunnelSocket,
    frame_bytes,
)
from segue.sidecar.dialer import Dialer
from segue.sidecar.farewell import Farewell
from segue.sidecar.gateway_addresses import GatewayAddresses
from segue.sidecar.link_search import GOOD_S, LinkSearch
from segue.sidecar.link_status import LinkState, LinkStatus, LinkTimeouts, LinkUnavailable
from segue.sidecar.link_successor import SuccessorFinder
from segue.sidecar.owner_search import OWNER_ONLY_S, PAUSE_S, OwnerSearch
from segue.sidecar.packet_intake import PacketIntake
from segue.sidecar.patience_timers import PatienceTimers
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.events import (
    BaseMissed,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    UploadTaken,
    Welcomed,
    Writable,
)

_log = logging.getLogger("segue.sidecar")

#: An agent that hangs up when its link has been silent for this long has probably hung up because of that.
QUIET_S = 5.0

_ExchangeEvent: TypeAlias = Writable | ReplyEnded | ExchangeReset | BaseMissed | UploadTaken | OutcomeUnknown


class AgentExchange(ArrivingReply):
    """One exchange of an agent, as data: what it asks, what has come back so far, and how it ended.

    It outlives links, and for a while its agent. Only sessions write to it.
    """

    def __init__(self, session: GatewaySession, request: TunnelRequest, *, keep_bytes: int) -> None:
        super().__init__(keep_bytes=keep_bytes)
        self.session = session
        """The session that carries it now, or carried it last."""
        self.handle = 0
        """Its name in that session."""
        self.request = request
        self.base_missed = False
        """The gateway did not have the base of the document, of a WebSocket that of the last one that asked."""
        self.orphaned = False
        """Its agent has hung up, and it goes on without one."""
        self.reopened = False
        """A session could not have it forwarded, so that it was opened a second time."""
        self.consumed = 0
        """Up to this offset the reply has gone on, so that more may come."""
        self.writable = asyncio.Event()
        """Set when there is room again for what the agent sends, and at the end."""
        self.upload_wanted = asyncio.Event()
        """Set when the gateway wants the body without a base, and at the end."""
        self.answered = asyncio.Event()
        """Set when the gateway has answered the message of a WebSocket that asked, and at the end."""

    def end(self, ending: Ending) -> None:
        """Record how it ended, and wake all who wait here."""
        self.ending = ending
        self.changed.set()
        self.writable.set()
        self.upload_wanted.set()
        self.answered.set()


class GatewaySession:
    """One session, from `start` to `aclose`. `was_up`: the session before it had a link."""

    def __init__(
        self,
        gateways: Sequence[str],
        dialer: Dialer,
        *,
        timeouts: LinkTimeouts,
        stats: Stats,
        was_up: bool,
    ) -> None:
        self.max_body_bytes: int | None = None
        """The largest body that the gateway takes; None before it has said so."""
        self.folds_alike = True
        """The gateway folds replies as this end does, as far as is known."""
        self.attention = asyncio.Event()
        """Set when the owner should look at `draining`, `take_rejected` and `over`."""
        self.draining = False
        """The gateway takes nothing new from this session."""
        self.over = False
        """The session was told to leave, and all that it carried has ended."""
        self._addresses = GatewayAddresses(gateways)
        self._dialer = dialer
        self._stats = stats
        self._name = secrets.token_hex(16)
        self._loop = asyncio.get_running_loop()
        self._tunnel = TunnelClient()
        self._exchanges: dict[int, AgentExchange] = {}
        self._changed: dict[AgentExchange, None] = {}  # those that got something of the present packet
        self._rejected: list[AgentExchange] = []
        self._status = LinkStatus(timeouts, self._loop.time(), was_up=was_up)
        self._search = LinkSearch()
        self._owner = OwnerSearch()
        self._link_numbers = count(1)
        self._successors = SuccessorFinder(
            dialer, self._tunnel, self._name, numbers=self._link_numbers, is_wanted=self._is_wanted
        )
        self._attempted = asyncio.Event()
        self._leaving = False
        self._farewell = Farewell(self._tunnel, stats)
        self._link_was_good = False
        self._wake = asyncio.Event()
        self._writer: PacketWriter | None = None  # of the present link
        self._task: asyncio.Task[None] | None = None
        self._patience = PatienceTimers(timeouts, self._review_exchanges)

    def start(self) -> None:
        """Begin to look for the gateway."""
        self._patience.start()
        self._task = self._loop.create_task(self._run())

    async def aclose(self) -> None:
        """Give up the link and all exchanges."""
        self._patience.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def leave(self) -> None:
        """Take nothing new, and end when everything under way has ended."""
        self._leaving = True
        self._stir()

    def take_rejected(self) -> list[AgentExchange]:
        """Return what this session could not have forwarded; the owner opens it once more."""
        rejected, self._rejected = self._rejected, []
        return rejected

    # --- the state of the link ---------------------------------------------------------------------------------------

    @property
    def state(self) -> LinkState:
        """What the link is doing."""
        return self._status.state

    @property
    def gateway(self) -> str:
        """Where the present or last link leads to, as it was given."""
        return self._addresses.current

    @property
    def epoch(self) -> bytes:
        """The epoch of the node that the present or last link leads to; empty before the first link."""
        return self._tunnel.epoch

    @property
    def rtt_s(self) -> float | None:
        """The link's least round-trip time lately."""
        return self._tunnel.rtt_s

    @property
    def queued(self) -> int:
        """How many exchanges have not wholly gone to the gateway yet."""
        return sum(not self._tunnel.is_complete(handle) for handle in self._exchanges)

    @property
    def reason(self) -> str:
        """Why there is no link; empty while there is one, or before the first attempt has failed."""
        return self._status.reason

    def is_complete(self, exchange: AgentExchange) -> bool:
        """Tell whether the whole request of an exchange that is under way has left."""
        return self._tunnel.is_complete(exchange.handle)

    def is_suspect(self) -> bool:
        """Tell whether the link is away, or silent for so long that agents may lose patience with it."""
        return not self._status.up or self._tunnel.is_quiet(self._loop.time(), QUIET_S)

    def unavailable(self) -> LinkUnavailable | None:
        """Return why something that was not forwarded yet need not wait for the link; None: it should wait."""
        return self._status.unavailable(self._loop.time())

    def ask_for_link(self) -> asyncio.Event:
        """Look for the gateway soon, for a request. The event is set when there is a link, or the attempt failed."""
        self._search.ask()
        self._stir()
        return self._attempted

    def network_changed(self, change: NetworkChange) -> None:
        """Look for the gateway at once; if there is a link, find out whether it still leads there."""
        if not self._status.up:
            self._search.network_changed()
        elif change == "moved":
            self._successors.network_moved()
        self._stir()

    # --- what whoever answers an agent asks for ----------------------------------------------------------------------

    def open(self, exchange: AgentExchange) -> None:
        """Carry an exchange from now on."""
        exchange.session = self
        exchange.handle = self._tunnel.open(exchange.request)
        self._exchanges[exchange.handle] = exchange
        self._stir()
        self._successors.look()
        self._end_if_hopeless(exchange)

    def upload_again(self, exchange: AgentExchange, document: bytes) -> None:
        """Answer a missed base with a document that needs none."""
        exchange.request = msgspec.structs.replace(exchange.request, document=document)
        self._tunnel.upload_again(exchange.handle, document)
        self._stir()

    def consume_to(self, exchange: AgentExchange, offset: int) -> None:
        """Record that the reply has gone on up to this offset, so that the gateway may send more."""
        if offset > exchange.consumed:
            self._tunnel.consume(exchange.handle, offset - exchange.consumed)
            exchange.consumed = offset
            if self._tunnel.has_to_send:
                self._stir()

    def send(self, exchange: AgentExchange, data: bytes, *, asks: bool = False) -> None:
        """Send bytes of a WebSocket's messages. `asks`: they end with one that needs a base; `answered` tells more."""
        if asks and exchange.ending is None:
            exchange.base_missed = False
            exchange.answered.clear()
        self._tunnel.send(exchange.handle, data, asks=asks)
        self._stir()

    def finish(self, exchange: AgentExchange) -> None:
        """End what the agent's side of a WebSocket sends."""
        self._tunnel.finish(exchange.handle)
        self._stir()

    def has_room(self, exchange: AgentExchange) -> bool:
        """Tell whether more may be sent now; if not, `exchange.writable` is set when it may."""
        if self._tunnel.room(exchange.handle) > 0:
            return True
        exchange.writable.clear()
        return False

    def keep_reply(self, exchange: AgentExchange, beginning: bytes) -> None:
        """Let later replies build on this one: `beginning` is the whole, or `REPLY_BASE_BYTES` of it."""
        self._tunnel.keep_reply(exchange.handle, beginning)

    def reply_base(self, exchange: AgentExchange) -> bytes:
        """Return what the reply may build on; empty if that is not known yet, or nothing."""
        return self._tunnel.reply_base(exchange.handle)

    def orphan(self, exchange: AgentExchange) -> None:
        """Go on without an agent, as long as a later one can be given the reply from its beginning."""
        exchange.orphaned = True
        self.consume_to(exchange, exchange.log.end)

    def adopt(self, exchange: AgentExchange) -> None:
        """Go on with an agent again, which reads the reply from its beginning."""
        exchange.orphaned = False

    def cancel(self, exchange: AgentExchange) -> None:
        """Give an exchange up, unless it has ended; the gateway closes what it opened for it."""
        if exchange.ending is None:
            self._drop(exchange)
            exchange.end(ExchangeReset(exchange.handle, "cancelled", b"nobody waits for it"))

    def _drop(self, exchange: AgentExchange) -> None:
        self._tunnel.cancel(exchange.handle)
        self._exchanges.pop(exchange.handle, None)
        self._stir()

    def _end_if_hopeless(self, exchange: AgentExchange) -> None:
        """End an exchange that need not wait for the link any more."""
        ending: Ending | None
        if exchange.head is None and not self._tunnel.is_complete(exchange.handle):
            ending = self.unavailable()
        elif self._status.is_given_up(self._loop.time()):
            ending = OutcomeUnknown(exchange.handle)
        else:
            ending = None
        if ending is not None:
            self._drop(exchange)
            exchange.end(ending)

    def _review_exchanges(self) -> None:
        for exchange in tuple(self._exchanges.values()):
            self._end_if_hopeless(exchange)

    # --- links -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_done():
            await self._pause()
            self._link_was_good = False
            if not self._is_done():
                await self._try_all()
            if self._has_ended():
                self._farewell.note_attempt()
            fraction = random.random()  # noqa: S311 - jitter, not a secret
            self._search.attempt_ended(self._loop.time(), good=self._link_was_good, fraction=fraction)
            self._end_attempt()
        self.over = True
        self.attention.set()

    def _end_attempt(self) -> None:
        """Tell those who wait for the present attempt how it ended."""
        self._attempted.set()
        self._attempted = asyncio.Event()

    async def _try_all(self) -> None:
        """Use the first gateway that serves us; if all of them refuse, end the exchanges that wait."""
        owner_only = self._must_find_owner()
        candidates = self._addresses.begin_round(owner_only=owner_only)
        refusals: list[LinkUnavailable] = []
        for gateway in candidates:
            try:
                await self._use(gateway)
            except GatewayRefusedError as error:
                refusals.append(LinkUnavailable(error.code, str(error)))
                self._note_failure(gateway, str(error))
            except GatewayUnreachableError as error:
                self._note_failure(gateway, str(error))
            except Exception:  # noqa: BLE001 - the outermost seam: a bug of ours costs a link, not the sidecar
                _log.exception("action=link gateway=%s failed", gateway)
                self._note_failure(gateway, "the sidecar failed; its log says why")
            else:
                return
        if not owner_only:  # a gateway that is only away may take us later
            self._status.note_refused(refusals[0] if len(refusals) == len(candidates) else None)
            self._review_exchanges()

    def _is_done(self) -> bool:
        """Tell whether there is nothing left to do: the session was left, and its gateway keeps nothing for it."""
        return self._has_ended() and self._farewell.over

    def _has_ended(self) -> bool:
        """Tell whether the session was left, and has nothing more to carry."""
        return self._leaving and not len(self._tunnel)

    async def _pause(self) -> None:
        """Wait before the next attempt, less as soon as somebody waits for the link, until there is nothing to do."""
        while not self._is_done():
            until = self._search.next_at(waiting=bool(self._exchanges), refused=self._status.refused)
            if self._loop.time() >= until:
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    def _is_wanted(self) -> bool:
        return bool(self._exchanges) or self._search.asked

    def _must_find_owner(self) -> bool:
        """Tell whether to look only for the node that has our exchanges: it was lost just now, and may come back.

        A goodbye too is for that node alone.
        """
        was_lost_just_now = self._status.is_away_within(OWNER_ONLY_S, self._loop.time())
        return self._has_ended() or (self.max_body_bytes is not None and was_lost_just_now and len(self._tunnel) > 0)

    def _note_failure(self, gateway: str, reason: str) -> None:
        self._addresses.note_failed(gateway)
        if self._status.note_failed(gateway, reason):
            _log.warning("action=link gateway=%s failed: %s", gateway, reason)

    async def _use(self, gateway: str) -> None:
        """Connect, and exchange packets until the link is lost."""
        hello = b""

        async def introduce() -> LinkIntroduction:
            """Begin the link on a connection that is there; the HELLO is as new as can be."""
            nonlocal hello
            now = self._loop.time()
            self._tunnel.link_opened(now)
            hello = self._tunnel.next_packet(now) or b""
            return LinkIntroduction(next(self._link_numbers), hello)

        links = AsyncExitStack()
        try:
            link = self._dialer.link(gateway, self._name, introduce, is_wanted=self._is_wanted)
            socket = await links.enter_async_context(link)
            await self._pass_by(socket.answer.epoch)
            if not socket.took_hello:
                self._count_sent(len(hello))
                with suppress(ConnectionError):  # the reader notices it too
                    socket.write(hello)
            await self._carry(socket, gateway)
            while (successor := self._successors.take()) is not None:
                await links.aclose()
                links, socket = successor.stack, successor.socket
                _log.info("action=link gateway=%s replaced, since it was silent", gateway)
                self._tunnel.link_opened(self._loop.time())
                await self._carry(socket, gateway)
        finally:
            self._tunnel.link_lost()
            await self._successors.aclose()
            await links.aclose()

    async def _pass_by(self, epoch: str) -> None:
        """Raise `GatewayUnreachableError` if the node of this epoch would lose what another one goes on with."""
        if self._tunnel.is_bound() and self._owner.passes_by(epoch, self._tunnel.epoch.hex(), self._loop.time()):
            self._link_was_good = True  # it is no failure: the next attempt follows
            await asyncio.sleep(PAUSE_S * random.random())  # noqa: S311 - jitter, not a secret
            raise GatewayUnreachableError("another node answers than the one that has what is under way")

    async def _carry(self, socket: TunnelSocket, gateway: str) -> None:
        """Exchange packets until the link is lost, or another connection takes its place."""
        opened_at = self._loop.time()
        self._writer = PacketWriter(self._tunnel, socket, is_over=self._is_leaving_link, count=self._count_sent)
        writer = self._loop.create_task(self._write(self._writer, socket))
        writer.add_done_callback(lambda _: self._end_without_writer(socket))
        try:
            async with self._successors.watching(gateway, socket.abort):
                reason = await PacketIntake(socket, partial(self._take, gateway)).run()
        except asyncio.CancelledError:
            await self._farewell.say(socket)
            raise
        finally:
            was_up, self._writer = self._status.up, None
            self._tunnel.link_lost()
            self._note_lost()
            if not self._farewell.under_way:
                writer.cancel()
            [ended] = await asyncio.gather(writer, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended
        if self._successors.found:
            return
        if self._loop.time() - opened_at >= GOOD_S:
            self._link_was_good = was_up
        if not was_up and reason is not None:  # a packet may have been corrupted on the way
            raise GatewayUnreachableError(f"what answered does not speak the tunnel's protocol: {reason}")
        if not was_up:
            raise GatewayUnreachableError("it closed the connection at once")

    def _end_without_writer(self, socket: TunnelSocket) -> None:
        """End the link, which is none without a writer; but a goodbye that is cut off may never arrive."""
        if not self._farewell.under_way:
            socket.abort()

    def _take(self, gateway: str, packet: bytes) -> str | None:
        """Take a packet; return what is wrong with the link, if something is."""
        failed: LinkFailed | None = None
        for event in self._tunnel.receive(packet, self._loop.time()):
            match event:
                case ReplyStarted() | ReplyData():
                    self._take_of_reply(event)
                case LinkFailed():
                    failed = event
                case Welcomed():
                    self._note_welcome(event, gateway)
                case GoneAway():
                    _log.info("action=link gateway=%s drains", gateway)
                    self.draining = True
                    self.attention.set()
                case _:
                    self._write_to_exchange(event)
        changed, self._changed = self._changed, {}
        for exchange in changed:  # what agents wait for comes before all that is to be done for the link
            exchange.tell_change()
        if failed is not None:
            _log.warning("action=link gateway=%s failed: %s", gateway, failed.reason)
            return failed.reason
        self._stats.tunnel_bytes_down += frame_bytes(len(packet), masked=False)
        if self._writer is not None and not self._leaving:
            self._writer.note_received()
        else:
            self._stir()
        return None

    async def _write(self, writer: PacketWriter, socket: TunnelSocket) -> None:
        """Send packets until the link is over, or until the session is, and then say goodbye."""
        with suppress(ConnectionError):
            await writer.run()
            if not socket.closed and self._is_leaving_link():
                await self._farewell.say(socket)

    def _is_leaving_link(self) -> bool:
        return self._has_ended() and self._tunnel.ready

    def _stir(self) -> None:
        """Let whoever waits look again: there may be something to send, or a link to look for."""
        self._wake.set()
        if self._writer is not None:
            self._writer.wake()

    def _count_sent(self, size: int) -> None:
        self._stats.tunnel_bytes_up += frame_bytes(size, masked=True)

    # --- events ------------------------------------------------------------------------------------------------------

    def _take_of_reply(self, event: ReplyStarted | ReplyData) -> None:
        exchange = self._exchanges.get(event.exchange)
        if isinstance(event, ReplyStarted):
            if exchange is not None:
                exchange.head, exchange.prefix = event.head, event.prefix
                self._changed[exchange] = None
            return
        self._link_was_good = True
        if exchange is not None:
            exchange.log.write(event.data)
            self._changed[exchange] = None
            if exchange.orphaned:
                self._go_on_without_agent(exchange)

    def _write_to_exchange(self, event: _ExchangeEvent) -> None:
        exchange = self._exchanges.get(event.exchange)
        if isinstance(event, ReplyEnded | ExchangeReset | OutcomeUnknown):
            self._exchanges.pop(event.exchange, None)
        if isinstance(event, ReplyEnded):
            self._link_was_good = True
        if exchange is None:
            return
        match event:
            case Writable() | BaseMissed() | UploadTaken():
                self._note_upload(exchange, event)
            case ExchangeReset(code="not_forwarded") if not exchange.reopened:
                exchange.reopened = True
                self._rejected.append(exchange)
                self.attention.set()
            case ReplyEnded() | ExchangeReset() | OutcomeUnknown():
                exchange.end(event)
            case _:
                assert_never(event)

    def _note_upload(self, exchange: AgentExchange, event: Writable | BaseMissed | UploadTaken) -> None:
        match event:
            case Writable():
                exchange.writable.set()
            case BaseMissed():
                self._stats.base_misses += 1
                exchange.base_missed = True
                exchange.upload_wanted.set()
                exchange.answered.set()
            case UploadTaken():
                exchange.answered.set()
            case _:
                assert_never(event)

    def _go_on_without_agent(self, exchange: AgentExchange) -> None:
        if exchange.log.replayable:
            self.consume_to(exchange, exchange.log.end)
        else:  # no agent can get it from its beginning any more
            self.cancel(exchange)

    def _note_welcome(self, event: Welcomed, gateway: str) -> None:
        self._patience.stop()
        if not event.new_epoch:
            self._stats.resumes += 1
        self._stats.links += 1
        self.max_body_bytes = event.max_body_bytes
        self.folds_alike = event.folds_alike
        self._addresses.note_welcome(gateway, event.address, new_epoch=event.new_epoch)
        self._status.note_up()
        self._owner.note_up()
        self._end_attempt()
        _log.info("action=link gateway=%s up resumed=%s", gateway, not event.new_epoch)
        self._review_exchanges()

    def _note_lost(self) -> None:
        if self._status.up:
            self._status.note_lost(self._loop.time())
            _log.info("action=link gateway=%s lost", self.gateway)
            self._patience.start()
            self._review_exchanges()
