"""One session with a gateway: its end of the tunnel, and the links that it goes on over, one after the other.

A session looks for its gateway again whenever a link is lost, first at the address the node gave of itself, then at the
others in order, with waits that grow. It says at any time whether waiting for it is worth while. Not here: what an
exchange is (`segue.sidecar.exchange`), and which session is the one for new exchanges (`segue.sidecar.sessions`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, Protocol, TypeAlias

from segue.http.error_replies import FailureCode
from segue.sidecar.backoff import delay_s, refused_delay_s
from segue.sidecar.connector import (
    RefusedError,
    Settings,
    Socket,
    UnreachableError,
    dialed,
    frame_bytes,
    tunnel_url,
)
from segue.sidecar.stats import Stats
from segue.tunnel.client import TunnelClient
from segue.tunnel.events import (
    BaseMissed,
    ClientEvent,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    Welcomed,
    Writable,
)

_log = logging.getLogger("segue.sidecar")

#: A link that held for so long, or brought part of a reply, was good: the next try is at once again.
GOOD_S = 2.0
#: With exchanges under way, so long only the node that has them is looked for.
LOYAL_S = 3.0
#: So long a full socket is waited for before it is asked whether the link is dead.
STUCK_S = 5.0
#: An agent that hangs up when its link has been silent for this long has probably hung up because of that.
QUIET_S = 5.0

ExchangeEvent: TypeAlias = (
    Writable | ReplyStarted | ReplyData | ReplyEnded | ExchangeReset | BaseMissed | OutcomeUnknown
)  # fmt: skip - one closed set

LinkState = Literal["connecting", "up", "away", "refused"]


class Carried(Protocol):
    """What a session tells an exchange."""

    def take(self, event: ExchangeEvent) -> None:
        """Take what the tunnel's end says about it."""

    def look(self) -> None:
        """Look whether waiting is still worth while: the link's state has changed."""


class Verdict(NamedTuple):
    """Why waiting for the link is not worth while."""

    code: FailureCode
    message: str


class Patience(NamedTuple):
    """How long exchanges wait for a link that was there and is being looked for."""

    wait_s: float = 20.0
    """Before what was not forwarded yet is told that there is no gateway."""
    give_up_s: float = 300.0
    """Before what may have been forwarded is told that its outcome is unknown; gateways keep it no longer."""


class Session:
    """One session, from `start` to `close`."""

    def __init__(
        self,
        gateways: Sequence[str],
        settings: Settings,
        context: ssl.SSLContext,
        *,
        patience: Patience,
        stats: Stats,
        was_up: bool,
        on_gone_away: Callable[[Session], None],
        on_over: Callable[[Session], None],
    ) -> None:
        self.end = TunnelClient()
        self.max_body_bytes: int | None = None
        self.gateway = gateways[0]
        """Where the present or last link leads to, as it was given."""
        self._gateways = tuple(gateways)
        self._settings = settings
        self._context = context
        self._patience = patience
        self._stats = stats
        self._on_gone_away = on_gone_away
        self._on_over = on_over
        self._name = secrets.token_hex(16)
        self._loop = asyncio.get_running_loop()
        self._carried: dict[int, Carried] = {}
        self._owner: str | None = None
        self._unusable: set[str] = set()  # addresses of nodes that others than us may use
        self._failed: set[str] = set()  # in this round
        self._refusal: Verdict | None = None
        self._is_refused = False
        self._reason = ""
        self._was_up = was_up
        self._away_since: float | None = self._loop.time()
        self._has_tried_all = False
        self._is_leaving = False
        self._link_was_good = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._alarms: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        """Begin to look for the gateway."""
        self._set_alarms()
        self._task = self._loop.create_task(self._run())

    async def close(self) -> None:
        """Give the link and all exchanges up."""
        self._clear_alarms()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def leave(self) -> None:
        """Open nothing more here, and close when what is under way has ended."""
        self._is_leaving = True
        self._wake.set()

    # --- for exchanges -----------------------------------------------------------------------------------------------

    def carry(self, handle: int, exchange: Carried) -> None:
        """Tell an exchange what happens to the handle that `end.open` gave, from now on."""
        self._carried[handle] = exchange
        self._wake.set()

    def drop(self, handle: int) -> None:
        """Give an exchange up."""
        self.end.cancel(handle)
        self._carried.pop(handle, None)
        self._wake.set()

    def wake(self) -> None:
        """Let the writer look again: there is something to send."""
        self._wake.set()

    @property
    def state(self) -> LinkState:
        """What the link is doing."""
        if self._away_since is None:
            return "up"
        if self._refusal is not None:
            return "refused"
        return "away" if self._was_up else "connecting"

    def is_suspect(self) -> bool:
        """Tell whether the link is away, or silent for so long that agents may lose patience with it."""
        return self._away_since is not None or self.end.is_quiet(self._loop.time(), QUIET_S)

    def verdict(self) -> Verdict | None:
        """Tell why what was not forwarded yet need not wait for the link; None: it should."""
        if self._away_since is None:
            return None
        if self._refusal is not None:
            return self._refusal
        if self._was_up:
            if self._loop.time() < self._away_since + self._patience.wait_s:
                return None
        elif not self._has_tried_all:
            return None
        return Verdict("segue_gateway_unreachable", f"No gateway can be reached: {self._reason or 'it is away'}.")

    def is_given_up(self) -> bool:
        """Tell whether even what may have been forwarded need not wait any more."""
        return self._away_since is not None and self._loop.time() >= self._away_since + self._patience.give_up_s

    # --- links -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while not self._is_done():
            fraction = random.random()  # noqa: S311 - jitter, not a secret
            await self._pause(refused_delay_s(fraction) if self._is_refused else delay_s(failures, fraction))
            self._link_was_good = False
            if not self._is_done():
                await self._try_all()
            failures = 0 if self._link_was_good else failures + 1
        self._on_over(self)

    async def _try_all(self) -> None:
        """Use the first gateway that serves us; if none does, note what that means for what waits."""
        is_loyal, candidates = self._is_loyal(), self._candidates()
        refusals: list[Verdict] = []
        self._failed = set()
        for gateway in candidates:
            try:
                await self._use(gateway)
            except RefusedError as error:
                refusals.append(Verdict(error.code, f"The gateway refused: {error}"))
                self._note_failure(gateway, str(error))
            except UnreachableError as error:
                self._note_failure(gateway, str(error))
            except Exception:  # noqa: BLE001 - the outermost seam: a bug of ours costs a link, not the sidecar
                _log.exception("action=link gateway=%s failed", gateway)
                self._note_failure(gateway, "the sidecar failed; its log says why")
            else:
                return
        if not is_loyal:
            self._has_tried_all = True
            self._refusal = refusals[0] if refusals else None
            self._is_refused = len(refusals) == len(candidates)
            self._tell_all()

    def _is_done(self) -> bool:
        return self._is_leaving and not len(self.end)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next try; what has ended meanwhile ends a session that is leaving."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_done():
                    self._wake.clear()
                    await self._wake.wait()

    def _is_loyal(self) -> bool:
        """Tell whether to look only where our exchanges are: elsewhere their outcome would be unknown."""
        is_recent = self._away_since is not None and self._loop.time() < self._away_since + LOYAL_S
        return self.max_body_bytes is not None and is_recent and len(self.end) > 0

    def _candidates(self) -> list[str]:
        """Return where to look: the node that has our exchanges, where we last were, and elsewhere."""
        first = [self.gateway] if self._owner is None else [self._owner, self.gateway]
        return list(dict.fromkeys(first if self._is_loyal() else (*first, *self._gateways)))

    def _note_failure(self, gateway: str, reason: str) -> None:
        self._failed.add(gateway)
        if reason != self._reason:
            _log.warning("action=link gateway=%s failed: %s", gateway, reason)
        self._reason = reason

    async def _use(self, gateway: str) -> None:
        """Connect, and carry packets until the link is lost."""
        async with dialed(tunnel_url(gateway), self._name, self._settings, self._context) as socket:
            self.end.link_opened(self._loop.time())
            opened_at = self._loop.time()
            writer = self._loop.create_task(self._write(socket))
            writer.add_done_callback(lambda _: socket.abort())  # without a writer there is no link
            try:
                reason = await self._read(socket, gateway)
            finally:
                was_up = self._away_since is None
                self.end.link_lost()
                self._note_lost()
                writer.cancel()
                [ended] = await asyncio.gather(writer, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended
            if self._loop.time() - opened_at >= GOOD_S:
                self._link_was_good = was_up
            if not was_up and reason is not None:
                raise RefusedError("segue_gateway_refused", f"{reason}.")
            if not was_up:
                raise UnreachableError("it closed the connection at once")

    async def _read(self, socket: Socket, gateway: str) -> str | None:
        """Take packets until the link is over; returns what is wrong with it, if that is known."""
        while True:
            packet = await socket.receive()
            if packet is None:
                return None
            self._stats.tunnel_bytes_down += frame_bytes(len(packet), is_masked=False)
            events = self.end.receive(packet, self._loop.time())
            self._wake.set()
            for event in events:
                if isinstance(event, LinkFailed):
                    _log.warning("action=link gateway=%s failed: %s", gateway, event.reason)
                    await socket.close(event.reason)
                    return event.reason
                self._apply(event, gateway)

    async def _write(self, socket: Socket) -> None:
        """Send what there is to send, and come back when there is more or when it is time."""
        with suppress(ConnectionError):
            while not socket.is_closed:
                self._wake.clear()
                now = self._loop.time()
                if self.end.handle_timeout(now):
                    socket.abort()  # nobody is there to close with
                    return
                packet = self.end.next_packet(now)
                if packet is not None:
                    self._stats.tunnel_bytes_up += frame_bytes(len(packet), is_masked=True)
                    with suppress(TimeoutError):  # a socket that takes nothing must not keep us from noticing it
                        async with asyncio.timeout(STUCK_S):
                            await socket.send(packet)
                    continue
                if self._is_done() and self.end.ready:
                    socket.abort()  # there is nothing to say
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self.end.next_deadline()):
                        await self._wake.wait()

    # --- events ------------------------------------------------------------------------------------------------------

    def _apply(self, event: ClientEvent, gateway: str) -> None:
        match event:
            case LinkFailed():
                raise AssertionError("the reader takes it")
            case Welcomed():
                self._note_welcome(event, gateway)
            case GoneAway():
                _log.info("action=link gateway=%s drains", gateway)
                self._on_gone_away(self)
            case _:
                self._tell(event)

    def _tell(self, event: ExchangeEvent) -> None:
        exchange = self._carried.get(event.exchange)
        if isinstance(event, ReplyEnded | ExchangeReset | OutcomeUnknown):
            self._carried.pop(event.exchange, None)
        if isinstance(event, ReplyData | ReplyEnded):
            self._link_was_good = True
        if exchange is not None:
            exchange.take(event)

    def _note_welcome(self, event: Welcomed, gateway: str) -> None:
        self._clear_alarms()
        if not event.new_epoch:
            self._stats.resumes += 1
        self._stats.links += 1
        self.gateway = gateway
        self.max_body_bytes = event.max_body_bytes
        self._owner = self._owner_of(event, gateway)
        self._away_since = self._refusal = None
        self._is_refused = False
        self._was_up, self._reason = True, ""
        _log.info("action=link gateway=%s up resumed=%s", gateway, not event.new_epoch)
        self._tell_all()

    def _owner_of(self, event: Welcomed, gateway: str) -> str | None:
        """Return the address that the node gives of itself, if it is one for us to connect to."""
        owner = _usable(event.address, gateway)
        if owner is not None and owner in self._failed and not event.new_epoch:
            self._unusable.add(owner)  # it is this very node that was not found there
        return None if owner in self._unusable else owner

    def _note_lost(self) -> None:
        if self._away_since is None:
            self._away_since = self._loop.time()
            _log.info("action=link gateway=%s lost", self.gateway)
            self._set_alarms()
            self._tell_all()

    def _set_alarms(self) -> None:
        """Come back when waiting stops being worth while."""
        self._clear_alarms()
        self._alarms = [
            self._loop.call_later(seconds + 0.001, self._tell_all)
            for seconds in (self._patience.wait_s, self._patience.give_up_s)
        ]

    def _clear_alarms(self) -> None:
        for alarm in self._alarms:
            alarm.cancel()
        self._alarms = []

    def _tell_all(self) -> None:
        for exchange in tuple(self._carried.values()):
            exchange.look()


def _usable(address: bytes, gateway: str) -> str | None:
    """Return the address that a node gave of itself, if it is one, and as safe for our key as the gateway's."""
    try:
        text = address.decode("ascii")
        url = tunnel_url(text)
    except (UnicodeDecodeError, ValueError):
        return None
    is_safe = url.startswith("wss:") or not tunnel_url(gateway).startswith("wss:")
    return text if is_safe else None
