"""What the two ends of the tunnel tell their shells. `exchange` is the client's handle, or the server's wire number."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from segue.http.heads import ExchangeKind, ReplyHead, RequestHead
from segue.tunnel.frames import ResetCode


class LinkFailed(msgspec.Struct, frozen=True):
    """The connection cannot be used any more: close it, call `link_lost`, and (at the client's end) make another."""

    reason: str


class Writable(msgspec.Struct, frozen=True):
    """The send buffer of the exchange has room again, after `room` returned 0."""

    exchange: int


# -------------------------------------------------------------------------------------------------- of the client's end


class Welcomed(msgspec.Struct, frozen=True):
    """The link is ready. `new_epoch`: it leads to another node than the link before it."""

    epoch: bytes
    address: bytes
    max_body_bytes: int
    new_epoch: bool
    folds_alike: bool = True
    """Both ends fold replies alike; otherwise a document must cover nothing of a folded reply."""


class GoneAway(msgspec.Struct, frozen=True):
    """The node drains: open new exchanges at another node."""


class ReplyStarted(msgspec.Struct, frozen=True):
    """The head of the response has arrived. If it accepts a WebSocket (101), you may send messages from now on.

    `prefix`: what the stream of its body builds on.
    """

    exchange: int
    head: ReplyHead
    prefix: bytes = b""


class ReplyData(msgspec.Struct, frozen=True):
    """The next bytes of the response, still compressed; call `consume` when you have passed them on."""

    exchange: int
    data: bytes


class ReplyEnded(msgspec.Struct, frozen=True):
    """The response is complete and the exchange is over. `keep_reply` lets later ones build on it."""

    exchange: int


class ExchangeReset(msgspec.Struct, frozen=True):
    """The exchange was cut short; every byte of its reply that arrived was told before.

    `not_forwarded`: it never reached a provider, so you may send it again.
    """

    exchange: int
    code: ResetCode
    message: bytes


class BaseMissed(msgspec.Struct, frozen=True):
    """The gateway cannot rebuild the body: call `upload_again` with a document that needs no base.

    Of a WebSocket, it is the message that was sent with `asks`: `send` it again, without a base, before any other.
    """

    exchange: int


class UploadTaken(msgspec.Struct, frozen=True):
    """The gateway has the message of a WebSocket that was sent with `asks`."""

    exchange: int


class OutcomeUnknown(msgspec.Struct, frozen=True):
    """The node that had the whole request is gone. Nobody knows whether it forwarded the request.

    `taken_bytes`: of a WebSocket, how many bytes of the messages it may have; None: that is not known either.
    """

    exchange: int
    taken_bytes: int | None = None


ClientEvent: TypeAlias = (
    LinkFailed
    | Writable
    | Welcomed
    | GoneAway
    | ReplyStarted
    | ReplyData
    | ReplyEnded
    | ExchangeReset
    | BaseMissed
    | UploadTaken
    | OutcomeUnknown
)  # fmt: skip - one closed set


# -------------------------------------------------------------------------------------------------- of the server's end


class Opened(msgspec.Struct, frozen=True):
    """A new exchange. With `has_body`, its document follows; without, the request is complete."""

    exchange: int
    head: RequestHead
    kind: ExchangeKind
    has_body: bool


class UploadData(msgspec.Struct, frozen=True):
    """The next bytes of a document or of a WebSocket's messages; call `consume` when you have passed them on."""

    exchange: int
    data: bytes


class UploadEnded(msgspec.Struct, frozen=True):
    """The document is complete: rebuild the body, check it and forward it, or call `missed`."""

    exchange: int


class Cancelled(msgspec.Struct, frozen=True):
    """The sidecar does not want this exchange any more: close what you opened for it.

    There is no such event for an exchange that the shell itself has finished or aborted.
    """

    exchange: int


ServerEvent: TypeAlias = LinkFailed | Writable | Opened | UploadData | UploadEnded | Cancelled
