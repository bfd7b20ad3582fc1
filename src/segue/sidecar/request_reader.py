"""The reading half of an agent's connection: bytes in any pieces become complete requests, or refusals.

Not here: what is read of a head (`segue.http.request_rules`), the socket and timers (`segue.sidecar.listener`), who may
use the sidecar (`segue.sidecar.agent_access`), and the answer (`segue.sidecar.agent_request`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from segue.http.heads import ExchangeKind, RequestHead, end_to_end, values
from segue.http.message_content import MessageContent, content_of
from segue.http.origins import OriginPolicy, is_from_this_machine
from segue.http.request_rules import CheckedHead, RequestRefusal, check_caller, check_head, head_end, kind_of

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
    version: bytes = b"1.1"
    persistent: bool = True
    """Another request may follow on the connection."""


#: Returns the target of a request as it is passed on, or why its sender may not use the sidecar.
Admission: TypeAlias = Callable[[bytes], bytes | RequestRefusal]


class ContinueAwaited(msgspec.Struct, frozen=True):
    """The agent waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1)."""


class RequestReader:
    """Reads one connection. After a `ParsedRequest`, answer it, then call `next_cycle`."""

    def __init__(
        self,
        origins: OriginPolicy,
        *,
        max_head: int,
        max_body: int,
        peer: str | None = None,
        admit: Admission = bytes,
    ) -> None:
        self._origins = origins
        self._admit = admit
        self._peer = peer
        self._max_head = max_head
        self._max_body = max_body
        self._ahead = bytearray()  # what has come and is not of the present body
        self._looked_at = 0
        self._received: ParsedRequest | None = None  # the head of the request, while its body is read
        self._content: MessageContent | None = None  # None: the request has no body
        self._pieces: list[bytes] = []
        self._awaits_continue = False
        self.phase: Phase = "idle"
        self.held = 0  # bytes of this request's body

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the connection; then ask for `next_event` until it has none."""
        if self.phase == "body" and self._content is not None:
            self._content.feed(data)
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
            if self._awaits_continue and self._content is not None and not self._content.rest:
                return ContinueAwaited()
        return self._read_body()

    @property
    def rest(self) -> bytes:
        """What has come behind the request."""
        return bytes(self._ahead)

    def next_cycle(self) -> None:
        """Begin with the next request, once this one has been answered in full."""
        self._looked_at = 0
        self._received = None
        self.held = 0
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
        checked = check_head(bytes(self._ahead[:end]))
        refusal = checked if isinstance(checked, RequestRefusal) else self._take_head(checked)
        if refusal is None:
            self.phase = "body"
            del self._ahead[:end]
            if self._content is not None:
                self._content.feed(bytes(self._ahead))
                self._ahead.clear()
        return refusal

    def _take_head(self, checked: CheckedHead) -> RequestRefusal | None:
        head, framing = checked.head, checked.framing
        refusal = check_caller(head.lines, self._origins)
        if refusal is not None:
            return refusal
        target = self._admit(head.target)
        if isinstance(target, RequestRefusal):
            return target
        head = msgspec.structs.replace(head, target=target)
        kind = kind_of(head, framing, version=checked.version)
        if isinstance(kind, RequestRefusal):
            return kind
        if framing.length is not None and framing.length > self._max_body:
            return self._too_large()
        self._content = content_of(framing) if framing.chunked or framing.length is not None else None
        self._awaits_continue = checked.awaits_continue
        source = RequestSource(
            self._peer,
            b",".join(values(head.lines, b"host")).decode("latin-1"),
            tuple([line.name for line in head.lines]),
        )
        self._received = ParsedRequest(
            kind,
            RequestHead(head.method, head.target, end_to_end(head.lines, kind)),
            None,
            values(head.lines, b"sec-websocket-key")[0] if kind == "websocket" else None,
            source,
            checked.version,
            persistent=checked.persistent,
        )
        return None

    def _read_body(self) -> ParsedRequest | RequestRefusal | None:
        assert self._received is not None, "the head has been read"
        content = self._content
        if content is None:
            self.phase = "answer"
            return self._received
        while not content.complete:
            try:
                piece = content.read()
            except ValueError as error:
                return RequestRefusal("invalid_request", f"The request body is not valid: {error}.")
            if not piece and not content.complete:
                return None
            self._pieces.append(piece)
            self.held += len(piece)
            if self.held > self._max_body:
                return self._too_large()
        self.phase = "answer"
        self._ahead += content.rest
        body, self._pieces, self._content = b"".join(self._pieces), [], None
        return msgspec.structs.replace(self._received, body=body)

    def _too_large(self) -> RequestRefusal:
        return RequestRefusal("request_too_large", f"The request body is larger than {self._max_body} bytes.")
