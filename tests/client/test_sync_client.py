"""The client without `await` does what the other does, from any thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from segue.client.errors import ContinuationLostError, OutcomeUnknownError, TurnCancelledError
from segue.client.settings import SessionSettings
from segue.client.stream_events import ResponseCreated, ResponseFinished
from segue.client.sync_client import Client
from segue.client.transports.interface import Connected
from tests.client.memory_transport import MemoryLinks, MemoryTransport
from tests.client.played_server import FULL, answer_of


def client_of(links: MemoryLinks) -> Client:
    return Client("http://played/v1", links=links.open)


def test_a_conversation(tmp_path: Path) -> None:
    links = MemoryLinks(extensions=["warm_up"])
    with client_of(links) as client:
        with client.session("m", instructions="be brief", store=True) as session:
            session.warm_up()
            events = list(session.send("one"))
            assert isinstance(events[0], ResponseCreated)
            assert isinstance(events[-1], ResponseFinished)
            said = answer_of(("one",))
            assert session.send("two").response().output_text == answer_of(("one", said, "two"))
            assert session.meters.turns == 3
            assert session.settings.instructions == "be brief"
            fork = session.fork()
            assert fork.history == session.history
            fork.replace_history([])
            assert fork.history == ()
            assert session.pending_turn is None
            session.send("three")
            session.save(tmp_path / "session.json")
        later = client.load(tmp_path / "session.json")
        assert later.pending_turn is not None
        later.pending_turn.response()
        assert len(later.history) == 6
    assert links.websocket.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "segue-client"]


def test_leaving_a_turn_cancels_it() -> None:
    links = MemoryLinks()
    with client_of(links) as client:
        session = client.session("m")
        with session.send("one") as turn:
            assert isinstance(next(iter(turn)), ResponseCreated)
        with pytest.raises(TurnCancelledError):
            turn.response()
        other = session.send("two")
        other.cancel()
        with pytest.raises(TurnCancelledError):
            other.response()
        assert session.history == ()


def test_errors_come_through() -> None:
    links = MemoryLinks()
    with client_of(links) as client:
        session = client.session("m", history="id", transport="websocket")
        session.send("one").response()
        links.websocket.drop()
        with pytest.raises(ContinuationLostError):
            list(session.send("two"))
        links.websocket.troubles.append(2)
        with pytest.raises(OutcomeUnknownError):
            client.session("m").send("three").response()
        with pytest.raises(ValueError, match="stream"):
            client.session("m", stream=True)


def test_a_client_that_cannot_be_made_leaves_no_thread() -> None:
    with pytest.raises(TypeError):
        Client(unknown=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "segue-client"]


def test_closing_twice_does_nothing() -> None:
    client = client_of(MemoryLinks())
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.load("nowhere")


@pytest.mark.parametrize("waits", ["for an event", "for a connection"])
def test_a_turn_that_another_thread_waits_for_ends_when_the_client_is_closed(waits: str) -> None:
    links, begun = MemoryLinks(), threading.Event()

    class Silent(MemoryTransport):
        async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError("nobody answers")

    if waits == "for a connection":
        links.websocket = Silent(links.server, "websocket")
    else:
        links.websocket.hold = asyncio.Event()
    client = client_of(links)
    turn = client.session("m").send("one")
    met: list[BaseException] = []

    def read() -> None:
        try:
            for _ in turn:
                begun.set()
        except TurnCancelledError as error:
            met.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    begun.wait()
    closers = [threading.Thread(target=client.close) for _ in range(3)]
    for thread in closers:
        thread.start()
    for thread in (*closers, reader):
        thread.join()
    assert "The client was closed" in str(met[0])


def test_what_is_told_of_a_recovery_may_not_call_the_client() -> None:
    links, met = MemoryLinks(extensions=FULL), list[str]()

    def told(_: object) -> None:
        for forbidden in (client.close, turn.cancel):
            with pytest.raises(RuntimeError, match="cannot wait for itself") as caught:
                forbidden()
            met.append(str(caught.value))

    client = Client("http://played/v1", links=links.open, on_recovery=told)
    links.websocket.troubles.append(3)
    with client:
        turn = client.session("m").send("one")
        assert turn.response().status == "completed"
    assert len(met) == 4


def test_a_session_outlives_its_client() -> None:
    client = client_of(MemoryLinks())
    with client.session("m") as session, session.send("one") as turn:
        before = session.busy
        next(turn)
        assert (before, session.busy) == (False, True)
        client.close()
        with pytest.raises(TurnCancelledError, match="client was closed"):
            next(turn)


def test_settings_can_be_changed_between_turns() -> None:
    links = MemoryLinks()
    with client_of(links) as client:
        session = client.session("m")
        session.settings = SessionSettings(model="other")
        session.send("one").response()
    assert links.server.creates[0]["model"] == "other"


def test_several_threads_use_one_client() -> None:
    links = MemoryLinks()
    said: list[str] = []

    def talk(name: str) -> None:
        said.append(client.session("m", transport="http").send(name).response().output_text)

    with client_of(links) as client:
        threads = [threading.Thread(target=talk, args=(f"n{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(said) == [answer_of((f"n{number}",)) for number in range(8)]
