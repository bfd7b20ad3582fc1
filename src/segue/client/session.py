"""A conversation with a model: it keeps the history, and each turn sends only what is new.

Not here: how a turn runs (`turn`), and the connections, which belong to the client (`client`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from itertools import count
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from segue.client.local_history import InputItems, LocalHistory, read_items
from segue.client.meters import SessionMeters
from segue.client.session_file import SessionFile, read_session
from segue.client.session_journal import damaged_file, read_journal
from segue.client.session_state import SavedTurn, SessionState
from segue.client.settings import SessionSettings
from segue.client.transports.interface import TransportFault
from segue.client.turn import AsyncTurn, RecoveryObserver, ServerLinks, TurnHooks
from segue.client.turn_effects import RecoveryStep, TurnInput

_KEY_BYTES = 16


class SessionHost:
    """What the sessions of one client share: the ways to its server, their lanes, and who is told of recoveries."""

    def __init__(self, base_url: str, links: ServerLinks, observer: RecoveryObserver | None) -> None:
        self.base_url = base_url
        self.links = links
        self._observer = observer
        self._lanes = count(1)  # threads that share the client may ask at the same time

    def next_lane(self) -> int:
        """Return the number of a new lane."""
        return next(self._lanes)

    def recovered(self, step: RecoveryStep) -> None:
        """Tell of a recovery."""
        if self._observer is not None:
            self._observer(step)


class AsyncSession:
    """A conversation. It runs one turn at a time; fork it to run several."""

    def __init__(self, host: SessionHost, state: SessionState) -> None:
        self._host = host
        self._state = state
        self._turn: AsyncTurn | None = None  # the latest one
        self._pending: AsyncTurn | None = None
        self._file: SessionFile | None = None  # where it was saved last
        self._writing = threading.Lock()  # turns write in threads, and what is written last must be the newest

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def settings(self) -> SessionSettings:
        """How turns are run, unless a send says otherwise."""
        return self._state.settings

    @settings.setter
    def settings(self, settings: SessionSettings) -> None:
        self._state.change_settings(settings)

    @property
    def history(self) -> tuple[bytes, ...]:
        """The items of the conversation so far, each as JSON bytes."""
        return self._state.history.items

    @property
    def meters(self) -> SessionMeters:
        """What was sent and received, and how often the session had to recover."""
        return self._state.meters

    @property
    def busy(self) -> bool:
        """Whether a turn runs."""
        return self._state.busy

    @property
    def pending_turn(self) -> AsyncTurn | None:
        """The turn that had not ended when the session was saved, if it was loaded from a file and there was one."""
        return self._pending

    def send(self, new: InputItems, **changes: Any) -> AsyncTurn:  # noqa: ANN401 - any member of a create
        """Return the next turn: a text, an item, a list of items, or the JSON of one of these.

        `changes` are settings for this turn only: `instructions`, `tools`, `model`, or any other member of a create.

        Raises:
            SessionBusyError: a turn of this session runs.
            ValueError: the input or the changes are wrong.
        """
        return self._new_turn(read_items(new), changes)

    async def warm_up(self) -> None:
        """Let the server prepare for the next turn, where it offers that; otherwise do nothing.

        Raises:
            ClientError: as any turn.
        """
        state, links = self._state, self._host.links
        if state.settings.transport == "http" or links.only_http:
            return
        try:
            server = await links.websocket.connect(lane=state.lane)
        except TransportFault:
            return  # the next turn meets it too, and knows what to do
        if "warm_up" in server.capabilities.extensions:
            await self._new_turn((), {}, generate=False).response()

    def fork(self) -> AsyncSession:
        """Return another session that begins with this history, and can run at the same time."""
        return AsyncSession(self._host, self._state.fork(self._host.next_lane()))

    def replace_history(self, items: InputItems) -> None:
        """Put other items in place of the history; the next turn sends them whole.

        Raises:
            SessionBusyError: a turn of this session runs.
        """
        self._state.replace(read_items(items))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the session to a file, and a turn that has not ended with it.

        It costs what is new since the last time. From then on the session is also saved before a turn is sent, so that
        a later process can tell what became of it.

        Raises:
            SessionFileError: the file cannot be written. The session goes on as if it had not been asked to.
        """
        target = str(Path(path).absolute())  # a program may change its folder
        self._write_to(target)
        self._state.path = target

    def go_on_with(self, saved: SavedTurn) -> None:
        """Take up a turn that was saved: it becomes the pending one."""
        self._pending = self._run(self._state.restore(saved))

    def release(self) -> None:
        """Free the session's place on its connection. A session that is used again takes another one."""
        for transport in (self._host.links.http, self._host.links.websocket):
            transport.release(self._state.lane)

    async def aclose(self) -> None:
        """Stop the turn that runs, if there is one, and free the session's place on its connection."""
        if self._turn is not None:
            await self._turn.aclose()
        self.release()

    # --- private -----------------------------------------------------------------------------------------------------

    def _new_turn(self, items: Sequence[bytes], changes: dict[str, Any], *, generate: bool = True) -> AsyncTurn:
        key = secrets.token_hex(_KEY_BYTES)
        turn = self._state.new_turn(items, key=key, changes=changes, generate=generate)
        self._pending = None
        return self._run(turn)

    def _run(self, turn: TurnInput) -> AsyncTurn:
        hooks = TurnHooks(self._host.recovered, self._write)
        self._turn = AsyncTurn(self._state, self._host.links, turn, hooks)
        return self._turn

    def _write(self) -> None:
        path = self._state.path
        assert path is not None, "a session that is written has a path"
        self._write_to(path)

    def _write_to(self, path: str) -> None:
        with self._writing:
            file = self._file
            if file is None or file.path != path:
                file = SessionFile(path, self._host.base_url)
            file.write(self._state.record(now=time.monotonic(), unix_now=time.time()))
            self._file = file


def new_session(host: SessionHost, settings: SessionSettings, history: LocalHistory) -> AsyncSession:
    """Return a session that begins with a history.

    Raises:
        ValueError: the settings cannot work together.
    """
    return AsyncSession(host, SessionState(settings, lane=host.next_lane(), history=history))


def saved_session(host: SessionHost, path: str) -> AsyncSession:
    """Return the session that a file holds.

    Raises:
        SessionFileError: the file cannot be used.
    """
    record = read_journal(read_session(path), host.base_url)
    try:
        state = SessionState(
            record.settings, lane=host.next_lane(), history=record.history, continuation=record.continuation
        )
        state.path = str(Path(path).absolute())
        session = AsyncSession(host, state)
        if record.turn is not None:
            session.go_on_with(record.turn)
    except (TypeError, ValueError):  # settings that `save` does not write
        raise damaged_file() from None
    return session
