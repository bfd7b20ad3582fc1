"""A client of one Responses server: it makes sessions, and owns the connections that they share.

Not here: conversations (`session`), and the same without `await` (`sync_client`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Self

from segue.client.local_history import InputItems, history_of, read_items
from segue.client.session import AsyncSession, SessionHost, new_session, saved_session
from segue.client.session_state import settings_with
from segue.client.settings import ConnectionSettings, SessionSettings, TransportMode
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.transports.http import HttpTransport
from segue.client.turn import RecoveryObserver, ServerLinks

DEFAULT_BASE_URL = "http://127.0.0.1:4747/v1"

#: Makes the transports of a client from its settings.
LinkOpener = Callable[[ConnectionSettings], ServerLinks]


def open_links(settings: ConnectionSettings) -> ServerLinks:
    """Return the transports to a server. Neither connects before it is used."""
    return ServerLinks(HttpTransport(settings), WebSocketTransport(settings))


class AsyncClient:
    """A client of one server. `async with` closes its connections; sessions cannot be used after that.

    `base_url` ends before `/responses`. `transport` is what sessions use if they do not say otherwise. `on_recovery` is
    called for each fault that a turn met, with what is done about it. `options` are further `ConnectionSettings`:
    `proxy`, `deflate`, `connect_timeout_s`, `idle_timeout_s`, `heartbeat_s`, `max_message_bytes`.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_BASE_URL,
        api_key: str | None = None,
        *,
        transport: TransportMode = "auto",
        headers: Mapping[str, str] | None = None,
        on_recovery: RecoveryObserver | None = None,
        links: LinkOpener = open_links,
        **options: Any,  # noqa: ANN401 - settings of connections, which check their types
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._transport: TransportMode = transport
        settings = ConnectionSettings(
            base_url=self.base_url, api_key=api_key, headers=tuple((headers or {}).items()), **options
        )
        self._host = SessionHost(self.base_url, links(settings), on_recovery)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def session(
        self,
        model: str,
        *,
        instructions: str | None = None,
        tools: Sequence[Any] = (),
        items: InputItems = (),
        **settings: Any,  # noqa: ANN401 - settings of sessions, and any member of a create
    ) -> AsyncSession:
        """Return a new session; `items` is a history to begin with.

        `settings` are those of `SessionSettings` (`transport`, `store`, `history`, …), and any other member of a
        create, such as `reasoning` or `temperature`.

        Raises:
            ValueError: the settings cannot work together.
        """
        base = SessionSettings(model=model, instructions=instructions, tools=tuple(tools), transport=self._transport)
        given = {name: value for name, value in settings.items() if value is not None}
        return self.session_with(settings_with(base, given), items=items)

    def session_with(self, settings: SessionSettings, *, items: InputItems = ()) -> AsyncSession:
        """Return a new session of settings that exist already; `items` is a history to begin with.

        Raises:
            ValueError: the settings cannot work together.
        """
        return new_session(self._host, settings, history_of(read_items(items)))

    def load(self, path: str | PathLike[str]) -> AsyncSession:
        """Return the session that a file holds; `pending_turn` is its turn that had not ended.

        Raises:
            SessionFileError: the file cannot be used, or belongs to another server.
        """
        return saved_session(self._host, fspath(path))

    async def aclose(self) -> None:
        """Close all connections. Turns that run end with an error."""
        await self._host.links.aclose()
