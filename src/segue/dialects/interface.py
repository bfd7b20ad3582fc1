"""What a dialect must do: write the request body of one provider API, and read that API's stream back.

A dialect is pure: it never opens, waits, draws or raises on what a peer sent. The shell (an upstream) does, in order:

1. `render` the request, or if it came in the same API, `pass_on` what its client wrote. A `Problem` means that the
   request asks for something that this API cannot do, and that leaving it out would give a wrong answer: refuse the
   turn. `Rendered.warnings` says what was left out.
2. POST `Rendered.body` to base URL + `path`, with `headers`, and read the reply with `http.sse.SseReader`.
3. Make one `decoder` and `feed` it each event; what it returns is what an upstream yields, numbered from
   `FIRST_SEQUENCE_NUMBER`. When an `Ended` was among it, `ended` is true and the turn is over.
4. If the reply ends or breaks before that, call `end`; if something else stops it (a timeout, an event too large),
   call `fail`. Both return exactly one `Ended`, unless there was one before: then nothing. A stream that falls silent
   when it is not the answer that is `awaited` has said everything: call `end` too.

The decoder does not read the bodies of error replies (any status but 200): `error_shapes.read_error` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from segue.dialects.render_cache import RenderCache
from segue.history.chains import History
from segue.http.sse import SseEvent
from segue.protocol.codec import encode
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody, Settings
from segue.protocol.responses import Failure

Output = list[Event | Ended]

#: No field at all.
NOTHING: frozenset[str] = frozenset()

#: What a reply stream has still to bring: more of the answer; no more of it, but perhaps the usage; only its own end.
Awaited = Literal["answer", "usage", "end"]


class TurnRequest(Protocol):
    """The part of `upstreams.interface.UpstreamRequest` that a dialect reads; that struct fits as it is."""

    @property
    def model(self) -> str: ...  # noqa: D102 - see UpstreamRequest
    @property
    def response_id(self) -> ResponseId: ...  # noqa: D102 - see UpstreamRequest
    @property
    def tenant(self) -> str: ...  # noqa: D102 - see UpstreamRequest
    @property
    def history(self) -> History: ...  # noqa: D102 - see UpstreamRequest
    @property
    def settings(self) -> Settings: ...  # noqa: D102 - see UpstreamRequest
    @property
    def native(self) -> NativeBody | None: ...  # noqa: D102 - see UpstreamRequest


class Rendered(msgspec.Struct, frozen=True):
    """A request body, in pieces to be written one after the other; most of them were rendered in earlier turns.

    `warnings` are sentences for the client about what was left out, since this API cannot carry it. Each sentence is
    there once, however often it applies. Give them to `Dialect.decoder`; they reach the client in `Ended.warnings`.
    `own_fields` names the fields that no client and no configuration asked for, and that the request is complete
    without: if the provider refuses one, render again with it in `without`.
    """

    pieces: tuple[bytes, ...]
    warnings: tuple[str, ...] = ()
    own_fields: frozenset[str] = NOTHING

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)

    @property
    def size_bytes(self) -> int:
        """The size of the whole body."""
        return sum(map(len, self.pieces))

    def with_fields(self, fields: Mapping[str, Any]) -> Rendered:
        """Return the body with more fields, which it must not have yet, at its end; only the last piece is new."""
        assert self.pieces[-1].endswith(b"}"), "a body is an object"
        last = b"%b,%b" % (self.pieces[-1][:-1], encode(fields)[1:])
        return Rendered((*self.pieces[:-1], last), self.warnings, self.own_fields)


class CountingEndpoint(msgspec.Struct, frozen=True):
    """Where an API counts the tokens of an input, below the base URL, and which fields of a request it takes there."""

    path: str
    fields: frozenset[str]


class ReplyDecoder(Protocol):
    """Reads one reply stream. No method raises on what the peer sent."""

    @property
    def ended(self) -> bool:
        """Whether an `Ended` was returned; the decoder ignores whatever you feed it after that."""

    @property
    def awaited(self) -> Awaited:
        """What the stream has still to bring before the turn can end."""

    def feed(self, event: SseEvent) -> Output:
        """Read one event of the provider and return what it means, often nothing."""

    def end(self, *, truncated: bool = False) -> Output:
        """Report that the stream is over; `truncated` means that the connection broke instead of being closed."""

    def fail(self, failure: Failure) -> Output:
        """End the turn as failed, for a reason that the shell knows."""


class Dialect(Protocol):
    """One provider API. An instance belongs to one upstream and gets the name of its provider when it is made.

    `provider` names who can read the reasoning of this upstream (its host, for example): encrypted or signed reasoning
    goes back only to the provider that wrote it.
    """

    @property
    def name(self) -> str:
        """The word of the configuration: `chat`, `messages` or `responses`."""

    @property
    def provider(self) -> str:
        """Who can read the reasoning that comes from this upstream."""

    def path(self, model: str) -> str:
        """Return where to POST, below the base URL."""

    @property
    def models_path(self) -> str:
        """Where to GET the list of models, below the base URL."""

    @property
    def counting(self) -> CountingEndpoint | None:
        """Where the tokens of an input are counted; None if the API has nothing for it."""

    def headers(self, api_key: str | None) -> tuple[tuple[str, str], ...]:
        """Return the header lines that this API wants, with the key (None: without one)."""

    def render(
        self, request: TurnRequest, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        """Write the request body. O(new items), beside copying bytes: what was rendered is kept in `cache`.

        Fields in `without` are not added, unless the request itself asks for them.
        """

    def pass_on(
        self, request: TurnRequest, native: NativeBody, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        """Write the body of a request that came in this API, with nothing changed but what the gateway must change."""

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
        """Make the reader of one reply; its `Ended` carries `warnings` and its own."""
