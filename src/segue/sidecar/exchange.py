"""One exchange as it goes through the tunnel: what has come back of it, whoever waits for that, and how it ended.

It outlives links, and for a while its agent. What was provably not forwarded is opened once more when its session could
not take it. Not here: agents (`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from segue.http.heads import ReplyHead
from segue.sidecar.reply_log import ReplyLog
from segue.sidecar.session import ExchangeEvent, Session, Verdict
from segue.sidecar.sessions import Tunnel
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.documents import Base
from segue.tunnel.events import BaseMissed, ExchangeReset, OutcomeUnknown, ReplyData, ReplyEnded, ReplyStarted, Writable

#: How an exchange ended: in good order, or why not. A verdict: it was given up before it could be forwarded.
Over: TypeAlias = ReplyEnded | ExchangeReset | OutcomeUnknown | Verdict


class Exchange:
    """One exchange, open from the beginning. `changed` is set whenever there is something new to see here."""

    def __init__(
        self,
        tunnel: Tunnel,
        request: TunnelRequest,
        *,
        keep_bytes: int = 0,
        base: Base | None = None,
        on_missed: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.request = request
        self.base = base
        """What its document is a delta against."""
        self.was_missed = False
        self.head: ReplyHead | None = None
        self.log = ReplyLog(keep_bytes)
        self.over: Over | None = None
        self.is_parked = False
        self.changed = asyncio.Event()
        self.writable = asyncio.Event()
        self._tunnel = tunnel
        self._on_missed = on_missed
        self._consumed = 0
        self._was_reopened = False
        self._session, self._handle = self._open()
        self.look()

    def _open(self) -> tuple[Session, int]:
        session = self._tunnel.session
        handle = session.end.open(self.request)
        session.carry(handle, self)
        return session, handle

    @property
    def _end(self) -> TunnelClient:
        return self._session.end

    # --- what the session tells --------------------------------------------------------------------------------------

    def take(self, event: ExchangeEvent) -> None:
        """Take what the tunnel's end says."""
        match event:
            case Writable():
                self.writable.set()
                return
            case ReplyStarted(head=head):
                self.head = head
            case ReplyData(data=data):
                self._add(data)
            case BaseMissed():
                self.was_missed = True
                if self._on_missed is not None:
                    self._on_missed(self)
                return
            case ExchangeReset(code="not_forwarded") if not self._was_reopened:
                self._was_reopened = True
                self._session, self._handle = self._open()
                self.look()
                return
            case ReplyEnded() | ExchangeReset() | OutcomeUnknown():
                self._finish(event)
        self.changed.set()

    def look(self) -> None:
        """Give up what need not wait for the link any more."""
        if self.over is not None:
            return
        if self.head is not None or self._end.is_complete(self._handle):
            over: Over | None = OutcomeUnknown(self._handle) if self._session.is_given_up() else None
        else:
            over = self._session.verdict()
        if over is not None:
            self._session.drop(self._handle)
            self._finish(over)
            self.changed.set()

    def _finish(self, over: Over) -> None:
        self.over = over
        self.writable.set()

    def _add(self, data: bytes) -> None:
        self.log.write(data)
        if self.is_parked:
            if not self.log.is_whole:
                self.cancel()  # nobody can get it from its beginning any more
                return
            self.consume_to(self.log.end)

    # --- for whoever brings it to an agent ---------------------------------------------------------------------------

    def upload_again(self, document: bytes) -> None:
        """Answer a missed base with a document that needs none."""
        self.request = self.request._replace(document=document)
        self._end.upload_again(self._handle, document)
        self._session.wake()

    def consume_to(self, offset: int) -> None:
        """Say that the reply has gone on up to this offset, so that more may come."""
        if offset > self._consumed:
            self._end.consume(self._handle, offset - self._consumed)
            self._consumed = offset
            self._session.wake()

    def send(self, data: bytes) -> None:
        """Send bytes of a WebSocket's messages."""
        self._end.send(self._handle, data)
        self._session.wake()

    def finish(self) -> None:
        """Say that no more messages follow."""
        self._end.finish(self._handle)
        self._session.wake()

    async def wait_for_room(self) -> None:
        """Wait until more may be sent, or the exchange is over."""
        while self.over is None and self._end.room(self._handle) <= 0:
            self.writable.clear()
            await self.writable.wait()

    @property
    def epoch(self) -> bytes:
        """Of the node that has it."""
        return self._end.epoch

    def is_suspect(self) -> bool:
        """Tell whether an agent that hangs up now may have done so because of the link."""
        return self._session.is_suspect()

    def park(self) -> None:
        """Go on without an agent."""
        self.is_parked = True
        self.consume_to(self.log.end)

    def cancel(self) -> None:
        """Give it up; the gateway closes what it opened for it."""
        if self.over is None:
            self._session.drop(self._handle)
            self._finish(ExchangeReset(self._handle, "cancelled", b"nobody waits for it"))
            self.changed.set()
