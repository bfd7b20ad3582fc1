"""Bringing the reply of an exchange to its agent, byte for byte as it comes, and telling it what went wrong.

The reply is folded on the way. Not here: requests (`exchanges`), and WebSockets once they are open (`sockets`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from segue.http.error_replies import FailureCode
from segue.http.heads import ReplyHead, values
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.exchange import Exchange, Over
from segue.sidecar.request import Request
from segue.sidecar.session import Verdict
from segue.sidecar.stats import Outcome, Stats, reply_bytes
from segue.tunnel.events import ExchangeReset, OutcomeUnknown, ReplyEnded
from segue.tunnel.folds.fold import Fold
from segue.tunnel.stream_compression import REPLY_WINDOW_LOG, SOCKET_WINDOW_LOG, StreamDecoder, StreamError

#: How much of a reply is expanded at once.
PIECE_BYTES = 64 * 1024

_UNKNOWN = (
    "The gateway that had this request is gone, and whether the request had reached the provider is not known. "
    "It was not sent again; send it again if it may be done twice."
)


@contextmanager
def watching(request: Request, changed: asyncio.Event) -> Iterator[None]:
    """Set the event also when the agent hangs up."""
    watch = asyncio.get_running_loop().create_task(request.gone.wait())
    watch.add_done_callback(lambda _: changed.set())
    try:
        yield
    finally:
        watch.cancel()


async def wait_for_change(request: Request, exchange: Exchange) -> None:
    """Wait until there is something new to see; raises `AgentGone` when the agent has hung up."""
    exchange.changed.clear()
    if request.gone.is_set():
        raise AgentGone
    await exchange.changed.wait()
    if request.gone.is_set():
        raise AgentGone


async def wait_for_head(request: Request, exchange: Exchange) -> ReplyHead | Over:
    """Return the head of the reply, or how the exchange ended without one."""
    with watching(request, exchange.changed):
        while exchange.head is None and exchange.over is None:
            await wait_for_change(request, exchange)
    if exchange.head is not None:
        return exchange.head
    assert exchange.over is not None, "one of the two was waited for"
    return exchange.over


class Delivery:
    """One reply on its way to one agent, from its first byte."""

    def __init__(self, request: Request, exchange: Exchange, stats: Stats) -> None:
        self._request = request
        self._exchange = exchange
        self._stats = stats
        self._decoder = StreamDecoder(SOCKET_WINDOW_LOG if request.kind == "websocket" else REPLY_WINDOW_LOG)
        self._fold: Fold | None = None
        self._position = 0
        self.sent_bytes = 0
        """How much of the body the agent was sent."""

    @property
    def folded(self) -> bytes:
        """The fold of what the agent was sent."""
        return b"" if self._fold is None else self._fold.value

    async def bring(self, head: ReplyHead) -> Outcome:
        """Send head and body until the reply ends, in good order or not."""
        request, exchange = self._request, self._exchange
        self._fold = Fold(b"".join(values(head.lines, b"content-type")[:1]))
        with watching(request, exchange.changed):
            self._stats.agent_bytes_out += reply_bytes(head)
            await request.start(head)
            while True:
                data = exchange.log.read(self._position)
                if data:
                    if not await self._pass_on(data):
                        request.abort()
                        return "cut"
                elif exchange.over is None:
                    await wait_for_change(request, exchange)
                elif isinstance(exchange.over, ReplyEnded) and (self._decoder.eof or not self._position):
                    await request.end()
                    return "completed"
                else:
                    request.abort()
                    return "cut"

    async def _pass_on(self, data: bytes) -> bool:
        """Expand bytes of the reply, a piece at a time, as the agent takes them; False if they are no stream."""
        self._decoder.feed(data)
        while piece := self._decoder.read(PIECE_BYTES):
            if isinstance(piece, StreamError):
                return False
            await self._request.send(piece)
            self._stats.agent_bytes_out += len(piece)
            self.sent_bytes += len(piece)
            assert self._fold is not None, "it begins with the head"
            self._fold.feed(piece)
        self._position += len(data)
        self._exchange.consume_to(self._position)
        self._exchange.log.release(self._position)
        return True


def explain(over: Over) -> tuple[FailureCode, str]:
    """Return what an agent is told of an exchange that ended without a reply."""
    match over:
        case Verdict():
            return over.code, over.message
        case OutcomeUnknown():
            return "segue_outcome_unknown", _UNKNOWN
        case ExchangeReset(code="not_forwarded"):
            return "segue_overloaded", f"The gateway did not take the request: {_text(over.message)}."
        case ExchangeReset(code="refused"):
            return "segue_gateway_refused", f"The gateway refused the request: {_text(over.message)}."
        case ExchangeReset():
            return "segue_outcome_unknown", f"The gateway gave the request up: {_text(over.message)}."
        case ReplyEnded():
            return "segue_gateway_refused", "The gateway ended the exchange without a reply."
        case _:
            assert_never(over)


def _text(message: bytes) -> str:
    return message.decode("utf-8", "replace") or "it does not say why"
