"""The reading half of an agent's connection: bytes in any pieces become complete requests, or refusals.

`segue.http.request_rules` checks each head before h11 parses it. Not here: the socket and timers
(`segue.sidecar.listener`), and the answer (`segue.sidecar.agent_request`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import h11
import msgspec

from segue.http.heads import ExchangeKind, Line, RequestHead, end_to_end, values
from segue.http.origins import OriginPolicy, is_from_this_machine
from segue.http.request_rules import Framing, RequestRefusal, check_caller, check_head, head_end, kind_of

#: Where the reader is: between requests, inside a head, inside a body, or waiting for the answer to a whole request.
Phase: TypeAlias = Literal["idle", "head", "body", "answer"]


class RequestSource(msgspec.Struct, frozen=True):
    """Where a request comes from: an address, the host that it names, and the names of all its lines."""

    peer: str | None
    host: str
    names: tuple[bytes, ...]

    @property
    def local(self) -> bool:
        """It seems to come from this machine, and not through a proxy on it."""
        return is_from_this_machine(self.peer, self.host, (name.decode("latin-1") for name in self.names))


class ParsedRequest(msgspec.Struct, frozen=True):
    """A whole request: the lines that are passed on, and the body, None if it was sent without any framing."""

    kind: ExchangeKind
    head: RequestHead
    body: bytes | None
    websocket_key: bytes | None
    source: RequestSource


class ContinueAwaited(msgspec.Struct, frozen=True):
    """The agent waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1)."""


class RequestReader:
    """Reads one connection. After a `ParsedRequest`, answer through `http`, then call `next_cycle`."""

    def __init__(self, origins: OriginPolicy, *, max_head: int, max_body: int, peer: str | None = None) -> None:
        self._origins = origins
        self._peer = peer
        self._max_head = max_head
        self._max_body = max_body
        self._ahead = bytearray()  # not yet given to h11
        self._looked_at = 0
        self._body = bytearray()
        self._framing = Framing(None, chunked=False)
        self._received: ParsedRequest | None = None  # the head of the request, while its body is read
        self.phase: Phase = "idle"
        self.held = 0  # bytes of this request's body
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head)

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the connection; then ask for `next_event` until it has none."""
        if self.phase == "body":
            self.http.receive_data(data)
        else:
            self._ahead += data

    def next_event(self) -> ParsedRequest | RequestRefusal | ContinueAwaited | None:
        """Return what the bytes so far amount to; None asks for more of them. Nothing follows a refusal."""
        if self.phase == "answer":
            raise RuntimeError("the request before it has not been answered")
        if self.phase != "body":
            refusal = self._read_head()
            if refusal is not None or self._received is None:
                return refusal
            if self.http.they_are_waiting_for_100_continue and not self.http.trailing_data[0]:
                return ContinueAwaited()
        return self._read_body()

    def next_cycle(self) -> None:
        """Begin with the next request, once this one has been answered in full."""
        self._ahead[:0] = self.http.trailing_data[0]
        self._looked_at = 0
        self._received = None
        self.held = 0
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head)
        self.phase = "head" if self._ahead else "idle"

    def _read_head(self) -> RequestRefusal | None:
        if self._looked_at == 0:
            while self._ahead.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before a request are skipped
                del self._ahead[:2]
            if self._ahead == b"\r":
                return None
        self.phase = "head" if self._ahead else "idle"
        end = head_end(self._ahead, self._max_head, start=self._looked_at)
        if end is None:
            self._looked_at = len(self._ahead)
            return None
        if isinstance(end, RequestRefusal):
            return end
        raw = bytes(self._ahead[:end])
        framing = check_head(raw)
        if isinstance(framing, RequestRefusal):
            return framing
        refusal = self._parse_head(raw, framing)
        if refusal is None:
            self.phase = "body"
            del self._ahead[:end]
            if self._ahead:  # no bytes at all would tell h11 that the connection has ended
                self.http.receive_data(bytes(self._ahead))
                self._ahead.clear()
        return refusal

    def _parse_head(self, raw: bytes, framing: Framing) -> RequestRefusal | None:
        self.http.receive_data(raw)
        try:
            request = self.http.next_event()
        except h11.RemoteProtocolError as error:
            return RequestRefusal("invalid_request", f"The request head is not valid: {_reason(error)}.")
        assert isinstance(request, h11.Request), "a whole head was given"
        lines = tuple(Line(bytes(name), bytes(value)) for name, value in request.headers.raw_items())
        refusal = check_caller(lines, self._origins)
        if refusal is not None:
            return refusal
        head = RequestHead(bytes(request.method), bytes(request.target), lines)
        kind = kind_of(head, framing, version=bytes(request.http_version))
        if isinstance(kind, RequestRefusal):
            return kind
        if framing.length is not None and framing.length > self._max_body:
            return self._too_large()
        key = values(lines, b"sec-websocket-key")[0] if kind == "websocket" else None
        self._framing = framing
        host = b",".join(values(lines, b"host")).decode("latin-1")
        source = RequestSource(self._peer, host, tuple(line.name for line in lines))
        head = msgspec.structs.replace(head, lines=end_to_end(lines, kind))
        self._received = ParsedRequest(kind, head, None, key, source)
        return None

    def _read_body(self) -> ParsedRequest | RequestRefusal | None:
        assert self._received is not None, "the head has been read"
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                return RequestRefusal("invalid_request", f"The request body is not valid: {_reason(error)}.")
            match event:
                case h11.NEED_DATA:
                    return None
                case h11.Data(data=data):
                    self._body += data
                    self.held = len(self._body)
                    if self.held > self._max_body:
                        return self._too_large()
                case h11.EndOfMessage():  # its trailers are not passed on (RFC 9110, 6.5.1)
                    break
                case _:
                    raise AssertionError(f"no such event inside a body: {event!r}")
        self.phase = "answer"
        has_body = self._framing.chunked or self._framing.length is not None
        body, self._body = bytes(self._body), bytearray()
        return msgspec.structs.replace(self._received, body=body if has_body else None)

    def _too_large(self) -> RequestRefusal:
        return RequestRefusal("request_too_large", f"The request body is larger than {self._max_body} bytes.")


def _reason(error: h11.RemoteProtocolError) -> str:
    """Return what is wrong without the bytes that h11 quotes, which depend on chunking and may be a credential."""
    return str(error).partition(":")[0]
