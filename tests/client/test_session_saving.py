"""A session that is saved is the same after a file, and a turn that was cut off with it is not paid for twice."""

from __future__ import annotations

import asyncio
import zlib
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from segue.client.errors import OutcomeUnknownError, SessionFileError
from tests.client.memory_transport import MemoryLinks, client_of, say, texts
from tests.client.played_server import FULL, answer_of


async def test_the_turn_of_a_saved_session_is_forgotten_only_if_it_is_cancelled(tmp_path: Path) -> None:
    """A program that is interrupted leaves its turn, and its next process goes on with it."""
    links = MemoryLinks(extensions=FULL)
    session = client_of(links).session("m")
    session.save(tmp_path / "session.json")
    async with session.send("one") as turn:
        await anext(turn)
    assert links.http.forgotten == []
    assert client_of(links).load(tmp_path / "session.json").pending_turn is not None
    await turn.cancel()
    assert links.http.forgotten == ["resp_0"]
    assert client_of(links).load(tmp_path / "session.json").pending_turn is None


async def test_a_file_that_cannot_be_written_does_not_stop_the_session(tmp_path: Path) -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    for path in (tmp_path / "none" / "session.json", tmp_path, "with a \0"):
        with pytest.raises(SessionFileError, match="could not be written"):
            session.save(path)
    await say(session, "one")
    session.save(tmp_path / "session.json")
    with pytest.raises(SessionFileError):
        session.save(tmp_path)
    await say(session, "two")  # is still written where it was before
    turn = client_of(links).load(tmp_path / "session.json").pending_turn
    assert turn is not None


async def test_a_file_stays_where_it_is_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = MemoryLinks()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    session = client_of(links).session("m")
    session.save("session.json")
    loaded = client_of(links).load("session.json")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for one in (session, loaded):
        (tmp_path / "session.json").unlink()
        await say(one, "one")
        assert (tmp_path / "session.json").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "http", "history": "id"},
        {"fields": {"model": "other"}},
        {"fields": {"include": 5}},
    ],
)
def test_settings_that_a_file_cannot_have(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "session.json"
    session = client_of(MemoryLinks()).session("m")
    session.send("one")
    session.save(path)
    first = msgspec.json.decode(path.read_bytes())
    saved = first["session"]
    saved["turn"]["settings"] = dict(saved["settings"])
    for settings in (saved["settings"], saved["turn"]["settings"]):
        kept = dict(settings)
        settings.update(change)
        first["check"] = zlib.crc32(msgspec.json.encode(saved))
        path.write_bytes(msgspec.json.encode(first) + b"\n")
        with pytest.raises(SessionFileError, match="damaged"):
            client_of(MemoryLinks()).load(path)
        settings.clear()
        settings.update(kept)
    first["check"] = zlib.crc32(msgspec.json.encode(saved))
    path.write_bytes(msgspec.json.encode(first) + b"\n")
    assert client_of(MemoryLinks()).load(path).pending_turn is not None


async def test_a_saved_session_goes_on(tmp_path: Path) -> None:
    links = MemoryLinks()
    session = client_of(links).session("m", store=True, instructions="be brief")
    await say(session, "one")
    session.save(tmp_path / "session.json")
    loaded = client_of(links).load(tmp_path / "session.json")
    assert (loaded.settings, loaded.history, loaded.pending_turn) == (session.settings, session.history, None)
    links.websocket.drop()
    await say(loaded, "two")
    assert links.server.creates[-1]["previous_response_id"] == "resp_0"


async def test_an_unstored_session_is_replayed_after_a_file(tmp_path: Path) -> None:
    links = MemoryLinks()
    session = client_of(links).session("m")
    await say(session, "one")
    session.save(tmp_path / "session.json")
    await say(client_of(links).load(tmp_path / "session.json"), "two")
    assert links.server.runs[1].context == ("one", answer_of(("one",)), "two")


@pytest.mark.parametrize("cut", [0, 1, 4])
async def test_a_process_that_is_killed_in_a_turn_pays_for_it_once(tmp_path: Path, cut: int) -> None:
    """The session was saved before the turn; the create left, and some events came; then nothing more was done."""
    path, links = tmp_path / "session.json", MemoryLinks(extensions=FULL)
    session = client_of(links).session("m")
    await say(session, "zero")
    turn = session.send("one")
    session.save(path)
    links.websocket.hold = asyncio.Event()
    links.websocket.answered.clear()
    for _ in range(cut):
        await anext(turn)
    if not cut:
        reading = asyncio.create_task(anext(turn))
        await links.websocket.answered.wait()
        reading.cancel()
    links.websocket.hold = None
    links.websocket.drop()
    later = client_of(links).load(path)
    assert later.pending_turn is not None
    response = await later.pending_turn.response()
    assert response.output_text == answer_of(("zero", answer_of(("zero",)), "one"))
    assert len(links.server.runs) == 2
    assert len(texts(later)) == 4


async def test_a_turn_that_was_saved_and_never_sent_is_sent(tmp_path: Path) -> None:
    path, links = tmp_path / "session.json", MemoryLinks()
    session = client_of(links).session("m")
    session.send("one", temperature=1)
    session.save(path)
    later = client_of(links).load(path)
    assert later.pending_turn is not None
    await later.pending_turn.response()
    assert links.server.creates[0]["temperature"] == 1
    assert texts(later)[0] == "one"


async def test_a_pending_turn_can_be_passed_over(tmp_path: Path) -> None:
    path, links = tmp_path / "session.json", MemoryLinks()
    session = client_of(links).session("m")
    session.send("one")
    session.save(path)
    later = client_of(links).load(path)
    await say(later, "two")
    assert later.pending_turn is None
    assert texts(later)[0] == "two"


async def test_a_file_that_cannot_be_written_keeps_the_turn_from_leaving(tmp_path: Path) -> None:
    """What a later process could not know of is not sent."""
    folder, links = tmp_path / "folder", MemoryLinks()
    folder.mkdir()
    session = client_of(links).session("m")
    turn = session.send("one")
    session.save(folder / "session.json")
    (folder / "session.json").unlink()
    folder.rmdir()
    with pytest.raises(SessionFileError, match="could not be written"):
        await turn.response()
    assert links.server.creates == []


async def test_a_turn_that_was_sent_before_is_never_safe_to_send_anew_for_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier process has sent it, and nobody knows its id; the repeat would have to be noted first."""
    links, path = MemoryLinks(extensions=FULL), tmp_path / "session.json"
    session = client_of(links).session("m")
    session.save(path)
    async with session.send("one") as turn:
        await anext(turn)
    written = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(written[:2]))  # as it was when the create left
    later = client_of(links).load(path).pending_turn
    assert later is not None

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutcomeUnknownError, match="was not sent again"):
        await later.response()
    assert len(links.server.creates) == 1


async def test_a_file_that_cannot_be_written_in_mid_turn_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written before the create left: that is enough to find out what became of the turn."""
    links, synced, path = MemoryLinks(), 0, tmp_path / "session.json"
    session = client_of(links).session("m")
    turn = session.send("one")
    session.save(path)
    before = path.read_bytes()

    def sync(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", sync)
    await turn.response()
    assert synced == 2
    first, last = path.read_bytes().splitlines(keepends=True)
    assert first == before
    assert b'"delivered"' in last, "the line that was not written is not there"


async def test_a_save_costs_what_is_new(tmp_path: Path) -> None:
    """Each turn adds three lines: before its create leaves, when its id is known, and when the program saves it."""
    path, links = tmp_path / "session.json", MemoryLinks(extensions=FULL)
    session = client_of(links).session("m", instructions="x" * 5000)
    session.save(path)
    sizes = [path.stat().st_size]
    for _ in range(20):
        await say(session, "one")
        session.save(path)
        sizes.append(path.stat().st_size)
    costs = [after - before for before, after in pairwise(sizes)]
    answers = [len(item) for item in session.history[1::2]]
    assert max(cost - answer for cost, answer in zip(costs, answers, strict=True)) < 1000
    assert len(path.read_bytes().splitlines()) == 1 + 3 * 20
    assert client_of(links).load(path).history == session.history


async def test_edits_and_forks_take_the_place_of_the_file(tmp_path: Path) -> None:
    path, links = tmp_path / "session.json", MemoryLinks()
    session = client_of(links).session("m")
    await say(session, "one")
    session.save(path)
    fork = session.fork()
    await say(fork, "two")
    await say(session, "three")
    for one in (fork, session, fork):
        one.save(path)
        assert client_of(links).load(path).history == one.history
    session.replace_history("other")
    session.save(path)
    assert client_of(links).load(path).history == session.history
    assert len(path.read_bytes().splitlines()) == 1
