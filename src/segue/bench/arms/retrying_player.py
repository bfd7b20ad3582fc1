"""Plays a session as its agent would on a bad network: it waits, retries and gives up by that agent's own rules.

    player = RetryingPlayer(session, rules, host, port, context=context)
    async with player:
        fate = await player.turn(0)
        fate.given_up       None, or why the agent stopped

Every reply that counts is the session's own, byte for byte up to where the agent has enough of it. The waits are drawn
from a seed. Not here: the rules (`retry_rules`), and a player that only measures (`player`).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from types import TracebackType
from typing import Self

import h11
import msgspec

from segue.bench.arms.baselines import request_head
from segue.bench.arms.player import WrongReplyError
from segue.bench.workloads.reply_progress import ReplyProgress
from segue.bench.workloads.retry_rules import FailedRequests, Failure, Progress, RetryRules, StopTrying
from segue.http.heads import Line
from segue.testing.recorded_session import RecordedSession, RecordedTurn

_READ_BYTES = 64 * 1024
_OK = 200
_TRIED_AGAIN = frozenset({408, 429})
_SERVER_ERRORS = 500


class FailedTry(msgspec.Struct, frozen=True):
    """A request that failed, when (by the event loop's clock), and the wait before the next; None: there is none."""

    at: float
    failure: Failure
    progress: Progress
    wait_s: float | None


class TurnFate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a turn. Times are those of the event loop's clock."""

    begun_at: float
    first_at: float | None
    """When the first byte of the reply came that counted."""
    ended_at: float
    requests: int
    """How often the request was sent, or begun to be."""
    failed: tuple[FailedTry, ...]
    given_up: str | None


class _FailedAttemptError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure: Failure = failure


class RetryingPlayer:
    """One agent with its connection. `context`: how it speaks TLS; None: it does not."""

    def __init__(
        self,
        session: RecordedSession,
        rules: RetryRules,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        seed: int = 0,
    ) -> None:
        assert session.transport == "http", "the rules are those of HTTP"
        assert session.streamed, "as above"
        self._session = session
        self._rules = rules
        self._address = (host, port)
        self._context = context
        self._random = random.Random(f"retries:{seed}")
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    async def turn(self, number: int) -> TurnFate:
        """Play one turn to its end, or until the agent gives up."""
        loop, turn = asyncio.get_running_loop(), self._session.turns[number]
        begun_at, state, failed = loop.time(), FailedRequests(self._rules), list[FailedTry]()
        requests = 0
        while True:
            attempt = _Attempt(turn, self._session)
            try:
                await self._attempt(attempt)
                given_up = None
            except _FailedAttemptError as error:
                self._drop()
                next_step = state.note(error.failure, attempt.reply.progress, self._random.random())
                given_up = next_step.reason if isinstance(next_step, StopTrying) else None
                wait_s = None if isinstance(next_step, StopTrying) else next_step.wait_s
                failed.append(FailedTry(loop.time(), error.failure, attempt.reply.progress, wait_s))
            requests += attempt.sent
            if attempt.reply.finished or given_up is not None:
                break
            await asyncio.sleep(failed[-1].wait_s or 0.0)
        return TurnFate(
            begun_at=begun_at,
            first_at=attempt.first_at,
            ended_at=loop.time(),
            requests=requests,
            failed=tuple(failed),
            given_up=given_up,
        )

    async def _attempt(self, attempt: _Attempt) -> None:
        """Send the request once and read the reply. When the answer is whole, a lost connection is no failure."""
        try:
            await self._exchange(attempt)
        except _FailedAttemptError:
            if not attempt.reply.finished:
                raise
            self._drop()
        if not self._rules.keeps_connection or not attempt.keeps_connection:
            self._drop()

    async def _exchange(self, attempt: _Attempt) -> None:
        try:
            async with asyncio.timeout(self._rules.timeout_s):
                reader, writer = await self._connected()
                attempt.sent = 1
                host = f"{self._address[0]}:{self._address[1]}".encode()
                writer.write(attempt.request(host))
                await attempt.read_head(reader)
        except TimeoutError:
            raise _FailedAttemptError("timed out") from None
        try:
            while not attempt.ended:
                async with asyncio.timeout(self._rules.idle_s):
                    await attempt.read_on(reader)
        except TimeoutError:
            raise _FailedAttemptError("stalled") from None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the connection, a new one if there is none or the peer has closed it."""
        if self._connection is not None and (self._connection[0].at_eof() or self._connection[1].is_closing()):
            self._drop()
        if self._connection is None:
            patience_s = None if self._context is None else self._rules.timeout_s
            try:
                self._connection = await asyncio.open_connection(
                    *self._address, ssl=self._context, ssl_handshake_timeout=patience_s
                )
            except ssl.SSLCertVerificationError:
                raise _FailedAttemptError("untrusted") from None
            except TimeoutError:
                raise
            except OSError:
                raise _FailedAttemptError("unreachable") from None
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None


class _Attempt:
    """One request and what has come of its reply."""

    def __init__(self, turn: RecordedTurn, session: RecordedSession) -> None:
        self.reply = ReplyProgress(session.api)
        self.first_at: float | None = None
        self.sent = 0
        self.ended = False
        self._turn = turn
        self._expected = b"".join(turn.reply.events)
        self._got = 0
        self._parser = h11.Connection(h11.CLIENT)

    @property
    def keeps_connection(self) -> bool:
        """The server goes on with this connection after its reply."""
        return self._parser.their_state is h11.DONE

    def request(self, host: bytes) -> bytes:
        """Return the request's bytes. The parser of the reply learns of it too."""
        head = self._turn.head
        self._parser.send(h11.Request(method=head.method, target=head.target, headers=[("Host", "agent")]))
        self._parser.send(h11.EndOfMessage())
        return request_head(head, host, (Line(b"Content-Length", b"%d" % len(self._turn.body)),)) + self._turn.body

    async def read_head(self, reader: asyncio.StreamReader) -> None:
        """Read until the reply begins."""
        event = await self._next(reader)
        if not isinstance(event, h11.Response):
            raise _FailedAttemptError("lost")
        if event.status_code == _OK:
            return
        asks_not_to = any(name == b"x-should-retry" and value == b"false" for name, value in event.headers)
        temporary = event.status_code in _TRIED_AGAIN or event.status_code >= _SERVER_ERRORS
        raise _FailedAttemptError("server error" if temporary and not asks_not_to else "refused")

    async def read_on(self, reader: asyncio.StreamReader) -> None:
        """Read the next part of the reply."""
        event = await self._next(reader)
        if isinstance(event, h11.EndOfMessage):
            self.ended = True
            if not self.reply.finished:
                raise WrongReplyError(f"the reply ended after {self._got} of {len(self._expected)} bytes")
        elif isinstance(event, h11.Data):
            data = bytes(event.data)
            if self._expected[self._got : self._got + len(data)] != data:
                raise WrongReplyError(f"what came after {self._got} bytes is not of the session: {data[:200]!r}")
            self._got += len(data)
            self.first_at = asyncio.get_running_loop().time() if self.first_at is None else self.first_at
            self.reply.feed(data)

    async def _next(self, reader: asyncio.StreamReader) -> h11.Event:
        """Return the parser's next event, with what it needs read for it."""
        try:
            while (event := self._parser.next_event()) is h11.NEED_DATA or isinstance(event, h11.InformationalResponse):
                if event is h11.NEED_DATA:
                    self._parser.receive_data(await reader.read(_READ_BYTES))
        except TimeoutError:
            raise
        except (OSError, h11.RemoteProtocolError):
            raise _FailedAttemptError("lost") from None
        assert not isinstance(event, type), "the parser was asked for more"
        return event
