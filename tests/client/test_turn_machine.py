"""A turn is one stream, in the history once, and paid for once, wherever its connection breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.capabilities import PLAIN_SERVER
from segue.client.continuation import Continuation
from segue.client.create_request import encode_static
from segue.client.errors import (
    ConnectionFailedError,
    ContinuationLostError,
    CreateRefusedError,
    OutcomeUnknownError,
    ResponseFailedError,
)
from segue.client.local_history import EMPTY_HISTORY, LocalHistory
from segue.client.recovery import TurnFault
from segue.client.settings import SessionSettings, TransportKind
from segue.client.stream_events import (
    ClientEvent,
    OutputItemDone,
    OutputTextDelta,
    ResponseCreated,
    ResponseFinished,
    UnknownEvent,
)
from segue.client.transports.interface import Connected
from segue.client.turn_effects import (
    Connect,
    Emit,
    Finish,
    GiveUp,
    Moment,
    RecoveryStep,
    Retrieve,
    SendCreate,
    SendResume,
    SleepFor,
    TurnRequest,
)
from segue.client.turn_machine import TurnMachine
from segue.protocol.codec import encode
from segue.protocol.items import user_message
from tests.client.played_server import FULL, RESUME_S, Mishap, Played, PlayedServer, Player, answer_of, text_of
from tests.strategies import examples

HTTP_RULES = {"transport": "http"}


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
        request = TurnRequest(
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


def check_stream(events: Sequence[ClientEvent], context: tuple[str, ...]) -> None:
    """One response, each event once and in order, all of its text, one end."""
    numbers = [event.sequence_number for event in events if event.sequence_number is not None]
    assert numbers == sorted(set(numbers))
    assert "".join(event.delta for event in events if isinstance(event, OutputTextDelta)) == answer_of(context)
    assert len([event for event in events if isinstance(event, OutputItemDone)]) == 1
    ends = [event for event in events if isinstance(event, ResponseFinished)]
    assert ends == [events[-1]]
    assert {event.response_id for event in events if isinstance(event, ResponseCreated)} == {ends[0].response.id}
    assert ends[0].response.output_text == answer_of(context)


def check_turn(talk: Conversation, text: str) -> Played:
    """Play a turn, and check all that holds whatever happens."""
    server, before = talk.player.server, talk.texts
    runs = len(server.runs)
    played = talk.send(text)
    new = server.runs[runs:]
    assert len(new) <= 1, "a turn is run once at most"
    if isinstance(played.end, Finish):
        assert talk.texts == (*before, text, answer_of((*before, text)))
        assert [run.context for run in new] == [(*before, text)], "the model saw the whole history, each item once"
        check_stream(played.events, (*before, text))
        return played
    assert talk.texts == before, "a turn that did not end well leaves the history as it was"
    if played.end.error.safe_to_repeat:
        assert new == [], "what is said to be safe has not run"
    if isinstance(played.end.error, ConnectionFailedError):
        assert played.events == []
    return played


# --- every cut -------------------------------------------------------------------------------------------------------

MISHAPS: tuple[Mishap, ...] = (
    *("fine", "unsent", "swallowed", "restart", "late", "refused", "busy", "page", "ended"),
    *range(14),
)
SWITCHES = [
    {"transport": transport, "store": store, "history": history}
    for transport in ("http", "websocket", "auto")
    for store in (False, True)
    for history in ("auto", "replay", "id")
    if history != "id" or store or transport == "websocket"
]


@pytest.mark.parametrize("extensions", [frozenset(), FULL], ids=["plain", "full"])
@pytest.mark.parametrize("switches", SWITCHES, ids=lambda one: "-".join(map(str, one.values())))
def test_a_cut_at_every_point(switches: dict[str, Any], extensions: frozenset[str]) -> None:
    """One mishap in the second of three turns: wherever it is, all that must hold holds, and the session goes on."""
    for mishap in MISHAPS:
        talk = Conversation(Player(PlayedServer(extensions=extensions), ["fine", mishap]), **switches)
        assert isinstance(check_turn(talk, "one").end, Finish)
        check_turn(talk, "two")
        third = check_turn(talk, "three").end
        if isinstance(third, GiveUp):
            assert switches["history"] == "id"
            assert isinstance(third.error, ContinuationLostError)


def test_a_server_with_keys_and_logs_loses_no_turn_to_a_broken_connection() -> None:
    """Wherever the connection breaks, the turn ends well, on either transport and stored or not."""
    for switches in SWITCHES:
        if switches["history"] == "id" and not switches["store"]:
            continue  # its parent lives on a connection
        for mishap in ("unsent", "swallowed", "busy", "page", "ended", *range(13)):
            talk = Conversation(Player(PlayedServer(extensions=FULL), ["fine", mishap]), **switches)
            check_turn(talk, "one")
            assert isinstance(check_turn(talk, "two").end, Finish), f"{switches} {mishap}"


def test_a_stored_turn_of_a_plain_server_is_retrieved_once_its_id_is_known() -> None:
    for cut in range(1, 12):  # the twelfth event is the end
        talk = Conversation(Player(PlayedServer(), [cut]), store=True)
        played = check_turn(talk, "one")
        assert isinstance(played.end, Finish)
        assert [step.decision.action for step in played.steps] == ["retrieve"]


def test_a_plain_server_s_turn_that_may_have_run_is_not_sent_again() -> None:
    for mishap in ("swallowed", 0, 1, 5, "page", "ended"):
        talk = Conversation(Player(PlayedServer(), [mishap]))
        end = check_turn(talk, "one").end
        assert isinstance(end, GiveUp)
        assert isinstance(end.error, OutcomeUnknownError)
        assert end.error.response_id == (None if mishap in {"swallowed", 0} else "resp_0")
        assert len(talk.player.server.creates) == (0 if mishap == "swallowed" else 1)


def test_another_life_of_the_server_does_not_know_the_key() -> None:
    """The create was taken by a server that is gone, so a repeat could be paid for twice."""
    talk = Conversation(Player(PlayedServer(extensions=FULL), ["restart"]))
    end = check_turn(talk, "one").end
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)


def test_a_key_is_not_relied_on_once_the_server_may_have_dropped_the_turn() -> None:
    """Nobody followed the turn for longer than `resume_s`: its key may be free, and a repeat would run it again."""
    talk = Conversation(Player(PlayedServer(extensions=FULL - {"resume"}), ["late"]))
    assert isinstance(check_turn(talk, "one").end, GiveUp)
    assert len(talk.player.server.creates) == 1


def test_a_server_that_changes_between_the_question_and_the_repeat_refuses_the_repeat() -> None:
    class Moving(PlayedServer):
        asked = 0

        def create(self, body: bytes, connection: int) -> Any:  # noqa: ANN401 - as the method it stands for
            if b'"epoch"' in body:
                self.restart()
            return super().create(body, connection)

    talk = Conversation(Player(Moving(extensions=FULL), [0]), store=True)
    played = check_turn(talk, "one")
    assert isinstance(played.end, GiveUp)
    assert isinstance(played.end.error, OutcomeUnknownError)


_mishaps = st.lists(st.sampled_from(MISHAPS), max_size=12)


@settings(max_examples=examples(1000))
@given(
    switches=st.sampled_from(SWITCHES),
    extensions=st.sampled_from([frozenset(), FULL, FULL - {"resume"}, FULL - {"idempotency"}, FULL - {"epoch"}]),
    mishaps=_mishaps,
    drops=st.sets(st.integers(0, 3)),
    restarts=st.sets(st.integers(0, 3)),
    has_websocket=st.booleans(),
)
def test_whatever_happens_the_history_is_right_and_each_turn_is_paid_for_once(
    switches: dict[str, Any],
    extensions: frozenset[str],
    mishaps: list[Mishap],
    drops: set[int],
    restarts: set[int],
    has_websocket: bool,
) -> None:
    player = Player(PlayedServer(extensions=extensions, has_websocket=has_websocket), mishaps)
    talk = Conversation(player, **switches)
    for number in range(4):
        if number in restarts:
            player.server.restart()
        if number in drops | restarts:
            player.drop()
        check_turn(talk, f"text {number}")


# --- what travels ----------------------------------------------------------------------------------------------------


def test_a_turn_over_a_websocket_sends_only_what_is_new() -> None:
    talk = Conversation(Player(PlayedServer()))
    for text in ("one", "two", "three"):
        talk.send(text)
    assert [len(create["input"]) for create in talk.player.server.creates] == [1, 1, 1]
    assert [create.get("previous_response_id") for create in talk.player.server.creates] == [None, "resp_0", "resp_1"]


def test_after_a_dropped_connection_the_history_is_sent_without_asking_for_what_is_gone() -> None:
    talk = Conversation(Player(PlayedServer()))
    talk.send("one")
    talk.player.drop()
    played = talk.send("two")
    assert played.steps == []
    assert [len(create["input"]) for create in talk.player.server.creates] == [1, 3]


def test_a_server_that_forgot_the_response_gets_the_history_once() -> None:
    server = PlayedServer()
    talk = Conversation(Player(server))
    talk.send("one")
    server.restart()
    played = talk.send("two")
    assert [step.decision.action for step in played.steps] == ["replay"]
    assert [len(create["input"]) for create in server.creates] == [1, 1, 3]


def test_a_plain_server_gets_no_member_of_ours_and_a_gateway_gets_key_and_resume() -> None:
    for extensions in (frozenset[str](), FULL):
        talk = Conversation(Player(PlayedServer(extensions=extensions)))
        talk.send("one")
        wanted = {"idempotency_key": "key-1", "resume": True} if extensions else None
        assert talk.player.server.creates[0].get("segue") == wanted


def test_a_repeat_is_the_same_create_with_the_epoch_that_took_it() -> None:
    talk = Conversation(Player(PlayedServer(extensions=FULL), [0]))
    played = talk.send("one")
    first, again = talk.player.server.creates
    assert again == first | {"segue": first["segue"] | {"epoch": "life-0"}}
    assert [step.decision.action for step in played.steps] == ["ask", "repeat"]
    assert len(talk.player.server.runs) == 1


def test_a_continuation_of_a_dead_connection_is_replayed_under_the_same_key() -> None:
    """The create never arrived, and its parent died with the connection: the server knows neither."""
    talk = Conversation(Player(PlayedServer(extensions=FULL), ["fine", "swallowed"]))
    talk.send("one")
    played = talk.send("two")
    assert [step.decision.action for step in played.steps] == ["ask", "repeat", "replay", "repeat"]
    assert isinstance(played.end, Finish)
    assert [create["segue"]["idempotency_key"] for create in talk.player.server.creates[1:]] == ["key-2", "key-2"]


def test_websockets_that_break_three_times_give_way_to_http() -> None:
    talk = Conversation(Player(PlayedServer(extensions=FULL), [1, 1, 1]))
    played = talk.send("one")
    assert played.switched
    assert isinstance(played.end, Finish)
    assert len(talk.player.server.runs) == 1


def test_a_server_without_websockets_is_used_over_http() -> None:
    talk = Conversation(Player(PlayedServer(has_websocket=False)))
    assert talk.send("one").switched
    assert not talk.send("two").switched
    assert [len(create["input"]) for create in talk.player.server.creates] == [1, 3]
    strict = Conversation(Player(PlayedServer(has_websocket=False)), transport="websocket")
    end = strict.send("one").end
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, CreateRefusedError)
    assert end.error.status == 426


def test_a_turn_without_time_gives_up_rather_than_wait() -> None:
    talk = Conversation(Player(PlayedServer(), ["busy"]), turn_timeout_s=0.5)
    end = talk.send("one").end
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, CreateRefusedError)


def test_attempts_are_counted_anew_after_each_event() -> None:
    """A connection that breaks again and again, but each time brings something, brings all of it in the end."""
    talk = Conversation(Player(PlayedServer(extensions=FULL), [1] * 30), transport="websocket", most_attempts=3)
    assert isinstance(talk.send("one").end, Finish)


def test_a_later_process_finds_out_what_became_of_a_turn() -> None:
    """Before the answer by the key; once the response had begun, by resuming it from its first event."""
    for mishap in (0, 4):
        server = PlayedServer(extensions=FULL)
        killed = Conversation(Player(server)).machine("one")
        player = Player(server, [mishap])
        killed.start(Moment(1000.0))
        (create,) = killed.connected(Connected(1, server.capabilities()), Moment(1000.0))
        assert isinstance(create, SendCreate)
        made = server.create(create.body, 1)
        assert not isinstance(made, TurnFault)
        for data in made.events[:mishap]:
            killed.received(data, Moment(1000.0))
        delivered = killed.delivered(1003.0)
        assert delivered is not None
        assert (delivered.silent_s, delivered.response_id) == (3.0, "resp_0" if mishap else None)
        later = Conversation(player)
        played = player.play(later.machine("one", delivered=delivered))
        assert isinstance(played.end, Finish)
        check_stream(played.events, ("one",))
        assert len(server.runs) == 1


def test_a_later_process_does_not_guess() -> None:
    machine = Conversation(Player(PlayedServer())).machine("one")
    assert machine.delivered(0.0) is None
    machine.start(Moment(0.0))
    machine.connected(Connected(1, PLAIN_SERVER), Moment(0.0))
    later = Conversation(Player(PlayedServer()))
    end = later.player.play(later.machine("one", delivered=machine.delivered(1.0))).end
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)


# --- what comes ------------------------------------------------------------------------------------------------------


class Fed:
    """A turn whose events a test writes."""

    def __init__(self, **switches: Any) -> None:  # noqa: ANN401 - settings, whichever
        capabilities = switches.pop("capabilities", PLAIN_SERVER)
        self.machine = Conversation(Player(PlayedServer()), **switches).machine("hi")
        self.machine.start(Moment(0.0))
        self.machine.connected(Connected(1, capabilities), Moment(0.0))

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


def ended(status: str = "completed", *, number: int = 9, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members
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
