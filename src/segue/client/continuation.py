"""What the next create of a session may refer to, and how it says what came before.

Not here: what happens when the server does not know the id after all (`recovery`).
"""

from __future__ import annotations

import msgspec

from segue.client.capabilities import ServerCapabilities
from segue.client.local_history import LocalHistory
from segue.client.settings import HistoryMode
from segue.protocol.items import Item


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """The response that stands for the whole history of a session.

    An unstored response lives on the connection that made it. `epoch` is the life of the server that made it.
    """

    response_id: str
    stored: bool
    connection: int | None = None
    epoch: str | None = None


class CreatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a create says what came before: by an id and the new items, or by all items."""

    items: tuple[Item, ...]
    previous_response_id: str | None = None


def plan_create(
    continuation: Continuation | None,
    history: LocalHistory,
    new: tuple[Item, ...],
    *,
    mode: HistoryMode,
    connection: int,
    capabilities: ServerCapabilities,
) -> CreatePlan | None:
    """Return how the create for a connection is written; None if it must name an id, and there is none to name."""
    if mode != "replay" and continuation is not None and is_known(continuation, connection, capabilities):
        return CreatePlan(items=new, previous_response_id=continuation.response_id)
    if mode == "id" and history.count:
        return None
    return CreatePlan(items=(*history.items, *new))


def is_known(continuation: Continuation, connection: int, capabilities: ServerCapabilities) -> bool:
    """Return whether a server can be expected to know the response on this connection.

    A server with a grace period keeps unstored responses of lost connections for a while, in its memory.
    """
    if continuation.stored:
        return True
    if not connection:  # over HTTP nothing unstored can be continued
        return False
    same_life = continuation.epoch is not None and continuation.epoch == capabilities.epoch
    return connection == continuation.connection or (capabilities.grace_s > 0 and same_life)
