"""The state of a session is right whatever becomes of its turns."""

from __future__ import annotations

import pytest

from segue.client.capabilities import PLAIN_SERVER
from segue.client.continuation import Continuation
from segue.client.errors import SessionBusyError
from segue.client.session_state import SavedTurn, SessionState, settings_with
from segue.client.settings import SessionSettings
from segue.client.stream_events import ClientResponse
from segue.client.transports.interface import Connected
from segue.client.turn_effects import DeliveredCreate, Finish, Moment
from segue.client.turn_machine import TurnMachine

RESPONSE = ClientResponse(id="r", status="completed", output=(b"{}",), raw=b"{}")


def state() -> SessionState:
    return SessionState(SessionSettings(model="m"), lane=1)


def is_busy(one: SessionState) -> bool:
    return one.busy


def test_changes_are_settings_by_name_or_fields_of_the_create() -> None:
    base = SessionSettings(model="m", fields={"top_p": 1})
    changed = settings_with(base, {"model": "n", "tools": [{}], "temperature": 0.5})
    assert changed == SessionSettings(model="n", tools=({},), fields={"top_p": 1, "temperature": 0.5})
    assert settings_with(base, {}) == base


def test_a_turn_that_ends_well_moves_the_history_on_and_another_end_does_not() -> None:
    one = state()
    for finishes in (False, True):
        turn = one.new_turn([b"new"], key="k")
        machine = TurnMachine(turn, kind="websocket", websocket_failures=2)
        one.begin(turn, machine)
        assert is_busy(one)
        if finishes:
            continuation = Continuation(response_id="r", stored=False, connection=1)
            one.finish(Finish(response=RESPONSE, items=(b"new", b"said"), continuation=continuation))
        else:
            one.leave()
        assert not is_busy(one)
        assert one.history.items == ((b"new", b"said") if finishes else ())
        assert one.websocket_failures == 2
    assert one.meters.turns == 1


def test_the_statics_of_a_session_are_encoded_once() -> None:
    one = state()
    first, second = one.new_turn([], key="a"), one.new_turn([], key="b")
    assert first.static is second.static
    changed = [one.new_turn([], key="c", changes={"temperature": 1}) for _ in range(2)]
    assert changed[0].static is changed[1].static is not first.static
    assert one.new_turn([], key="d").static is first.static
    one.change_settings(one.settings)
    assert one.new_turn([], key="e").static is first.static


def test_a_turn_that_was_given_up_before_it_began_is_forgotten() -> None:
    one = state()
    turn = one.new_turn([b"{}"], key="k")
    one.discard(turn)
    assert one.record(now=0.0, unix_now=0.0).turn is None
    with pytest.raises(SessionBusyError):
        one.begin(turn, TurnMachine(turn, kind="http"))
    other = one.new_turn([b"{}"], key="l")
    one.discard(turn)
    one.begin(other, TurnMachine(other, kind="http"))
    one.discard(other)
    assert one.busy


def test_reconnects_are_changes_of_the_connection() -> None:
    one = state()
    for number in (0, 3, 3, 0, 4):
        one.note_connection(number)
    assert one.meters.reconnects == 1


def test_only_what_a_later_process_can_use_is_saved() -> None:
    one = state()
    for stored in (False, True):
        one.continuation = Continuation(response_id="r", stored=stored, connection=1)
        saved = one.record(now=0.0, unix_now=0.0).continuation
        assert saved == (one.continuation if stored else None)
    one.new_turn([], key="k", generate=False)
    assert one.record(now=0.0, unix_now=0.0).turn is None


def test_a_running_turn_is_saved_with_the_time_of_its_last_sign_of_life() -> None:
    one = state()
    turn = one.new_turn([b"{}"], key="k")
    assert one.record(now=5.0, unix_now=100.0).turn == SavedTurn(items=(b"{}",), key="k", settings=one.settings)
    machine = TurnMachine(turn, kind="websocket")
    one.begin(turn, machine)
    machine.start(Moment(5.0, unix=97.0))
    machine.connected(Connected(1, PLAIN_SERVER), Moment(6.0, unix=98.0))
    saved = one.record(now=8.0, unix_now=100.0).turn
    assert saved is not None
    assert saved.alive_at == 98.0
    assert saved.delivered is not None
    again = state()
    assert again.restore(saved).alive_at == 98.0
    assert again.record(now=0.0, unix_now=500.0).turn == saved, "what was loaded and not begun is saved as it was"
    assert DeliveredCreate() != saved.delivered
