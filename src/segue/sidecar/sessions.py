"""The tunnel as exchanges see it: always one session for what is new, and older ones until what they carry has ended.

A session whose node drains is left behind, and the next begins at the gateway after it. Not here: how a session finds
its gateway (`segue.sidecar.session`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

from segue.sidecar.connector import Settings, tls_context, tunnel_url
from segue.sidecar.session import LinkState, Patience, Session
from segue.sidecar.stats import Stats


class Tunnel:
    """All sessions of one sidecar, from `start` to `close`."""

    def __init__(
        self, gateways: Sequence[str], settings: Settings, *, stats: Stats, patience: Patience | None = None
    ) -> None:
        if not gateways:
            raise ValueError("a sidecar needs the address of a gateway")
        for gateway in gateways:
            tunnel_url(gateway)
        self._gateways = tuple(gateways)
        self._settings = settings
        self._stats = stats
        self._patience = Patience() if patience is None else patience
        self._context: ssl.SSLContext = tls_context(settings.cafile)
        self._current: Session | None = None
        self._leaving: set[Session] = set()

    def start(self) -> None:
        """Begin to look for a gateway."""
        self._current = self._begin(self._gateways, was_up=False)

    async def close(self) -> None:
        """Give everything up."""
        sessions = [*self._leaving] if self._current is None else [*self._leaving, self._current]
        await asyncio.gather(*(session.close() for session in sessions))

    @property
    def session(self) -> Session:
        """The session that new exchanges are opened in."""
        assert self._current is not None, "start() comes first"
        return self._current

    @property
    def state(self) -> LinkState:
        """What the link for new exchanges is doing."""
        return self.session.state

    def _begin(self, gateways: Sequence[str], *, was_up: bool) -> Session:
        session = Session(
            gateways,
            self._settings,
            self._context,
            patience=self._patience,
            stats=self._stats,
            was_up=was_up,
            on_gone_away=self._move_on,
            on_over=self._leaving.discard,
        )
        session.start()
        return session

    def _move_on(self, session: Session) -> None:
        """Open what is new elsewhere; what the session carries goes on there."""
        if session is not self._current:
            return
        left = session.gateway
        after = self._gateways.index(left) + 1 if left in self._gateways else 0
        self._leaving.add(session)
        self._current = self._begin((*self._gateways[after:], *self._gateways[:after]), was_up=True)
        session.leave()
