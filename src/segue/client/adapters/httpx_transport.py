"""Runs the requests of an SDK that uses httpx2 on sessions: `httpx2.AsyncClient(transport=SessionTransport(client))`.

A framework sends its whole history with each request, or names the response that it continues. Either way the transport
finds the session that holds that history, sends what is new, and answers with the standard JSON or event stream. What
a session recovers from, the framework never sees. Requests other than `POST …/responses`, and those that leave the
history to the server (`background`, `conversation`, `prompt`, an id that no session here has made), go on unchanged.
Not here: synchronous SDK clients.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import httpx2
import msgspec

from segue.client.adapters.history_digest import extend_digest
from segue.client.adapters.session_index import HeldHistory, SessionIndex
from segue.client.client import AsyncClient
from segue.client.errors import ClientError, ConnectionFailedError, CreateRefusedError, ResponseFailedError
from segue.client.session import AsyncSession
from segue.client.settings import HistoryMode, SessionSettings, TransportMode
from segue.client.stream_events import ClientEvent, ClientResponse, ResponseFinished
from segue.client.turn import AsyncTurn
from segue.http.sse import write_event
from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.items import join, user_message

#: What sessions cannot run: the history is not the client's, or the member is not of this API over HTTP.
_FOREIGN = ("background", "conversation", "prompt", "stream_id", "generate", "segue")
#: Members that are about the HTTP stream that the SDK reads, not about the turn.
_OF_THE_STREAM = ("stream", "stream_options")

_BAD_GATEWAY = 502
_BAD_REQUEST = 400


class _EventType(msgspec.Struct):
    type: str


class _SdkRequest(msgspec.Struct):
    """The members of a create that this module reads itself."""

    model: str
    input: str | list[msgspec.Raw]
    stream: bool | None = None
    store: bool | None = None
    instructions: str | None = None
    tools: list[Any] | None = None
    previous_response_id: str | None = None


_members = msgspec.json.Decoder(dict[str, Any])
_requests = msgspec.json.Decoder(_SdkRequest)
_types = msgspec.json.Decoder(_EventType)
_READ_HERE = frozenset(_SdkRequest.__struct_fields__)


class _SdkCreate(msgspec.Struct, frozen=True):
    """A request as a session runs it. The settings are those of this turn: frameworks change tools as they go."""

    settings: SessionSettings
    items: Sequence[bytes]
    previous_response_id: str | None
    streamed: bool


class SessionTransport(httpx2.AsyncBaseTransport):
    """The transport of an `httpx2.AsyncClient` whose turns run on sessions of a client.

    Args:
        client: whose sessions run the turns; it stays the caller's to close.
        others: carries all other requests; by default httpx2's own transport.
        transport: how sessions reach the server.
        history: how sessions say what came before.
        turn_timeout_s: how long a turn may take with all its waits and repeats; None means no bound.
        most_sessions: how many conversations are kept; one that was given up is sent whole when it goes on.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        others: httpx2.AsyncBaseTransport | None = None,
        transport: TransportMode = "auto",
        history: HistoryMode = "auto",
        turn_timeout_s: float | None = None,
        most_sessions: int = 64,
    ) -> None:
        self._client = client
        self._others = others or httpx2.AsyncHTTPTransport()
        self._transport: TransportMode = transport
        self._history: HistoryMode = history
        self._turn_timeout_s = turn_timeout_s
        self._index: SessionIndex[AsyncSession] = SessionIndex(most_sessions)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        if request.method != "POST" or not request.url.path.endswith("/responses"):
            return await self._others.handle_async_request(request)
        create = self._read(await request.aread())
        turn = None if create is None else self._begin(create)
        if create is None or turn is None:
            return await self._others.handle_async_request(request)
        try:
            return await (turn.stream() if create.streamed else turn.whole())
        except ConnectionFailedError as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        except ClientError as error:
            return _error_reply(error)

    async def aclose(self) -> None:
        """Give up all sessions; the client stays open."""
        for session in self._index.clear():
            session.release()
        await self._others.aclose()

    def _read(self, body: bytes) -> _SdkCreate | None:
        """Return what a session needs of a request; None if no session can run it."""
        try:
            read, members = _requests.decode(body), _members.decode(body)
        except UNREADABLE:
            return None  # the server says what is wrong with it
        if any(members.get(name) for name in _FOREIGN):
            return None
        left_out = {*_READ_HERE, *_FOREIGN, *_OF_THE_STREAM}
        settings = SessionSettings(
            model=read.model,
            instructions=read.instructions,
            tools=tuple(read.tools or ()),
            fields={name: value for name, value in members.items() if name not in left_out and value is not None},
            transport=self._transport,
            store=read.store is not False,  # the API's default
            history=self._history,
            lean=False,  # SDKs read the standard events
            turn_timeout_s=self._turn_timeout_s,
        )
        given = read.input
        items = [user_message(given)] if isinstance(given, str) else [bytes(item) for item in given]
        return _SdkCreate(settings, items, read.previous_response_id, read.stream is True)

    def _begin(self, create: _SdkCreate) -> _SessionTurn | None:
        """Find or make the session, and send what it does not hold; None if the server alone knows the history."""
        if create.previous_response_id is None:
            found = self._index.take_by_history(create.items)
        else:
            match = self._index.take_by_response(create.previous_response_id, create.items)
            if match is None:
                return None
            found = match
        session = found.session or self._client.session_with(create.settings)
        session.settings = create.settings
        turn = session.send(join(create.items[found.held :]))
        return _SessionTurn(self._index, session, turn, digest=found.digest)


class _SessionTurn:
    """One turn of a framework on its session."""

    def __init__(
        self, index: SessionIndex[AsyncSession], session: AsyncSession, turn: AsyncTurn, *, digest: bytes
    ) -> None:
        self._index = index
        self._session = session
        self._turn = turn
        self._digest = digest

    async def whole(self) -> httpx2.Response:
        """Run the turn to its end, and answer with its response object."""
        async with self._turn as turn:
            response = await turn.response()
        self._put_back(response)
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=response.raw)

    async def stream(self) -> httpx2.Response:
        """Answer with the events of the turn, once the first has come."""
        events = aiter(self._turn)
        first = await anext(events)
        body = _EventBody(self._events(first, events))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    async def _events(self, first: ClientEvent, events: AsyncIterator[ClientEvent]) -> AsyncGenerator[bytes]:
        async with self._turn:
            yield self._written(first)
            try:
                async for event in events:
                    yield self._written(event)
            except ClientError as error:
                yield write_event("error", _error_event(error))

    def _written(self, event: ClientEvent) -> bytes:
        if isinstance(event, ResponseFinished):  # before it is sent: an SDK may stop reading at this event
            self._put_back(event.response)
        return write_event(_types.decode(event.raw).type, event.raw)

    def _put_back(self, response: ClientResponse) -> None:
        digest = [self._digest, *extend_digest(self._digest, response.output)][-1]
        for session in self._index.put(self._session, HeldHistory(digest, response.id)):
            session.release()


class _EventBody(httpx2.AsyncByteStream):
    """The body of a streamed answer."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._events

    async def aclose(self) -> None:
        """Stop reading; a turn that has not ended is cancelled."""
        await self._events.aclose()


def _error_members(error: ClientError) -> dict[str, Any]:
    refused = isinstance(error, CreateRefusedError)
    code = error.code if isinstance(error, CreateRefusedError | ResponseFailedError) else None
    return {
        "type": "invalid_request_error" if refused else "server_error",
        "code": code or type(error).__name__,
        "message": str(error),
        "param": error.param if isinstance(error, CreateRefusedError) else None,
    }


def _error_reply(error: ClientError) -> httpx2.Response:
    """Answer with an error that the SDK does not retry: what is safe to repeat was repeated already."""
    status = _BAD_GATEWAY
    if isinstance(error, CreateRefusedError):
        status = error.status or _BAD_REQUEST
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return httpx2.Response(status, headers=headers, content=encode({"error": _error_members(error)}))


def _error_event(error: ClientError) -> bytes:
    members = _error_members(error)
    return encode({"type": "error", "code": members["code"], "message": members["message"], "param": members["param"]})
