"""What the two ends of the tunnel tell their shells. An exchange goes by the sidecar's handle, or its wire number."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from segue.http.heads import Kind, ReplyHead, RequestHead
from segue.tunnel.frames import ResetCode


class LinkFailed(NamedTuple):
    """The connection is of no use any more: close it, say `link_lost`, and (the sidecar) make another."""

    reason: str


class Writable(NamedTuple):
    """There is room again in what the exchange sends, after `room` had said that there is none."""

    exchange: int


# ------------------------------------------------------------------------------------------------- of the sidecar's end


class Welcomed(NamedTuple):
    """The link is ready. `new_epoch`: not the node that the link before it led to."""

    epoch: bytes
    address: bytes
    max_body_bytes: int
    new_epoch: bool


class GoneAway(NamedTuple):
    """The node drains: open what is new elsewhere."""


class ReplyStarted(NamedTuple):
    """The head of the response is here. To a WebSocket with status 101, messages may be sent from now on."""

    exchange: int
    head: ReplyHead


class ReplyData(NamedTuple):
    """The next bytes of the response, compressed as they travelled; tell with `consume` when they have gone on."""

    exchange: int
    data: bytes


class ReplyEnded(NamedTuple):
    """The response is complete and the exchange is over."""

    exchange: int


class ExchangeReset(NamedTuple):
    """The exchange is over before its end, behind all that came of its reply.

    `not_forwarded`: it never reached a provider, so it may be sent again.
    """

    exchange: int
    code: ResetCode
    message: bytes


class BaseMissed(NamedTuple):
    """The gateway cannot rebuild the body: give `upload_again` a document without a base."""

    exchange: int


class OutcomeUnknown(NamedTuple):
    """The node that had the whole request is gone, and with it the answer to whether it was forwarded."""

    exchange: int


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
    | OutcomeUnknown
)  # fmt: skip - one closed set


# ------------------------------------------------------------------------------------------------- of the gateway's end


class Opened(NamedTuple):
    """A new exchange. With `has_body` its document follows; otherwise it is complete."""

    exchange: int
    head: RequestHead
    kind: Kind
    has_body: bool


class UploadData(NamedTuple):
    """The next bytes of a document or of a WebSocket's messages; tell with `consume` when they have gone on."""

    exchange: int
    data: bytes


class UploadEnded(NamedTuple):
    """The document is complete: rebuild, check, forward, or say `missed`."""

    exchange: int


class Cancelled(NamedTuple):
    """The sidecar does not want this exchange any more: close what was opened for it.

    Not told of what the shell has finished or aborted itself.
    """

    exchange: int


ServerEvent: TypeAlias = LinkFailed | Writable | Opened | UploadData | UploadEnded | Cancelled
