"""What a session does between turns, without I/O: for tests of the turn machine.

Not here: how a turn is played (`played_server`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from segue.client.continuation import Continuation
from segue.client.create_request import encode_static
from segue.client.local_history import EMPTY_HISTORY, LocalHistory
from segue.client.settings import SessionSettings, TransportKind
from segue.client.turn_effects import (
    Finish,
    TurnInput,
)
from segue.client.turn_machine import TurnMachine
from segue.protocol.items import user_message
from tests.client.played_server import Played, Player, text_of


class Conversation:
    """What a session does between turns: it keeps the history, the continuation and the count of failures."""

    def __init__(self, player: Player, **switches: Any) -> None:  # noqa: ANN401 - settings, whichever
        self.player = player
        self.settings = SessionSettings(model="m", **switches)
        self.history: LocalHistory = EMPTY_HISTORY
        self.continuation: Continuation | None = None
        self.failures = 0
        self.kind: TransportKind = "http" if self.settings.transport == "http" else "websocket"
        self.turns = 0

    def machine(self, text: str, **more: Any) -> TurnMachine:  # noqa: ANN401 - members of the request
        self.turns += 1
        request = TurnInput(
            static=encode_static(self.settings),
            settings=self.settings,
            history=self.history,
            items=(user_message(text),),
            key=f"key-{self.turns}",
            continuation=self.continuation,
            **more,
        )
        return TurnMachine(request, kind=self.kind, websocket_failures=self.failures)

    def send(self, text: str) -> Played:
        machine = self.machine(text)
        played = self.player.play(machine)
        self.failures = machine.websocket_failures
        if played.switched:
            self.kind = "http"
        if isinstance(played.end, Finish):
            self.history = self.history.append(played.end.items)
            self.continuation = played.end.continuation
        return played

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text_of(msgspec.json.decode(item)) for item in self.history.items)
