"""The writer of one reply: it reads the reply from its exchange and writes it to the agent, byte for byte as it comes.

It writes what is new in the call that got it (`pass_on`), as long as the agent's socket takes it. A task does what is
left: it waits for room, ends the reply, and folds it on the way. What was written lets the gateway send more. Not here:
requests (`segue.sidecar.request_handler`), and WebSockets after their upgrade (`segue.sidecar.websocket_relay`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from segue.http.error_replies import FailureCode
from segue.http.heads import ReplyHead, values
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.arriving_reply import Ending
from segue.sidecar.link_status import LinkUnavailable
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Outcome, Stats, reply_bytes
from segue.tunnel.events import ExchangeReset, OutcomeUnknown, ReplyEnded
from segue.tunnel.folds.deferred import DeferredFold
from segue.tunnel.stream_compression import (
    REPLY_BASE_BYTES,
    REPLY_WINDOW_LOG,
    SOCKET_WINDOW_LOG,
    StreamDecoder,
    StreamError,
)

#: How much of a reply is expanded at once.
PIECE_BYTES = 64 * 1024

OUTCOME_UNKNOWN = (
    "The gateway that had this request is gone, and whether the request had reached the provider is not known. "
    "It was not sent again; send it again if it may be done twice."
)


@contextmanager
def _woken_when_gone(request: AgentRequest, event: asyncio.Event) -> Iterator[None]:
    """Set the event also when the agent hangs up."""
    request.woken.add(event)
    try:
        yield
    finally:
        request.woken.discard(event)


async def _wait_for_change(request: AgentRequest, exchange: AgentExchange) -> None:
    """Wait until the exchange has changed; raise `AgentGone` when the agent has hung up."""
    exchange.changed.clear()
    if request.gone.is_set():
        raise AgentGone
    await exchange.changed.wait()
    if request.gone.is_set():
        raise AgentGone


async def wait_for_head(request: AgentRequest, exchange: AgentExchange) -> ReplyHead | Ending:
    """Return the head of the reply, or how the exchange ended without one."""
    with _woken_when_gone(request, exchange.changed):
        while exchange.head is None and exchange.ending is None:
            await _wait_for_change(request, exchange)
    if exchange.head is not None:
        return exchange.head
    assert exchange.ending is not None, "the loop above waits for one of the two"
    return exchange.ending


class ResponseWriter:
    """Writes one reply to one agent, from its first byte."""

    def __init__(self, request: AgentRequest, exchange: AgentExchange, stats: Stats) -> None:
        self._request = request
        self._exchange = exchange
        self._stats = stats
        self._window_log = SOCKET_WINDOW_LOG if request.kind == "websocket" else REPLY_WINDOW_LOG
        self._prefix = b""
        self._decoder: StreamDecoder | None = None
        self._beginning = bytearray()
        self._fold = DeferredFold()
        self._begun = False
        self._position = 0
        self._busy = False
        """The task writes, and may wait for room."""
        self._broken = False
        """It cannot be expanded."""
        self._fault: Exception | None = None
        self._counted_bytes = 0
        self.sent_bytes = 0
        """How much of the body the agent was sent."""

    @property
    def folded(self) -> bytes:
        """The fold of what the agent was sent."""
        return self._fold.value

    def prepare(self, prefix: bytes) -> None:
        """Make the decoder of a reply that may build on this, while the provider thinks."""
        if self._decoder is None:
            self._prefix = prefix
            self._decoder = StreamDecoder(self._window_log, prefix=prefix)

    def pass_on(self) -> bool:
        """Write what has come, in the call that got it; False: the task has to go on."""
        head, fold = self._exchange.head, self._fold
        if head is None or self._busy or self._fault or fold.due or not self._request.has_room:
            return False
        begins = not self._begun
        try:
            data = self._begin(head) if begins else b""
            piece = self._expand()
            if piece:
                data += self._request.framed(piece)
            if data:
                self._request.write_now(data)
        except Exception as fault:  # noqa: BLE001 - the task raises it: it ends this request, and not the link
            self._fault = fault
            return False
        if begins:
            self._count(reply_bytes(head))
        self._note(piece)
        if self._more_to_expand():
            return False
        self._note_read()
        return not (begins or self._broken or self._fold.due)

    async def write(self, head: ReplyHead) -> Outcome:
        """Send head and body until the reply ends, in good order or not."""
        request, exchange = self._request, self._exchange
        self._fold.content_type = b"".join(values(head.lines, b"content-type")[:1])
        with _woken_when_gone(request, exchange.changed):
            if not self._begun:
                await self._write(self._begin(head))
                self._count(reply_bytes(head))
            while True:
                if self._fault is not None:
                    raise self._fault
                if self._more_to_expand() or exchange.log.end > self._position:
                    await self._write_data()
                if self._broken:
                    request.abort()
                    return "cut"
                if self._fold.due:
                    await _let_the_loop_write()
                    self._fold.fold()
                elif exchange.log.end > self._position:
                    pass
                elif exchange.ending is None:
                    await _wait_for_change(request, exchange)
                elif isinstance(exchange.ending, ReplyEnded) and (self._decoded_all or not self._position):
                    exchange.session.keep_reply(exchange, bytes(self._beginning))
                    await request.end()
                    await _let_the_loop_write()
                    return "completed"
                else:
                    request.abort()
                    return "cut"

    def take_back(self) -> None:
        """Count nothing of this reply: another request will get it, from its beginning."""
        self._stats.agent_bytes_out -= self._counted_bytes
        self._counted_bytes = 0

    def _count(self, size: int) -> None:
        self._stats.agent_bytes_out += size
        self._counted_bytes += size

    def _begin(self, head: ReplyHead) -> bytes:
        """Begin the reply; return its head as the agent gets it."""
        data = self._request.begin(head)
        self._begun = True
        if self._decoder is None or self._exchange.prefix != self._prefix:
            self._decoder = StreamDecoder(self._window_log, prefix=self._exchange.prefix)
        return data

    @property
    def _decoded_all(self) -> bool:
        return self._decoder is not None and self._decoder.eof

    def _expand(self) -> bytes:
        """Return the next piece of what has come."""
        assert self._decoder is not None, "the reply has begun"
        data = self._exchange.log.read(self._position)
        self._position += len(data)
        piece = self._decoder.read(PIECE_BYTES, data)
        if isinstance(piece, StreamError):
            self._broken = True
            return b""
        return piece

    def _more_to_expand(self) -> bool:
        return not self._broken and self._decoder is not None and self._decoder.has_more

    async def _write_data(self) -> None:
        """Expand bytes of the reply and write them, as fast as the agent reads."""
        while True:
            piece = self._expand()
            if piece:
                await self._write(self._request.framed(piece))
                self._note(piece)
            if not self._more_to_expand():
                break
        self._note_read()

    async def _write(self, data: bytes) -> None:
        self._busy = True
        try:
            await self._request.write(data)
        finally:
            self._busy = False

    def _note(self, piece: bytes) -> None:
        """Count what was written, and keep what later requests and replies may build on."""
        self._count(len(piece))
        self.sent_bytes += len(piece)
        if len(self._beginning) < REPLY_BASE_BYTES:
            self._beginning += piece[: REPLY_BASE_BYTES - len(self._beginning)]
        if piece:
            self._fold.feed(piece)

    def _note_read(self) -> None:
        """Let the gateway send more."""
        self._exchange.session.consume_to(self._exchange, self._position)
        self._exchange.log.release(self._position)


async def _let_the_loop_write() -> None:
    """Return when the event loop has written what was sent: it does so between its rounds."""
    for _ in range(2):
        await asyncio.sleep(0)


def failure_of(ending: Ending) -> tuple[FailureCode, str]:
    """Return the error for an agent whose exchange ended without a reply."""
    match ending:
        case LinkUnavailable():
            return ending.code, ending.message
        case OutcomeUnknown():
            return "segue_outcome_unknown", OUTCOME_UNKNOWN
        case ExchangeReset(code="not_forwarded"):
            return "segue_overloaded", f"The gateway did not take the request: {_text(ending.message)}."
        case ExchangeReset(code="refused"):
            return "segue_gateway_refused", f"The gateway refused the request: {_text(ending.message)}."
        case ExchangeReset():
            return "segue_outcome_unknown", f"The gateway gave the request up: {_text(ending.message)}."
        case ReplyEnded():
            return "segue_gateway_refused", "The gateway ended the exchange without a reply."
        case _:
            assert_never(ending)


def is_repeatable(ending: Ending) -> bool:
    """Tell whether an exchange ended so that no provider can have carried it out (docs/spec/tunnel.md, RESET)."""
    return isinstance(ending, LinkUnavailable) or (isinstance(ending, ExchangeReset) and ending.code == "not_forwarded")


def _text(message: bytes) -> str:
    return message.decode("utf-8", "replace") or "it does not say why"
