"""A turn is one stream, in the history once, and paid for once, wherever its connection breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.capabilities import PLAIN_SERVER
from segue.client.errors import (
    ConnectionFailedError,
    ContinuationLostError,
    CreateRefusedError,
    OutcomeUnknownError,
)
from segue.client.recovery import TurnFault
from segue.client.stream_events import (
    ClientEvent,
    OutputItemDone,
    OutputTextDelta,
    ResponseCreated,
    ResponseFinished,
)
from segue.client.transports.interface import Connected
from segue.client.turn_effects import (
    Finish,
    GiveUp,
    Moment,
    SendCreate,
)
from tests.client.conversation import Conversation
from tests.client.played_server import FULL, Mishap, Played, PlayedServer, Player, answer_of
from tests.strategies import examples


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


@pytest.mark.untraced
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
    played = check_turn(talk, "one")
    end = played.end
    assert isinstance(end, GiveUp)
    assert [step.decision.action for step in played.steps] == ["ask", "give_up"]
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
    known = Conversation(Player(Moving(extensions=FULL - {"resume"}), [2]), store=True)
    played = check_turn(known, "one")
    assert [step.decision.action for step in played.steps] == ["ask", "repeat", "retrieve"]
    assert isinstance(played.end, Finish)


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


def test_turns_that_end_with_broken_websockets_count_together() -> None:
    """At a server without keys each break ends its turn; the next turn after the third uses HTTP."""
    talk = Conversation(Player(PlayedServer(), [1, 1, 1]))
    for _ in range(3):
        assert isinstance(talk.send("one").end, GiveUp)
    played = talk.send("one")
    assert played.switched
    assert isinstance(played.end, Finish)
    strict = Conversation(Player(PlayedServer(), [1, 1, 1]), transport="websocket")
    assert not any(strict.send("one").switched for _ in range(4))


def test_turns_that_cannot_be_mended_count_against_websockets_too() -> None:
    """Each of them ends with an error. The fourth does not try what has broken three times."""
    talk = Conversation(Player(PlayedServer(), [1, 1, 1]))
    for _ in range(3):
        played = talk.send("one")
        assert isinstance(played.end, GiveUp)
        assert not played.switched
    played = talk.send("one")
    assert played.switched
    assert isinstance(played.end, Finish)
    strict = Conversation(Player(PlayedServer(), [1, 1, 1]), transport="websocket")
    assert [strict.send("one").switched for _ in range(4)] == [False] * 4


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
        delivered = killed.delivered(Moment(1003.0))
        assert delivered is not None
        assert (delivered.silent_s, delivered.response_id) == (3.0, "resp_0" if mishap else None)
        later = Conversation(player)
        played = player.play(later.machine("one", delivered=delivered))
        assert isinstance(played.end, Finish)
        check_stream(played.events, ("one",))
        assert len(server.runs) == 1


def test_a_later_process_does_not_guess() -> None:
    machine = Conversation(Player(PlayedServer())).machine("one")
    assert machine.delivered(Moment(0.0)) is None
    machine.start(Moment(0.0))
    machine.connected(Connected(1, PLAIN_SERVER), Moment(0.0))
    later = Conversation(Player(PlayedServer()))
    end = later.player.play(later.machine("one", delivered=machine.delivered(Moment(1.0)))).end
    assert isinstance(end, GiveUp)
    assert isinstance(end.error, OutcomeUnknownError)
