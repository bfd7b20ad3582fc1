"""kill -9 at any moment: whatever a client saw as completed is there after a restart, with its whole history."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from websockets.exceptions import WebSocketException

from segue.testing.protocol_checker import Json
from tests.faults.clients import Http, http, opened, output_text
from tests.faults.gated_command import HALF
from tests.faults.gateways import Process, serving, until

pytestmark = pytest.mark.usefixtures("plain_loop")

STORE = ("--store", "sqlite:///segue.db")
GONE = (aiohttp.ClientError, WebSocketException, OSError)


@dataclass(frozen=True)
class Note:
    """What a client remembers of a turn it saw completed."""

    id: str
    history: tuple[str, ...]  # what was said before this turn, and in it by the user
    answer: str


@dataclass
class Witness:
    """All that the clients of a gateway saw; kills the gateway when they have seen so many events."""

    rng: random.Random
    notes: list[Note] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)  # ids that were told, whose end may not have been
    deleted: set[str] = field(default_factory=set)
    _left: int = 0
    _kill: Callable[[], None] = lambda: None

    def arm(self, process: Process, events: int) -> None:
        """Kill this process after so many events."""
        self._left, self._kill = events, process.kill

    def saw(self) -> None:
        """Count an event."""
        self._left -= 1
        if self._left == 0:
            self._kill()

    def parent(self) -> Note | None:
        """Choose what to continue: mostly a recent response, sometimes an old one or none."""
        if not self.notes or self.rng.random() < 0.1:
            return None
        return self.rng.choice(self.notes[-8:] if self.rng.random() < 0.8 else self.notes)

    def note(self, said: str, parent: Note | None, response: Json) -> None:
        """Remember a response whose terminal event came."""
        assert response["status"] == "completed"
        before = () if parent is None else (*parent.history, parent.answer)
        self.notes.append(Note(response["id"], (*before, said), output_text(response)))


@pytest.mark.parametrize(("seed", "events"), [(1, 300), pytest.param(2, 900, marks=pytest.mark.deep)])
async def test_what_was_seen_completed_survives(seed: int, events: int, tmp_path: Path) -> None:
    """Clients on WebSockets and HTTP, a kill after a random event, a restart, and again on the same file."""
    witness = Witness(random.Random(seed))
    checked = 0
    for _ in range(3):
        async with serving(tmp_path, *STORE) as process:
            await _assert_all_there(process.url, witness, since=checked)
            checked = len(witness.notes)
            witness.arm(process, witness.rng.randint(1, events))
            sockets = [_talk(process.url, witness, number) for number in range(3)]
            await asyncio.gather(*sockets, *(_post(process.url, witness, number) for number in range(2)))
            assert (await process.ended())[0] == -signal.SIGKILL
    async with serving(tmp_path, *STORE) as process:
        await _assert_all_there(process.url, witness)
        process.terminate()
        assert (await process.ended())[0] == 0
    _assert_sound(tmp_path)


@pytest.mark.deep  # tests/stores/test_sqlite.py kills a writer of conversations
@pytest.mark.parametrize("answers", [1, 7, 20])
async def test_a_conversation_has_the_turns_that_were_acknowledged(answers: int, tmp_path: Path) -> None:
    """And perhaps the one whose answer the kill has cut off, whole; it is locked for nobody then."""
    async with serving(tmp_path, *STORE) as process, http(process.url) as client:
        talk = (await client.send("POST", "/v1/conversations", {}))[1]["id"]

        async def converse() -> None:
            for number in range(10_000):
                made = await client.turn(str(number), conversation=talk)
                said.extend([str(number), output_text(made)])

        said: list[str] = []
        running = asyncio.create_task(converse())
        await until(lambda: len(said) >= 2 * answers)
        process.kill()
        await asyncio.gather(running, return_exceptions=True)
    async with serving(tmp_path, *STORE) as process, http(process.url) as client:
        _, page = await client.send("GET", f"/v1/conversations/{talk}/items?order=asc&limit=100")
        texts = [item["content"][0]["text"] for item in page["data"]]
        assert texts[: len(said)] == said
        assert len(texts) - len(said) in {0, 2}, "a turn is there with its answer, or not at all"
        _, responses = await client.send("GET", "/v1/responses?limit=100")
        assert 2 * len(responses["data"]) == len(texts)
        await client.turn("on", conversation=talk)


async def test_a_turn_that_streams_at_the_kill_was_never_there(tmp_path: Path) -> None:
    """Half an answer is not stored; its parent is, and can be continued."""
    async with serving(tmp_path, *STORE, gated=True) as process, opened(process.url) as socket:
        parent = await socket.turn("1")
        await socket.create("2", model="gated", previous_response_id=parent["id"])
        created = await socket.until("response.created")
        delta = await socket.until("response.output_text.delta")
        assert delta["delta"] == HALF
        process.kill()
        assert await socket.close_code() == 1006
    async with serving(tmp_path, *STORE) as process, http(process.url) as client:
        assert await client.status(created["response"]["id"]) == 404
        child = await client.turn("3", previous_response_id=parent["id"])
        assert await client.history(child["id"]) == ["1", output_text(parent), "3"]


@pytest.mark.parametrize("seed", [3, pytest.param(4, marks=pytest.mark.deep)])
async def test_what_was_seen_deleted_stays_deleted(seed: int, tmp_path: Path) -> None:
    """A kill among deletions: none comes back, none takes what was not deleted along."""
    witness = Witness(random.Random(seed))
    async with serving(tmp_path, *STORE) as process:
        with suppress(*GONE):
            await _talk(process.url, witness, 0, turns=60)
        asked = witness.rng.sample(witness.notes, 40)
        witness.arm(process, witness.rng.randint(1, 30))
        async with http(process.url) as client:
            await asyncio.gather(*(_delete(client, witness, note.id) for note in asked))
        assert (await process.ended())[0] == -signal.SIGKILL
    async with serving(tmp_path, *STORE) as process, http(process.url) as client:
        assert {await client.status(gone) for gone in witness.deleted} <= {404}
        perhaps = {note.id for note in asked} - witness.deleted
        witness.notes = [note for note in witness.notes if note.id not in witness.deleted]
        there = [note for note in witness.notes if note.id not in perhaps or await client.status(note.id) == 200]
        assert len(there) >= 20
        witness.notes = there
        await _assert_all_there(process.url, witness)
    _assert_sound(tmp_path)


async def _talk(url: str, witness: Witness, number: int, turns: int = 10_000) -> None:
    """Run turns on a WebSocket until the gateway is gone."""
    with suppress(*GONE):
        async with opened(url) as socket:
            for turn in range(turns):
                said, parent = f"socket {number} turn {turn}", witness.parent()
                await socket.create(said, previous_response_id=parent and parent.id)
                while len(socket.checker.turns) == turn:
                    frame = await socket.frame()
                    if frame["type"] == "response.created":
                        witness.begun.add(frame["response"]["id"])
                    witness.saw()
                response = socket.checker.turns[-1].response
                assert response is not None, socket.checker.turns[-1].error
                witness.note(said, parent, response)


async def _post(url: str, witness: Witness, number: int) -> None:
    """Run turns over HTTP until the gateway is gone."""
    with suppress(*GONE):
        async with http(url) as client:
            for turn in range(10_000):
                said, parent = f"client {number} turn {turn}", witness.parent()
                response = await client.turn(said, previous_response_id=parent and parent.id)
                witness.note(said, parent, response)
                witness.saw()


async def _delete(client: Http, witness: Witness, response_id: str) -> None:
    with suppress(*GONE):
        assert await client.status(response_id, "DELETE") == 200
        witness.deleted.add(response_id)
        witness.saw()


async def _assert_all_there(url: str, witness: Witness, since: int = 0) -> None:
    """Every noted response resolves and continues with its history; one that was cut is whole, or was never there."""
    notes = witness.notes[since:]
    async with http(url) as client, opened(url) as socket:
        assert [await client.status(note.id) for note in notes] == [200] * len(notes)
        assert [await client.history(note.id) for note in notes] == [list(note.history) for note in notes]
        for note in witness.rng.sample(notes, min(5, len(notes))):
            more = {"text": "more", "previous_response_id": note.id}
            for child in (await client.turn(**more), await socket.turn(**more)):
                assert await client.history(child["id"]) == [*note.history, note.answer, "more"]
        for response_id in witness.begun - {note.id for note in witness.notes}:
            assert await client.status(response_id) in {200, 404}


def _assert_sound(folder: Path) -> None:
    """The file of a gateway that is gone is what SQLite expects it to be."""
    with closing(sqlite3.connect(folder / "segue.db")) as connection:
        found: Sequence[tuple[str]] = connection.execute("PRAGMA integrity_check").fetchall()
        assert found == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
