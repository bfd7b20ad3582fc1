"""What the errors of Responses servers say about continuing: that a response is not known, or a connection is over.

Servers say it in their own ways: OpenAI with a code, servers of Open Responses also with a status and a parameter. Each
of these errors proves that nothing was generated. Not here: what to do then.
"""

from __future__ import annotations

#: The server does not know the previous response, or does not let it be continued.
PARENT_LOST = frozenset({"previous_response_not_found", "store_mismatch"})
#: A WebSocket takes no more creates: it is too old, or too many names of lanes were used on it.
CONNECTION_ENDED = frozenset({"websocket_connection_limit_reached", "websocket_stream_limit_reached"})

_NOT_FOUND = 404


def says_parent_is_lost(code: str | None, param: str | None, status: int | None) -> bool:
    """Tell whether the answer to a create that names a previous response says that it cannot be continued."""
    if code in PARENT_LOST or param == "previous_response_id":
        return True
    # Open Responses servers name it in their own ways; a model that does not exist is the other 404.
    return status == _NOT_FOUND and code != "model_not_found" and param != "model"
