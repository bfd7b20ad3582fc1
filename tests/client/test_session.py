"""A session sends what is new, survives what breaks, and is the same after a file."""

from __future__ import annotations

import asyncio

import pytest

from segue.client.client import AsyncClient
from segue.client.errors import (
    ClientError,
    ConnectionFailedError,
    OutcomeUnknownError,
    SessionBusyError,
    TurnCancelledError,
)
from segue.client.recovery import TurnFault
from segue.client.session import AsyncSession
from segue.client.settings import SessionSettings
from segue.client.stream_events import OutputTextDelta, ResponseCreated, ResponseFinished
from segue.client.turn_effects import RecoveryStep
from tests.client.memory_transport import MemoryLinks, MemoryTransport, client_of, say, texts
from tests.client.played_server import FULL, answer_of


def is_busy(session: AsyncSession) -> bool:
    return session.busy


async def test_a_conversation() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m", instructions="be brief")
    events = [event async for event in session.send("one")]
    assert isinstance(events[0], ResponseCreated)
    assert "".join(event.delta for event in events if isinstance(event, OutputTextDelta)) == answer_of(("one",))
    assert isinstance(events[-1], ResponseFinished)
    assert await say(session, "two") == answer_of(("one", answer_of(("one",)), "two"))
    assert [len(create["input"]) for create in links.server.creates] == [1, 1]
    assert len(texts(session)) == 4
    meters = session.meters
    assert (meters.turns, meters.creates, meters.bytes_up_wire) == (2, 2, 20)
    assert meters.bytes_down_payload == meters.bytes_down_wire > 0


async def test_nothing_is_sent_before_a_turn_is_iterated() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    session.send("dropped")
    first, second = session.send("one"), session.send("two")
    await asyncio.sleep(0)
    assert links.server.creates == []
    await second.response()
    with pytest.raises(SessionBusyError, match="another turn"):
        await first.response()
    assert texts(session)[0] == "two"


async def test_a_turn_has_one_reader() -> None:
    links = MemoryLinks()
    links.websocket.hold = asyncio.Event()
    turn = client_of(links).session("m").send("one")
    reading = asyncio.create_task(turn.response())
    await links.websocket.answered.wait()
    with pytest.raises(SessionBusyError, match="reads this turn"):
        await anext(turn)
    links.websocket.hold.set()
    await reading


async def test_a_session_runs_one_turn_at_a_time() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    turn = session.send("one")
    await anext(turn)
    assert is_busy(session)
    for refused in (lambda: session.send("two"), lambda: session.replace_history("two")):
        with pytest.raises(SessionBusyError):
            refused()
    await turn.response()
    assert not is_busy(session)
    await say(session, "two")


async def test_one_turn_has_settings_of_its_own() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m", temperature=0.5)
    await session.send("one", instructions="now", temperature=1, tools=[{"type": "x"}], store=True).response()
    await say(session, "two")
    first, second = links.server.creates
    assert (first["instructions"], first["temperature"], first["tools"], first["store"]) == (
        "now",
        1,
        [{"type": "x"}],
        True,
    )
    assert "instructions" not in second
    assert (second["temperature"], second["store"]) == (0.5, False)
    session.settings = SessionSettings(model="other")
    await say(session, "three")
    assert links.server.creates[-1]["model"] == session.settings.model == "other"
    with pytest.raises(ValueError, match="history='id'"):
        session.send("x", history="id")
    with pytest.raises(ValueError, match="history='id'"):
        session.settings = SessionSettings(model="m", history="id")


async def test_a_session_can_begin_with_a_history() -> None:
    links = MemoryLinks()
    session = client_of(links).session(
        "m",
        items=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "zero"}]}],
    )
    await say(session, "one")
    assert links.server.runs[0].context == ("zero", "one")


async def test_a_fork_shares_the_history_and_nothing_else() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m", store=True)
    await say(session, "one")
    fork = session.fork()
    await asyncio.gather(say(session, "left"), say(fork, "right"))
    assert texts(session)[:2] == texts(fork)[:2]
    assert (texts(session)[2], texts(fork)[2]) == ("left", "right")
    assert [create.get("previous_response_id") for create in links.server.creates] == [None, "resp_0", "resp_0"]


async def test_an_edited_history_is_sent_whole() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m", store=True)
    await say(session, "one")
    session.replace_history(list(session.history)[1:])
    await say(session, "two")
    assert links.server.runs[1].context == (answer_of(("one",)), "two")


async def test_a_broken_turn_is_mended_and_told() -> None:
    links, steps = MemoryLinks(extensions=FULL), list[RecoveryStep]()
    session = client_of(links, steps).session("m")
    links.websocket.troubles += [3, 2]
    events = [event async for event in session.send("one")]
    assert len({event.sequence_number for event in events}) == len(events)
    assert len(links.server.runs) == 1
    assert [step.decision.action for step in steps] == ["ask", "resume", "ask", "resume"]
    assert (session.meters.resumes, session.meters.reconnects) == (2, 2)
    assert all(stream.closed for stream in links.websocket.streams)


async def test_a_server_without_websockets_is_asked_once_for_all_sessions() -> None:
    links = MemoryLinks()
    links.websocket.refusals.append(TurnFault(kind="upgrade_refused", transport="websocket", status=426))
    client = client_of(links)
    await say(client.session("m"), "one")
    await say(client.session("m"), "two")
    assert len(links.http.streams) == 2


async def test_a_turn_that_failed_leaves_the_session_as_it_was() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    await say(session, "one")
    links.websocket.troubles.append(2)
    turn = session.send("two")
    with pytest.raises(OutcomeUnknownError) as caught:
        await turn.response()
    assert caught.value.response_id == "resp_1"
    with pytest.raises(OutcomeUnknownError):
        await turn.response()
    assert len(texts(session)) == 2
    await say(session, "three")
    assert texts(session)[2] == "three"


async def test_a_field_that_the_server_refused_is_not_sent_again() -> None:
    """The client had added it by itself, and each refusal would cost a round trip."""
    links = MemoryLinks()
    links.websocket.troubles.append(TurnFault(kind="refused", transport="websocket", status=400, param="include"))
    session = client_of(links).session("m")
    for text in ("one", "two"):
        await say(session, text)
    await say(session.fork(), "three")
    assert [create.get("include") for create in links.server.creates] == [None, None, None]
    assert session.meters.creates == 3


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_leaving_a_turn_cancels_it() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    async with session.send("one") as turn:
        await anext(turn)
    assert links.websocket.streams[0].closed
    assert texts(session) == ()
    with pytest.raises(TurnCancelledError):
        await turn.response()
    await say(session, "two")
    assert texts(session)[0] == "two"


async def test_a_turn_that_has_ended_cannot_be_cancelled() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    async with session.send("one") as turn:
        response = await turn.response()
    await turn.cancel()
    assert await turn.response() == response
    assert len(texts(session)) == 2


async def test_another_task_can_cancel_a_turn_that_waits() -> None:
    links = MemoryLinks()
    links.websocket.hold = asyncio.Event()
    session = client_of(links).session("m")
    turn = session.send("one")
    reading = asyncio.create_task(turn.response())
    await links.websocket.answered.wait()
    await turn.cancel()
    with pytest.raises(TurnCancelledError):
        await reading
    assert links.websocket.streams[0].closed
    assert texts(session) == ()
    assert not session.busy


async def test_a_task_that_is_cancelled_takes_its_turn_with_it() -> None:
    links = MemoryLinks()
    links.websocket.hold = asyncio.Event()
    session = client_of(links).session("m")
    turn = session.send("one")
    reading = asyncio.create_task(turn.response())
    await links.websocket.answered.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert links.websocket.streams[0].closed
    assert not session.busy
    with pytest.raises(TurnCancelledError):
        await anext(turn)


@pytest.mark.parametrize("offered", [FULL, frozenset[str]()])
async def test_a_server_that_keeps_turns_is_told_that_one_is_cancelled(offered: frozenset[str]) -> None:
    links = MemoryLinks(extensions=offered)
    session = client_of(links).session("m")
    async with session.send("one") as turn:
        await anext(turn)
        await turn.cancel()
    assert links.http.forgotten == (["resp_0"] if offered else [])
    await turn.cancel()
    assert len(links.http.forgotten) <= 1


async def test_a_turn_that_has_shown_nothing_has_no_id_to_be_told() -> None:
    links = MemoryLinks(extensions=FULL)
    turn = client_of(links).session("m").send("one")
    await turn.cancel()
    assert links.http.forgotten == []


async def test_a_server_that_cannot_be_told_changes_nothing() -> None:
    links = MemoryLinks(extensions=FULL)
    session = client_of(links).session("m")
    links.http.refusals.append(TurnFault(kind="connect_failed", transport="http", delivered="no"))
    async with session.send("one") as turn:
        await anext(turn)
    assert links.http.forgotten == ["resp_0"]
    assert await say(session, "two")


async def test_a_change_of_the_network_ends_the_wait_for_a_server_that_could_not_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def moved(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("segue.client.turn.sleep_or_move", moved)
    links = MemoryLinks()
    links.websocket.refusals.append(TurnFault(kind="connect_failed", transport="websocket", delivered="no"))
    assert await say(client_of(links).session("m"), "one")
    assert len(waits) == 1


async def test_a_turn_that_was_never_begun_can_be_cancelled() -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    turn = session.send("one")
    await turn.cancel()
    with pytest.raises(TurnCancelledError):
        await anext(turn)
    assert links.server.creates == []


async def test_a_turn_ends_when_its_time_is_over() -> None:
    links = MemoryLinks()
    links.websocket.hold = asyncio.Event()
    session = client_of(links).session("m", turn_timeout_s=0.01)
    with pytest.raises(OutcomeUnknownError, match="said nothing for too long"):
        await say(session, "one")
    assert links.websocket.streams[0].closed


async def test_a_mistake_of_a_transport_is_not_hidden() -> None:
    class Mistaken(MemoryTransport):
        async def retrieve(self, response_id: str) -> bytes:
            raise RuntimeError("a mistake")

    links = MemoryLinks()
    links.http = Mistaken(links.server, "http")
    links.websocket.troubles.append(2)
    session = client_of(links).session("m", store=True)
    with pytest.raises(RuntimeError, match="a mistake"):
        await say(session, "one")
    assert not session.busy


async def test_an_observer_that_fails_ends_the_turn_and_not_the_session() -> None:
    links = MemoryLinks(extensions=FULL)

    def fail(step: RecoveryStep) -> None:
        raise RuntimeError("a mistake")

    session = AsyncClient("http://played/v1", links=links.open, on_recovery=fail).session("m")
    links.websocket.troubles.append(2)
    with pytest.raises(RuntimeError, match="a mistake"):
        await say(session, "one")
    assert not session.busy
    await say(session, "two")


async def test_a_client_that_is_closed_ends_its_turns_and_opens_nothing_more() -> None:
    links = MemoryLinks(extensions=FULL)
    client = client_of(links)
    session = client.session("m")
    links.websocket.troubles.append(2)
    turn = session.send("one")
    await anext(turn)
    await client.aclose()
    with pytest.raises(TurnCancelledError, match="closed"):
        await turn.response()
    with pytest.raises(TurnCancelledError, match="closed"):
        await session.send("two").response()
    assert links.server.connections == 1


# --- places ----------------------------------------------------------------------------------------------------------


async def test_a_session_that_is_over_frees_its_lane_and_cancels_its_turn() -> None:
    links = MemoryLinks()
    async with client_of(links) as client:
        async with client.session("m") as session:
            await anext(session.send("one"))
        assert links.websocket.streams[0].closed
        assert links.websocket.released == links.http.released == [1]
        client.session("m").release()
        assert links.websocket.released == [1, 2]
    assert links.websocket.closed
    assert links.http.closed


async def test_a_server_that_offers_it_is_warmed_up() -> None:
    for extensions, transport, creates in ((["warm_up"], "auto", 1), ([], "auto", 0), (["warm_up"], "http", 0)):
        links = MemoryLinks(extensions=extensions)
        session = client_of(links).session("m", transport=transport)
        await session.warm_up()
        assert len(links.server.creates) == creates
        assert texts(session) == ()


async def test_a_warm_up_without_a_connection_is_left_out() -> None:
    links = MemoryLinks()
    links.websocket.refusals.append(TurnFault(kind="connect_failed", transport="websocket", delivered="no"))
    await client_of(links).session("m").warm_up()


async def test_every_error_of_a_turn_is_a_client_error() -> None:
    links = MemoryLinks()
    links.websocket.refusals += [TurnFault(kind="connect_failed", transport="websocket", delivered="no")] * 9
    session = client_of(links).session("m", most_attempts=1)
    with pytest.raises(ClientError) as caught:
        await say(session, "one")
    assert isinstance(caught.value, ConnectionFailedError)
