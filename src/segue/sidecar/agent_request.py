"""One request of an agent, and the methods that answer it.

The framing of a reply is decided here; nothing else is added to its header lines. A reply that does not end in good
order is cut in such a way that no agent can take it for a complete one. Not here: reading requests
(`segue.sidecar.request_reader`), and what the answer is (`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final, Literal

from wsproto.utilities import generate_accept_token

from segue.http.error_replies import FailureCode, failure_reply
from segue.http.head_writing import encode_reply_head, encode_usual_reply
from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead, end_to_end, has_content, values
from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.sidecar.agent_transport import AgentGone, AgentTransport
from segue.sidecar.request_reader import ParsedRequest, RequestSource
from segue.sidecar.websocket_frames import MessageFrames

_LENGTH = re.compile(rb"[0-9]{1,18}")
_KEPT = frozenset({b"content-length"})
_CHUNKED = Line(b"Transfer-Encoding", b"chunked")
_CLOSE = Line(b"Connection", b"close")
_LAST_CHUNK = b"0\r\n\r\n"
_NO_CONTENT = 204
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200

#: How far an answer has come. `cut`: ended before its end.
Stage = Literal["waiting", "started", "ended", "accepted", "cut"]


class AgentRequest:
    """A request with its body read whole.

    To answer HTTP, call `start`, then `send` any number of times, then `end`. To answer a WebSocket, call `accept`,
    then `receive` and `send` until `close`; or refuse it like any HTTP request. `abort` cuts either. The event `gone`
    is set as soon as the agent hangs up, with all events in `woken`, and from then on every coroutine raises
    `AgentGone`. `ahead`: what came together with an upgrade.
    """

    def __init__(
        self, received: ParsedRequest, transport: AgentTransport, *, max_message: int, ahead: bytes = b""
    ) -> None:
        self.kind: Final[ExchangeKind] = received.kind
        self.head: Final[RequestHead] = received.head
        self.body: Final[bytes | None] = received.body
        self.source: Final[RequestSource] = received.source
        self.gone: Final[asyncio.Event] = transport.gone
        self.woken: Final[set[asyncio.Event]] = transport.woken
        self.stage: Stage = "waiting"
        self._key = received.websocket_key
        self._version = received.version
        self._persistent = received.persistent
        self._transport = transport
        self.write_now: Final = transport.write_now
        self._max_message = max_message
        self._sends_body = True
        self._delimited = True
        self._chunked = False
        self._left: int | None = None  # of the body, by its Content-Length
        self._frames: MessageFrames | None = None
        self._ahead = ahead
        self._arrived: deque[WebSocketMessage | WebSocketClose] = deque()

    @property
    def may_be_followed(self) -> bool:
        """The answer is complete, and another request may follow on the connection."""
        return self.stage == "ended" and self._persistent and self._frames is None

    # ------------------------------------------------------------------------------------------------------ any reply

    @property
    def has_room(self) -> bool:
        """`write_now` may be called, to write what `begin` and `framed` have returned."""
        return self._transport.has_room

    async def write(self, data: bytes) -> None:
        """Write what `begin` and `framed` have returned, and return when the socket has room."""
        await self._transport.write(data)

    async def start(self, head: ReplyHead) -> None:
        """Send the head of the reply. A Content-Length among its lines frames the body; else chunks or the end do."""
        await self._transport.write(self.begin(head))

    def begin(self, head: ReplyHead) -> bytes:
        """Return what `start` sends; it has to be sent next."""
        if self.stage != "waiting":
            self._expect("waiting")
        if self._version == b"1.1" and self._persistent and self.head.method != b"HEAD":
            usual = encode_usual_reply(head, _CHUNKED)
            if usual is not None:
                self.stage, self._chunked = "started", True
                return usual
        if head.status < _FIRST_FINAL_STATUS:
            raise ValueError(f"{head.status} is not the status of a reply")
        length = _length(head)
        lines = end_to_end(head.lines, keep=frozenset() if length is None else _KEPT)
        is_old = self._version == b"1.0"
        self._sends_body = has_content(self.head.method, head.status)
        self._left = length if self._sends_body else None
        self._delimited = not is_old or not self._sends_body or length is not None
        self._chunked = self._sends_body and not is_old and length is None
        if not is_old and length is None and has_content(b"GET", head.status):
            lines = (*lines, _CHUNKED)
        if not self._persistent:
            lines = (*lines, _CLOSE)
        data = _encoded(ReplyHead(head.status, head.reason, lines))
        self.stage = "started"
        return data

    async def end(self) -> None:
        """Complete the reply."""
        self._expect("started")
        if self._left:
            raise RuntimeError("the body is shorter than its Content-Length")
        self.stage = "ended"
        await self._transport.write(_LAST_CHUNK if self._chunked else b"")

    async def fail(self, code: FailureCode, message: str, *, repeatable: bool | None = None) -> int | None:
        """Answer with an error of the sidecar and return its status; if an answer has begun, cut it and return None.

        `repeatable`: whether the agent may send the request again, if the caller knows better than the table of errors.
        """
        if self.stage != "waiting":
            self.abort()
            return None
        method, target = self.head.method, self.head.target
        head, body = failure_reply(code, message, method=method, target=target, repeatable=repeatable)
        await self.start(head)
        await self.send(body)
        await self.end()
        return head.status

    def abort(self) -> None:
        """Cut the reply, so that no agent can take it for a complete one. Nothing may follow; cutting twice is fine."""
        if self.stage in {"ended", "cut"}:
            return
        stage, self.stage = self.stage, "cut"
        if stage == "started" and not self._delimited:
            self._transport.reset()  # the end of the connection would end the body: only a reset shows that it is cut
        else:
            self._transport.cut()

    # ------------------------------------------------------------------------------------------------------ both kinds

    async def send(self, data: bytes | WebSocketMessage) -> None:
        """Send bytes of a reply's body, or a message of an accepted WebSocket, in one write.

        It returns when the socket has room. The body of a reply that has none, such as to HEAD, is dropped.
        """
        if isinstance(data, WebSocketMessage):
            await self._transport.write(self._accepted().encode(data))
            return
        framed = self.framed(data)
        if framed:
            await self._transport.write(framed)

    def framed(self, data: bytes) -> bytes:
        """Return what `send` sends of a reply's body; it has to be sent next."""
        if self.stage != "started":
            self._expect("started")
        if not self._sends_body or not data:
            return b""
        if self._chunked:  # RFC 9112, 7.1
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            if len(data) > self._left:
                raise RuntimeError("the body is longer than its Content-Length")
            self._left -= len(data)
        return data

    # ----------------------------------------------------------------------------------------------------- a WebSocket

    async def accept(self, head: ReplyHead) -> None:
        """Switch to WebSocket: the lines of the upstream's 101, with the handshake of this hop."""
        self._expect("waiting")
        if self._key is None:
            raise RuntimeError("only a WebSocket upgrade can be accepted")
        lines = (
            Line(b"Upgrade", b"websocket"),
            Line(b"Connection", b"Upgrade"),
            Line(b"Sec-WebSocket-Accept", generate_accept_token(self._key)),
            *end_to_end(head.lines, "websocket"),
        )
        data = _encoded(ReplyHead(_SWITCHING_PROTOCOLS, b"Switching Protocols", lines))
        self.stage = "accepted"
        self._frames = MessageFrames(max_message=self._max_message)
        await self._transport.write(data)

    async def receive(self) -> WebSocketMessage | WebSocketClose:
        """Return the agent's next message, or its close frame, which `close` then answers.

        A socket that was cut or broke the rules raises `AgentGone`. Pings are answered while this waits.
        """
        self._accepted()
        while not self._arrived:
            if self.stage != "accepted":
                raise AgentGone
            await self._take()
        return self._arrived.popleft()

    async def close(self, code: int, reason: bytes = b"") -> None:
        """Send a close frame (1005: one without a code), and end the WebSocket; a second call does nothing."""
        if self.stage == "ended":
            return
        frame = self._accepted().encode_close(WebSocketClose(code, reason))
        self.stage = "ended"
        await self._transport.write(frame)

    async def settle(self) -> None:
        """Wait for the agent's close frame after ours. The listener calls this when the handler has returned."""
        while self._frames is not None and self.stage != "cut" and not self._frames.closed:
            await self._take()

    async def _take(self) -> None:
        ahead, self._ahead = self._ahead, b""
        arrived = self._accepted().receive(ahead or await self._transport.read())
        self._arrived.extend(arrived.messages)
        if arrived.answer:
            await self._transport.write(arrived.answer)
        if arrived.broken:
            self.stage = "ended"  # what arrived before that is still received

    def _accepted(self) -> MessageFrames:
        if self._frames is None:
            raise RuntimeError("the WebSocket is not open")
        if self.stage == "cut":  # perhaps just now, by the task of the other direction
            raise AgentGone
        return self._frames

    def _expect(self, stage: Stage) -> None:
        if self.stage != stage:
            raise RuntimeError(f"the answer is {self.stage}, not {stage}")


def _length(head: ReplyHead) -> int | None:
    """Return the Content-Length of a reply, if there is one, and it may frame the body."""
    lengths = values(head.lines, b"content-length")
    if len(lengths) != 1 or head.status == _NO_CONTENT or not _LENGTH.fullmatch(lengths[0]):
        return None
    return int(lengths[0])


def _encoded(head: ReplyHead) -> bytes:
    encoded = encode_reply_head(head)
    if encoded is None:
        raise ValueError("the reply has a line that cannot be sent")
    return encoded
