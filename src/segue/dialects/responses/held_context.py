"""What a Responses server holds of a conversation after a response, and whether that is what a replay would send.

The server's context is what it was sent and what it answered. The history here may say it in other bytes: a repaired
call, another id of a call, reasoning that was left out. A conversation is continued by the server's id only if both are
the same, so that the model reads what it would read if everything were sent again. That is checked for the newest turn
alone: the turns before it were checked when it was sent. Not here: the request (`request`), and for how long a server
holds something (the upstream).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from segue.dialects.interface import Rendered
from segue.history.chains import Turn
from segue.protocol.items import Item


class SentInput(msgspec.Struct, frozen=True):
    """The new input of a request as it was sent, and the bytes of all input that the server has then.

    `view` names the rendering, which may leave reasoning out; `depth` is the place of its turn in the chain.
    """

    view: str
    depth: int
    input_bytes: int
    digest: bytes
    context_bytes: int

    def answered(self, response_id: str) -> HeldContext:
        """Return what the server holds once it has answered with a response of this id, its own."""
        return HeldContext(response_id, self)


class HeldContext(msgspec.Struct, frozen=True):
    """What a server holds after the response that it calls `response_id`: the context that it was sent, and more."""

    response_id: str
    sent: SentInput

    def is_of(self, turn: Turn, closed: bytes, answer: Iterable[Item]) -> bool:
        """Tell whether the server holds exactly this turn: its rendered items, of which `answer` are the model's."""
        sent = self.sent
        if turn.depth != sent.depth or digest_of(closed[: sent.input_bytes]) != sent.digest:
            return False
        return closed[sent.input_bytes :] == listed(answer)

    def bytes_up_to(self, closed: bytes) -> int:
        """Return how many bytes the server has of the history whose newest turn is this."""
        return self.sent.context_bytes - self.sent.input_bytes + len(closed)


class RenderedCreate(msgspec.Struct, frozen=True):
    """A `response.create` message; `continues`: it names the server's own previous response.

    `saved_bytes` is how much input was left out because the server holds it.
    """

    rendered: Rendered
    sent: SentInput
    continues: bool = False
    saved_bytes: int = 0


def sent_input(view: str, pieces: Iterable[bytes], *, depth: int, before_bytes: int) -> SentInput:
    """Return what is known of new input; the server has `before_bytes` of older input when it gets this."""
    data = b"".join(pieces)
    return SentInput(view, depth, len(data), digest_of(data), before_bytes + len(data))


def listed(items: Iterable[Item]) -> bytes:
    """Return items as they stand in a list, each with a comma after it."""
    return b"".join(item + b"," for item in items)


def digest_of(data: bytes) -> bytes:
    """Return the digest by which input is compared."""
    return hashlib.sha256(data).digest()
