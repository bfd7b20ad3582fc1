"""The client without `await` does what the other does, from any thread."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from segue.client.errors import ContinuationLostError, OutcomeUnknownError, TurnCancelledError
from segue.client.stream_events import ResponseCreated, ResponseFinished
from segue.client.sync_client import Client
from tests.client.memory_transport import MemoryLinks
from tests.client.played_server import answer_of


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
