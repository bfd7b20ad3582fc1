"""What a session knows between and during its turns, without any I/O.

A session and its turns share it: the session reads it, a turn changes it when it begins and ends. Not here: how a turn
runs (`turn`), and how the state gets to a file (`session_journal`, `session_file`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from segue.client.continuation import Continuation
from segue.client.create_request import StaticMembers, encode_static
from segue.client.errors import SessionBusyError
from segue.client.local_history import EMPTY_HISTORY, LocalHistory
from segue.client.meters import SessionMeters
from segue.client.settings import SessionSettings, check_switches
from segue.client.turn_effects import DeliveredCreate, Finish, Moment, TurnInput
from segue.client.turn_machine import TurnMachine
from segue.protocol.items import Item

#: Arguments of a send that are settings by name; every other one is a field of the create.
_NAMED = frozenset(SessionSettings.__struct_fields__) - {"fields"}


def settings_with(settings: SessionSettings, changes: dict[str, Any]) -> SessionSettings:
    """Return settings with changes: those that are not settings by name are fields of the create.

    Raises:
        ValueError: the switches cannot work together.
    """
    named = {name: value for name, value in changes.items() if name in _NAMED}
    if "tools" in named:
        named["tools"] = tuple(named["tools"])
    fields = {name: value for name, value in changes.items() if name not in _NAMED}
    if fields:
        named["fields"] = settings.fields | fields
    changed = msgspec.structs.replace(settings, **named)
    if (problem := check_switches(changed)) is not None:
        raise ValueError(problem)
    return changed


class SavedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that had not ended when its session was saved. `alive_at` is when it last showed life, in unix seconds."""

    items: tuple[Item, ...]
    key: str
    settings: SessionSettings
    delivered: DeliveredCreate | None = None
    alive_at: float = 0.0

    def is_same_as(self, other: SavedTurn) -> bool:
        """Return whether both are one turn, however far it has come."""
        return self.key == other.key and self.items == other.items and self.settings == other.settings


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is saved."""

    settings: SessionSettings
    history: LocalHistory
    continuation: Continuation | None = None
    turn: SavedTurn | None = None


class SessionState:
    """The state of one session. At most one of its turns runs."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        lane: int,
        history: LocalHistory = EMPTY_HISTORY,
        continuation: Continuation | None = None,
    ) -> None:
        self.settings = settings_with(settings, {})
        self.lane = lane
        self.history = history
        self.continuation = continuation
        self.websocket_failures = 0
        self._own_field = True  # until the server has refused the field that the client adds by itself
        self.meters = SessionMeters()
        #: Where the session is written before a create leaves.
        self.path: str | None = None
        self._connection: int | None = None
        self._static = encode_static(self.settings)
        self._other: tuple[SessionSettings, StaticMembers] | None = None  # of the last send that had its own settings
        self._latest: TurnInput | None = None  # the turn that was made last, until it has ended
        self._running: TurnMachine | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn runs."""
        return self._running is not None

    def new_turn(
        self, items: Sequence[Item], *, key: str, changes: dict[str, Any] | None = None, generate: bool = True
    ) -> TurnInput:
        """Return the next turn, which takes the place of one that has not begun.

        Raises:
            SessionBusyError: a turn runs.
            ValueError: the settings cannot work together.
        """
        self._refuse_if_busy()
        settings = settings_with(self.settings, changes) if changes else self.settings
        turn = TurnInput(
            static=self._encode(settings), settings=settings, history=self.history, items=tuple(items), key=key,
            continuation=self.continuation, generate=generate, own_field=self._own_field,
        )  # fmt: skip
        self._latest = turn
        return turn

    def fork(self, lane: int) -> SessionState:
        """Return the state of another session that begins with this history."""
        other = SessionState(self.settings, lane=lane, history=self.history, continuation=self.continuation)
        other._own_field = self._own_field
        return other

    def change_settings(self, settings: SessionSettings) -> None:
        """Run the turns to come with other settings.

        Raises:
            ValueError: the settings cannot work together.
        """
        changed = settings_with(settings, {})
        if changed != self.settings:
            self._static, self.settings = encode_static(changed), changed

    def begin(self, turn: TurnInput, machine: TurnMachine) -> None:
        """Note that a turn begins.

        Raises:
            SessionBusyError: another one runs, or has taken its place.
        """
        self._refuse_if_busy()
        if self._latest is not turn:
            raise SessionBusyError(
                "Nothing was sent: another turn of this session was made after this one.",
                "Use the turn that `send` returned last.",
            )
        self._running = machine

    def finish(self, finish: Finish) -> None:
        """Note that the running turn has ended well."""
        self.history = self.history.append(finish.items)
        self.continuation = finish.continuation
        self.meters = self.meters.plus(turns=1)
        self._own_field = self._running is None or self._running.own_field
        self.leave()

    def leave(self) -> None:
        """Note that the running turn has ended, whatever became of it."""
        if self._running is not None:
            self.websocket_failures = self._running.websocket_failures
        self._running = self._latest = None

    def discard(self, turn: TurnInput) -> None:
        """Forget a turn that has not begun."""
        if self._latest is turn and self._running is None:
            self._latest = None

    def note_connection(self, number: int) -> None:
        """Note on which WebSocket the session goes on; HTTP has the number 0."""
        if number and number != self._connection:
            self.meters = self.meters.plus(reconnects=int(self._connection is not None))
            self._connection = number

    def replace(self, items: Sequence[Item]) -> None:
        """Put another history in place of this one: the next turn sends it whole.

        Raises:
            SessionBusyError: a turn runs.
        """
        self._refuse_if_busy()
        self.history = EMPTY_HISTORY.append(items)
        self.continuation = self._latest = None

    def restore(self, saved: SavedTurn) -> TurnInput:
        """Return a turn that was saved, as the next one.

        Raises:
            ValueError: its settings cannot work together.
        """
        settings = settings_with(saved.settings, {})
        turn = TurnInput(
            static=self._encode(settings), settings=settings, history=self.history, items=saved.items,
            key=saved.key, continuation=self.continuation, delivered=saved.delivered, alive_at=saved.alive_at,
        )  # fmt: skip
        self._latest = turn
        return turn

    def record(self, *, now: float, unix_now: float) -> SessionRecord:
        """Return what is saved; `now` is of the clock of turns. An unstored response cannot be continued later."""
        continuation = self.continuation
        if continuation is not None and not continuation.stored:
            continuation = None
        return SessionRecord(
            settings=self.settings,
            history=self.history,
            continuation=continuation,
            turn=self._save_turn(now, unix_now),
        )

    def _save_turn(self, now: float, unix_now: float) -> SavedTurn | None:
        turn = self._latest
        if turn is None or not turn.generate:
            return None
        delivered, alive_at = turn.delivered, turn.alive_at or 0.0
        if self._running is not None:
            delivered = self._running.delivered(Moment(now, unix=unix_now))
            alive_at = 0.0 if delivered is None else unix_now - delivered.silent_s
        return SavedTurn(items=turn.items, key=turn.key, settings=turn.settings, delivered=delivered, alive_at=alive_at)

    def _encode(self, settings: SessionSettings) -> StaticMembers:
        if settings == self.settings:
            return self._static
        if self._other is None or self._other[0] != settings:
            self._other = settings, encode_static(settings)
        return self._other[1]

    def _refuse_if_busy(self) -> None:
        if self._running is not None:
            raise SessionBusyError(
                "Nothing was sent: a turn of this session runs, and a session runs one at a time.",
                "Wait for its response, cancel it, or fork the session.",
            )
