"""What a turn does about servers and proxies that send events twice, too many, in the wrong place or of another turn.

The caller sees one consistent stream, or one honest error; an answer of another turn is never taken for this one's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pytest

from segue.client.capabilities import PLAIN_SERVER
from segue.client.continuation import Continuation
from segue.client.create_request import encode_static
from segue.client.errors import ClientError, OutcomeUnknownError
from segue.client.local_history import EMPTY_HISTORY, read_items
from segue.client.settings import SessionSettings
from segue.client.transports.interface import Connected
from segue.client.turn_effects import Emit, Finish, GiveUp, Moment, TurnEffect, TurnInput
from segue.client.turn_machine import TurnMachine
from segue.testing.response_events import Json, ResponseIdentity, called, response_events, said

NOW = Moment(0.0)
SETTINGS = SessionSettings(model="m", transport="websocket")
BEFORE = Continuation(response_id="resp_before", stored=False, connection=1)


def events_of(response_id: str, *items: Json) -> list[Json]:
    identity = ResponseIdentity(create={"model": "m"}, response_id=response_id, created_at=1)
    return response_events(identity, [{"id": f"{response_id}_{at}", **item} for at, item in enumerate(items)])


ANSWER = events_of("resp_now", said("This is the answer to the question."), called("look", call_id="call_1"))
STALE = events_of("resp_before", said("This is the answer of before."))


class Told:
    """What became of a turn that got these events."""

    def __init__(self, events: Iterable[Json]) -> None:
        request = TurnInput(
            static=encode_static(SETTINGS),
            settings=SETTINGS,
            history=EMPTY_HISTORY.append(read_items("Hello")),
            items=read_items("And?"),
            key="k",
            continuation=BEFORE,
        )
        machine = TurnMachine(request, kind="websocket")
        machine.start(NOW)
        machine.connected(Connected(1, PLAIN_SERVER), NOW)
        self.effects: list[TurnEffect] = []
        for event in events:
            self.effects += machine.received(json.dumps(event).encode(), NOW)
            if machine.ended:
                break

    @property
    def types(self) -> list[str]:
        return [json.loads(effect.event.raw)["type"] for effect in self.effects if isinstance(effect, Emit)]

    @property
    def finished(self) -> Finish:
        (finish,) = [effect for effect in self.effects if isinstance(effect, Finish)]
        assert self.effects[-1] == finish
        return finish

    @property
    def error(self) -> ClientError:
        (given_up,) = [effect for effect in self.effects if isinstance(effect, GiveUp)]
        assert self.effects[-1] == given_up
        return given_up.error


def types_of(events: Sequence[Json]) -> list[str]:
    return [event["type"] for event in events]


def assert_is_the_answer(told: Told) -> None:
    assert told.types == types_of(ANSWER)
    assert told.finished.response.id == "resp_now"
    assert [json.loads(item) for item in told.finished.response.output] == ANSWER[-1]["response"]["output"]
    assert told.finished.continuation.response_id == "resp_now"


def test_a_stream_without_faults() -> None:
    assert_is_the_answer(Told(ANSWER))


def test_a_second_end_of_the_turn_before_is_not_the_end_of_this_one() -> None:
    """A proxy that repeats the last event of a turn may do so when the next create is under way."""
    assert_is_the_answer(Told([STALE[-1], *ANSWER]))


def test_events_of_the_turn_before_are_not_shown_in_this_one() -> None:
    assert_is_the_answer(Told([*STALE[3:], *ANSWER]))


def test_an_end_of_a_response_that_nobody_began_is_no_answer() -> None:
    told = Told([events_of("resp_other", said("Hi."))[-1]])
    assert isinstance(told.error, OutcomeUnknownError)


def test_events_that_come_twice_are_shown_once() -> None:
    assert_is_the_answer(Told([event for event in ANSWER for _ in range(2)]))


def test_a_part_of_the_stream_that_comes_again_is_shown_once() -> None:
    assert_is_the_answer(Told([*ANSWER[:9], *ANSWER[:9], *ANSWER[9:]]))


def test_a_stream_without_numbers_is_shown_as_it_comes() -> None:
    """Equal deltas are no repetition there: nothing tells them apart."""
    bare = [{name: value for name, value in event.items() if name != "sequence_number"} for event in ANSWER]
    bare.insert(5, bare[4])
    told = Told(bare)
    assert told.types == types_of(bare)
    assert told.finished.response.id == "resp_now"


def test_numbers_that_stay_the_same_are_no_repetition() -> None:
    told = Told([{**event, "sequence_number": 0} for event in ANSWER])
    assert_is_the_answer(told)


def test_numbers_that_fall_lose_nothing() -> None:
    told = Told([{**event, "sequence_number": 3 - number} for number, event in enumerate(ANSWER)])
    assert_is_the_answer(told)


@pytest.mark.parametrize("place", [0, 5, -1])
def test_an_event_of_another_response_ends_the_turn(place: int) -> None:
    """Its beginning, or its end, tells: the server mixes up two turns."""
    other = events_of("resp_other", said("Something else."))
    events = [*ANSWER[:6], other[0] if place == 0 else other[-1]]
    error = Told(events).error
    assert isinstance(error, OutcomeUnknownError)
    assert error.response_id == "resp_now"


def test_a_second_beginning_of_the_same_response_is_shown_once() -> None:
    again = {**ANSWER[0], "sequence_number": 2}
    rest = [{**event, "sequence_number": event["sequence_number"] + 1} for event in ANSWER[2:]]
    assert_is_the_answer(Told([*ANSWER[:2], again, *rest]))


def test_a_second_end_is_not_shown() -> None:
    told = Told([*ANSWER, ANSWER[-1], ANSWER[0]])
    assert_is_the_answer(told)


def test_a_lean_end_with_an_item_missing_before_it_is_no_end() -> None:
    """Its output is in the items that came; a hole in them must not pass for the whole."""
    lean_end = {**ANSWER[-1], "response": {**ANSWER[-1]["response"], "output": []}}
    second = [event for event in ANSWER if event.get("output_index") == 1]
    told = Told([ANSWER[0], *second, lean_end])
    assert isinstance(told.error, OutcomeUnknownError)


def test_a_lean_end_with_all_items_is_the_end() -> None:
    lean_end = {**ANSWER[-1], "response": {**ANSWER[-1]["response"], "output": []}}
    assert_is_the_answer(Told([*ANSWER[:-1], lean_end]))


@pytest.mark.parametrize("kind", ["response.output_item.added", "acme.progress"])
def test_a_stream_that_never_ends_has_a_bound(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("segue.client.shown_stream.MOST_STREAM_BYTES", 50_000)
    endless = ({"type": kind, "sequence_number": n, "output_index": n, "item": {"type": "x"}} for n in range(2, 10_000))
    told = Told([*ANSWER[:2], *endless])
    assert isinstance(told.error, OutcomeUnknownError)
    assert len(told.types) < 2_000
