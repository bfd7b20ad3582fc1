"""A dialect of one test each line: small enough to see what the client does, whatever real dialects mean.

The body is the model and the items as they are; the stream is `{"say": TEXT}`, `{"awaits": WHAT}`, `{"fail": CODE}` and
`{"end": true}`.
"""

from __future__ import annotations

from typing import cast

import msgspec

from segue.dialects.interface import NOTHING, Awaited, CountingEndpoint, Output, Rendered, TurnRequest
from segue.dialects.render_cache import RenderCache
from segue.http.sse import SseEvent, write_event
from segue.protocol.codec import encode
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.items import join
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody
from segue.protocol.responses import Failure, usage

END = write_event("", b'{"end":true}')


def say(text: str) -> bytes:
    """A piece of text on the wire."""
    return write_event("", encode({"say": text}))


def awaits(what: Awaited) -> bytes:
    """What is still to come, on the wire."""
    return write_event("", encode({"awaits": what}))


def fail(code: str, message: str = "It fails.") -> bytes:
    """A failure on the wire."""
    return write_event("", encode({"fail": code, "message": message}))


class PlainDecoder:
    """Reads such a stream."""

    def __init__(self, request: TurnRequest) -> None:
        self._writer = OutputWriter(request.response_id)
        self.ended = False
        self.awaited: Awaited = "answer"

    def feed(self, event: SseEvent) -> Output:
        if self.ended:
            return []
        told = msgspec.json.decode(event.data, type=dict[str, object])
        if "say" in told:
            return [*self._writer.text(str(told["say"]))]
        if "awaits" in told:
            self.awaited = cast(Awaited, told["awaits"])
            return []
        if "fail" in told:
            return self._fail(told)
        self.ended = True
        return [*self._writer.end_item(), Ended("completed", usage(1, 1))]

    def _fail(self, told: dict[str, object]) -> Output:
        self.ended = True
        failure = Failure(str(told["fail"]), str(told.get("message", "It fails.")))
        return [Ended("failed", error=failure, retry_after_s=cast(float | None, told.get("after")))]

    def end(self, *, truncated: bool = False) -> Output:
        if self.awaited != "answer":
            self.ended = True
            return [*self._writer.end_item(), Ended("completed", usage(1, 1))]
        return self.fail(Failure("upstream_protocol_error", "cut" if truncated else "closed"))

    def fail(self, failure: Failure) -> Output:
        if self.ended:
            return []
        self.ended = True
        return [Ended("failed", error=failure)]


class PlainDialect:
    """Writes such requests; a model called `never` cannot be asked."""

    name = "chat"
    provider = "test"
    models_path = "/models"
    counting: CountingEndpoint | None = CountingEndpoint("/count", frozenset({"model", "items"}))

    def path(self, model: str) -> str:
        return f"/ask/{model}"

    def headers(self, api_key: str | None) -> tuple[tuple[str, str], ...]:
        return () if api_key is None else (("Authorization", f"Bearer {api_key}"),)

    def render(
        self, request: TurnRequest, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        if request.model == "never":
            return Problem("unsupported_parameter", "This cannot be said.")
        return Rendered((b'{"model":', encode(request.model), b',"items":', join(list(request.history.items())), b"}"))

    def pass_on(
        self, request: TurnRequest, native: NativeBody, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        return Rendered(native.body.changed({"model": (encode(request.model),)}))

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> PlainDecoder:
        return PlainDecoder(request)
