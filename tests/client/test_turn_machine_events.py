"""What one turn makes of the events that come: a test writes them, and no server is played."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from segue.client.capabilities import PLAIN_SERVER, ServerCapabilities
from segue.client.create_request import CreateOptions
from segue.client.errors import (
    OutcomeUnknownError,
    ResponseFailedError,
)
from segue.client.recovery import TurnFault
from segue.client.stream_events import (
    UnknownEvent,
)
from segue.client.transports.interface import Connected
from segue.client.turn_effects import (
    Connect,
    DeliveredCreate,
    Emit,
    Finish,
    GiveUp,
    Moment,
    RecoveryStep,
    Retrieve,
    SendCreate,
    SendResume,
    SleepFor,
)
from segue.protocol.codec import encode
from segue.protocol.items import user_message
from segue.protocol.requests import LeanForm
from tests.client.conversation import Conversation
from tests.client.played_server import FULL, RESUME_S, Mishap, PlayedServer, Player


class Fed:
    """A turn whose events a test writes."""

    def __init__(self, **switches: Any) -> None:  # noqa: ANN401 - settings, whichever
        capabilities = switches.pop("capabilities", PLAIN_SERVER)
        self.machine = Conversation(Player(PlayedServer()), **switches).machine("hi")
        self.machine.start(Moment(0.0))
        (create,) = self.machine.connected(Connected(1, capabilities), Moment(0.0))
        assert isinstance(create, SendCreate)
        self.create = create

    def feed(self, *events: dict[str, Any]) -> list[Any]:
        found: list[Any] = []
        for event in events:
            found += self.machine.received(encode(event), Moment(0.0))
        return found

    def fail(self, **facts: Any) -> list[Any]:  # noqa: ANN401 - the facts of a fault
        return list(self.machine.failed(TurnFault(**({"transport": "websocket"} | facts)), Moment(0.0)))


MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
CREATED = {"type": "response.created", "sequence_number": 0, "response": {"id": "r", "status": "in_progress"}}


def done(index: int, item: dict[str, Any], number: int) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": index, "item": item, "sequence_number": number}


def ended(status: str = "completed", *, number: int = 9, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any members
    whole = {"id": "r", "object": "response", "status": status, **more}
    return {"type": f"response.{status}", "sequence_number": number, "response": whole}


def test_a_lean_stream_is_filled_from_the_items_that_came() -> None:
    turn = Fed()
    *_, shown, finish = turn.feed(CREATED, done(1, CALL, 5), done(0, MESSAGE, 4), ended(output=[]))
    assert finish.response.output == (encode(MESSAGE), encode(CALL))
    assert msgspec.json.decode(finish.response.raw)["output"] == [MESSAGE, CALL]
    assert msgspec.json.decode(shown.event.raw)["response"]["output"] == [MESSAGE, CALL]
    assert finish.items == (user_message("hi"), encode(MESSAGE), encode(CALL))
    assert [call.name for call in finish.response.function_calls] == ["f"]


def test_an_incomplete_answer_is_in_the_history_and_does_not_say_completed() -> None:
    told: dict[str, Any] = {"incomplete_details": {"reason": "max_output_tokens"}, "usage": {"input_tokens": 1}}
    for event in (
        ended("incomplete", output=[MESSAGE], **told),
        ended() | {"response": ended("incomplete")["response"]},
    ):
        finish = Fed().feed(CREATED, event)[-1]
        assert finish.response.status == "incomplete"
    finish = Fed().feed(CREATED, ended("incomplete", output=[MESSAGE], **told))[-1]
    assert (finish.response.incomplete_reason, finish.response.usage) == ("max_output_tokens", {"input_tokens": 1})


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_response_that_failed_is_shown_and_raised(status: str) -> None:
    shown, end = Fed().feed(CREATED, ended(status, error={"code": "server_error", "message": "no\nluck"}))[1:]
    assert shown.event == UnknownEvent(raw=shown.event.raw, sequence_number=9, type=f"response.{status}")
    assert isinstance(end.error, ResponseFailedError)
    assert (end.error.code, end.error.message, end.error.response_id) == ("server_error", "no luck", "r")
    conflicting = Fed().feed(CREATED, ended() | {"response": ended("failed")["response"]})[-1]
    assert isinstance(conflicting.error, ResponseFailedError)


def test_an_item_that_is_left_open_is_no_complete_answer() -> None:
    added = {"type": "response.output_item.added", "output_index": 0, "item": MESSAGE, "sequence_number": 1}
    end = Fed().feed(CREATED, added, ended())[-1]
    assert isinstance(end.error, OutcomeUnknownError)
    assert isinstance(Fed().feed(CREATED, added, ended(output=[MESSAGE]))[-1], Finish)


def test_another_response_in_mid_stream_is_refused() -> None:
    other = CREATED | {"response": {"id": "s"}}
    for event in (other, ended() | {"response": {"id": "s", "status": "completed"}}):
        end = Fed().feed(CREATED, event)[-1]
        assert isinstance(end.error, OutcomeUnknownError)
        assert end.error.response_id == "r"


def test_nothing_is_shown_after_the_end() -> None:
    turn = Fed()
    turn.feed(CREATED, ended(output=[]))
    assert turn.feed(ended(output=[MESSAGE], number=10)) == []
    assert turn.fail(kind="connection_lost") == []


@pytest.mark.parametrize("data", [b"", b"[]", b"<html>", b'{"a":1}', b'{"type":1}', b'{"type":"response.completed"}'])
def test_what_is_no_event_ends_the_turn(data: bytes) -> None:
    *_, end = Fed().machine.received(data, Moment(0.0))
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)


def test_json_in_place_of_a_stream_is_the_whole_stream() -> None:
    turn = Fed(transport="http")
    effects = turn.feed({"id": "r", "object": "response", "status": "completed", "output": [MESSAGE, CALL]})
    kinds = [msgspec.json.decode(effect.event.raw)["type"] for effect in effects[:-1]]
    assert kinds == [
        "response.created",
        "response.output_text.delta",
        "response.output_item.done",
        "response.function_call_arguments.delta",
        "response.output_item.done",
        "response.completed",
    ]
    assert [effect.event.sequence_number for effect in effects[:-1]] == [0, 1, 2, 3, 4, 5]
    assert isinstance(effects[-1], Finish)
    running = Fed(transport="http").feed({"id": "r", "object": "response", "status": "in_progress"})[-1]
    assert isinstance(running.error, OutcomeUnknownError)
    failed = Fed(transport="http").feed({"id": "r", "object": "response", "status": "failed"})
    assert len(failed) == 1
    assert isinstance(failed[0].error, ResponseFailedError)


def test_events_without_numbers_are_shown_and_never_asked_for_again() -> None:
    """Where events cannot be told apart, a stream that came twice could not be made one."""
    capabilities = PlayedServer(extensions=FULL).capabilities()
    for number in (None, 0):
        turn = Fed(capabilities=capabilities)
        delta = {"type": "response.output_text.delta", "delta": "a", "sequence_number": number}
        assert len(turn.feed(CREATED, delta, delta)) == 3
        assert isinstance(turn.fail(kind="connection_lost")[-1], GiveUp)


def test_a_retrieved_response_that_does_not_go_on_as_shown_is_refused() -> None:
    turn = Fed(store=True)
    delta = {"type": "response.output_text.delta", "delta": "bye", "output_index": 0, "sequence_number": 1}
    turn.feed(CREATED, delta)
    assert isinstance(turn.fail(kind="connection_lost")[-1], SleepFor)
    assert turn.machine.woken(Moment(1.0)) == (Retrieve("r"),)
    whole = encode(ended(output=[MESSAGE])["response"])
    (end,) = turn.machine.retrieved(whole, Moment(1.0))
    assert isinstance(end, GiveUp)


def retrieving(**switches: Any) -> Fed:  # noqa: ANN401 - settings, whichever
    turn = Fed(store=True, **switches)
    turn.feed(CREATED)
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(1.0))
    return turn


def test_a_stored_response_that_still_runs_is_looked_at_again_until_the_turn_has_no_time() -> None:
    turn = retrieving(turn_timeout_s=100.0)
    now, looks = 1.0, 0
    running = encode({"id": "r", "object": "response", "status": "in_progress"})
    while isinstance(effect := turn.machine.retrieved(running, Moment(now))[-1], SleepFor):
        now, looks = now + effect.seconds, looks + 1
        assert turn.machine.woken(Moment(now)) == (Retrieve("r"),)
    assert looks > 10
    assert isinstance(effect, GiveUp)


def test_a_stored_response_that_failed_or_is_not_there() -> None:
    failed = retrieving().machine.retrieved(encode(ended("failed")["response"]), Moment(1.0))[-1]
    assert isinstance(failed, GiveUp)
    assert isinstance(failed.error, ResponseFailedError)
    for document in (b"<html>", encode({"id": "other", "object": "response", "status": "completed"})):
        lost = retrieving().machine.retrieved(document, Moment(1.0))[-1]
        assert isinstance(lost, GiveUp)
        assert isinstance(lost.error, OutcomeUnknownError)
    gone = retrieving().fail(kind="refused", transport="http", status=404)[-1]
    assert isinstance(gone.error, OutcomeUnknownError)
    assert isinstance(retrieving().fail(kind="connect_failed", transport="http")[-1], SleepFor)


def test_a_resume_that_is_refused_is_not_followed_by_a_repeat() -> None:
    turn = Fed(capabilities=PlayedServer(extensions=FULL).capabilities())
    turn.feed(CREATED)
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(1.0))
    *_, resume = turn.machine.connected(Connected(2, PlayedServer(extensions=FULL).capabilities()), Moment(1.0))
    assert resume == SendResume(kind="websocket", response_id="r", starting_after=0, connection=2, lean=False)
    *_, end = turn.fail(kind="refused", status=410, code="response_events_gone")
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)


def resumed(*shown: dict[str, Any]) -> Fed:
    """A turn that has shown these events, and reads the rest of its stream over another connection."""
    offered = PlayedServer(extensions=FULL).capabilities()
    turn = Fed(capabilities=offered)
    turn.feed(CREATED, *shown)
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(1.0))
    *_, resume = turn.machine.connected(Connected(2, offered), Moment(1.0))
    assert isinstance(resume, SendResume)
    return turn


def piece(text: str, number: int) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text, "output_index": 0, "sequence_number": number}


@pytest.mark.parametrize("seen", ["", "hel"])
def test_what_a_resumed_stream_has_left_out_of_a_text_is_shown_before_its_item(seen: str) -> None:
    turn = resumed(piece(seen, 4)) if seen else resumed()
    rest, item = turn.feed(done(0, MESSAGE, 9))
    assert (rest.event.delta, item.event.sequence_number) == ("hello"[len(seen) :], 9)
    assert isinstance(turn.feed(ended(number=10, output=[]))[-1], Finish)


def test_a_text_with_a_hole_in_it_is_not_taken_for_whole() -> None:
    (end,) = resumed(piece("h", 4)).feed(piece("lo", 8), done(0, MESSAGE, 9))[-1:]
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)


def test_without_a_resume_a_server_may_word_its_item_as_it_likes() -> None:
    """Some trim what they have streamed, and calls need not be streamed at all."""
    turn = Fed()
    events = turn.feed(
        CREATED, piece("hello \n", 4), done(0, MESSAGE, 9), done(1, CALL, 10), ended(number=11, output=[])
    )
    assert [type(one) for one in events] == [Emit] * 5 + [Finish]
    assert len(resumed().feed(done(0, CALL, 9))) == 1


def test_a_resume_that_must_wait_waits() -> None:
    turn = Fed(capabilities=PlayedServer(extensions=FULL).capabilities())
    turn.feed(CREATED)
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(1.0))
    turn.machine.connected(Connected(2, PlayedServer(extensions=FULL).capabilities()), Moment(1.0))
    *_, wait = turn.fail(kind="refused", status=503, retry_after_s=3.0)
    assert wait == SleepFor(3.0)
    assert turn.machine.woken(Moment(4.0)) == (Connect(kind="websocket", fresh=True),)


def test_a_field_that_was_not_asked_for_is_left_out() -> None:
    turn = Fed()
    step, wait = turn.fail(kind="refused", status=400, param="include")
    assert isinstance(step, RecoveryStep)
    assert wait == Connect(kind="websocket")
    (create,) = turn.machine.connected(Connected(1, PLAIN_SERVER), Moment(0.0))
    assert isinstance(create, SendCreate)
    assert b"include" not in create.body


def test_a_warm_up_takes_no_key() -> None:
    capabilities = PlayedServer(extensions=FULL).capabilities()
    machine = Conversation(Player(PlayedServer())).machine("hi", generate=False)
    machine.start(Moment(0.0))
    (create,) = machine.connected(Connected(1, capabilities), Moment(0.0))
    assert isinstance(create, SendCreate)
    assert msgspec.json.decode(create.body)["generate"] is False
    assert b"segue" not in create.body


def test_an_echo_that_says_that_nothing_was_stored_is_believed() -> None:
    for echo, stored in ((True, True), (None, True), (False, False)):
        finish = Fed(store=True).feed(CREATED, ended(output=[], store=echo))[-1]
        assert finish.continuation.stored is stored


def test_an_answer_beyond_all_bounds_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.client.shown_stream.MOST_OUTPUT_BYTES", 100)
    delta = {"type": "response.output_text.delta", "delta": "x" * 60}
    end = Fed().feed(CREATED, delta | {"sequence_number": 1}, delta | {"sequence_number": 2})[-1]
    assert isinstance(end.error, OutcomeUnknownError)


def test_every_effect_that_is_shown_is_an_event() -> None:
    turn = Fed()
    assert all(isinstance(effect, Emit) for effect in turn.feed(CREATED, done(0, MESSAGE, 3)))
    assert turn.machine.progress == "output"
    assert turn.machine.response_id == "r"
    assert turn.machine.remaining_s(5.0) == float("inf")
    assert set(get_args(Mishap)) >= {int}
    assert RESUME_S > 0


def test_a_key_is_not_used_where_the_server_does_not_say_which_life_it_is_in() -> None:
    for epoch, used in ((None, False), ("e", True)):
        offered = ServerCapabilities(extensions=FULL, epoch=epoch, resume_s=60.0)
        machine = Conversation(Player(PlayedServer())).machine("hi")
        machine.start(Moment(0.0))
        (create,) = machine.connected(Connected(1, offered), Moment(0.0))
        assert isinstance(create, SendCreate)
        assert (b"idempotency_key" in create.body, b"resume" in create.body) == (used, used)


DELTA = {"type": "response.output_text.delta", "delta": "hel", "output_index": 0, "sequence_number": 3}


def keyed(*extensions: str) -> ServerCapabilities:
    return ServerCapabilities(extensions=frozenset({"idempotency", *extensions}), epoch="e", resume_s=60.0)


def test_a_lean_stream_is_not_repeated_once_it_has_shown_text() -> None:
    """Its deltas may be joined in other places the next time, so what was shown could not be left out."""
    for offered in (("lean",), ("lean", "compact")):
        for events, recovers in (((CREATED,), True), ((CREATED, DELTA), False)):
            turn = Fed(capabilities=keyed(*offered))
            turn.feed(*events)
            assert isinstance(turn.fail(kind="connection_lost")[-1], SleepFor) is recovers
    whole = Fed(capabilities=keyed())
    whole.feed(CREATED, DELTA)
    assert isinstance(whole.fail(kind="connection_lost")[-1], SleepFor)


@pytest.mark.parametrize(
    ("lean", "offered", "asked"),
    [
        (True, ("lean", "compact"), "compact"),
        (True, ("lean",), True),
        (True, ("compact",), False),
        (False, ("lean", "compact"), False),
    ],
)
def test_a_stream_is_as_lean_as_its_server_offers(lean: bool, offered: tuple[str, ...], asked: LeanForm) -> None:
    """Unless its session wants it whole; and the rest of it is asked for in the same form."""
    turn = Fed(capabilities=ServerCapabilities(extensions=frozenset(offered)), lean=lean)
    body = msgspec.json.decode(turn.create.body)
    assert body.get("segue", {}).get("lean", False) == asked


def test_what_a_repeat_sends_again_in_other_bytes_is_not_shown_again() -> None:
    turn = Fed(capabilities=keyed())
    turn.feed(CREATED, DELTA)
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(1.0))
    *_, create = turn.machine.connected(Connected(2, keyed()), Moment(1.0))
    assert isinstance(create, SendCreate)
    again = turn.feed(CREATED | {"padding": "x"}, DELTA | {"obfuscation": "y"}, DELTA | {"sequence_number": 4})
    assert [effect.event.sequence_number for effect in again] == [4]


def test_a_repeat_that_nobody_answered_does_not_prolong_the_life_of_its_key() -> None:
    """The server has had no reader since the first connection broke, whatever was sent into the void after that."""
    turn = Fed(capabilities=keyed())
    now = 0.0
    for failed_at, asked_at in ((0.0, 1.0), (40.0, 47.0)):
        fault = TurnFault(kind="connection_lost", transport="websocket", silent_s=0.0)
        assert isinstance(turn.machine.failed(fault, Moment(failed_at))[-1], SleepFor)
        turn.machine.woken(Moment(asked_at))
        assert isinstance(turn.machine.connected(Connected(2, keyed()), Moment(asked_at))[-1], SendCreate)
        now = asked_at
    (*_, end) = turn.machine.failed(TurnFault(kind="connection_lost", transport="websocket"), Moment(now + 3.0))
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)


def test_a_repeat_that_was_answered_does() -> None:
    turn = Fed(capabilities=keyed())
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(40.0))
    turn.machine.connected(Connected(2, keyed()), Moment(40.0))
    turn.machine.received(encode(CREATED), Moment(41.0))
    fault = TurnFault(kind="connection_lost", transport="websocket", silent_s=2.0)
    assert isinstance(turn.machine.failed(fault, Moment(70.0))[-1], SleepFor)
    turn.machine.woken(Moment(71.0))
    assert isinstance(turn.machine.connected(Connected(3, keyed()), Moment(110.0))[-1], SendCreate)


def lost_at(turn: Fed, moment: Moment) -> bool:
    """Lose the connection, come back at this moment, and return whether the create is repeated."""
    turn.fail(kind="connection_lost")
    turn.machine.woken(Moment(1.0))
    return isinstance(turn.machine.connected(Connected(2, keyed()), moment)[-1], SendCreate)


def test_a_machine_that_slept_does_not_rely_on_its_key() -> None:
    """Its monotonic clock stood still, and the server's did not. A time of day that was set back says nothing."""
    for now, unix, repeats in ((2.0, 2.0, True), (2.0, 600.0, False), (600.0, 2.0, False), (2.0, -600.0, True)):
        assert lost_at(Fed(capabilities=keyed()), Moment(now, unix=unix)) is repeats


def test_a_turn_of_an_earlier_process_is_as_old_as_its_last_sign_of_life() -> None:
    """Whenever it is taken up after it was loaded."""
    delivered = DeliveredCreate(options=CreateOptions(idempotency_key="key-1"), epoch="e", resume_s=60.0, silent_s=1.0)
    for alive_at, unix, repeats in ((100.0, 110.0, True), (100.0, 200.0, False), (100.0, 99.0, False)):
        machine = Conversation(Player(PlayedServer())).machine("hi", delivered=delivered, alive_at=alive_at)
        effects = machine.start(Moment(5.0, unix=unix))
        if isinstance(effects[-1], GiveUp):
            assert not repeats
            continue
        machine.woken(Moment(5.2, unix=unix))
        again = machine.connected(Connected(1, keyed()), Moment(5.5, unix=unix))
        assert isinstance(again[-1], SendCreate) is repeats


def test_a_last_sign_of_life_is_dated_before_a_sleep_not_after_it() -> None:
    """How long a connection was silent is told by the clock that stands still while the machine sleeps."""
    for unix, repeats in ((100.0, True), (700.0, False)):
        turn = Fed(capabilities=keyed())
        fault = TurnFault(kind="connection_lost", transport="websocket", silent_s=1.0)
        turn.machine.failed(fault, Moment(100.0, unix=unix))
        if turn.machine.ended:
            assert not repeats
            continue
        turn.machine.woken(Moment(101.0, unix=unix + 1.0))
        again = turn.machine.connected(Connected(2, keyed()), Moment(102.0, unix=unix + 2.0))
        assert isinstance(again[-1], SendCreate) is repeats
