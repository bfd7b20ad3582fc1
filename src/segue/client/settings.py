"""What a client and its sessions are told when they are made: where the server is, and the three switches.

Transport, store and history are independent, except for one pair: over HTTP nothing can continue a response that was
not stored. Not here: how a request is written from it (`create_request`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

TransportKind = Literal["http", "websocket"]
#: `auto` begins with a WebSocket and goes to HTTP where the server has none, or where its connections do not last.
TransportMode = Literal["http", "websocket", "auto"]
#: `id` names the response to continue and never sends the history; `replay` always sends it; `auto` sends an id as long
#: as the server knows it.
HistoryMode = Literal["id", "replay", "auto"]

_MEBI = 1024 * 1024


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the server; sizes in bytes, times in seconds.

    `base_url` ends before `/responses`, as the SDKs have it. `deflate` compresses WebSocket messages, and lean streams
    over HTTP; None means: where the server is not on this machine. `proxy` is an HTTP proxy on the way to the server,
    `http://[USER:PASSWORD@]HOST:PORT`; none is taken from the environment.
    """

    base_url: str
    api_key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    proxy: str | None = None
    deflate: bool | None = None
    connect_timeout_s: float = 15.0
    idle_timeout_s: float = 300.0
    heartbeat_s: float = 20.0
    max_message_bytes: int = 64 * _MEBI


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the turns of a session are run. `fields` are all other members of a create, as they go on the wire.

    `lean` asks a server that offers it to leave out what the client knows already. `turn_timeout_s` bounds how long a
    turn may take with all its waits and repeats; None means no bound.
    """

    model: str
    instructions: str | None = None
    tools: tuple[Any, ...] = ()
    fields: dict[str, Any] = {}
    transport: TransportMode = "auto"
    store: bool = False
    history: HistoryMode = "auto"
    lean: bool = True
    turn_timeout_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    most_attempts: Annotated[int, msgspec.Meta(ge=0)] = 8


def check_switches(settings: SessionSettings) -> str | None:
    """Return why these settings are none, or cannot work together; None if they can."""
    try:
        msgspec.convert(msgspec.structs.asdict(settings), SessionSettings)
    except msgspec.ValidationError as error:
        return f"a setting is wrong: {error}"
    if settings.history == "id" and not settings.store and settings.transport != "websocket":
        return (
            "history='id' with store=False needs transport='websocket': over HTTP a response that was not stored "
            "cannot be continued. Use history='auto', or store=True."
        )
    return None
