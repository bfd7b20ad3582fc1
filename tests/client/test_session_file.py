"""A file holds a session whole, or is refused with a reason; a write that fails loses nothing."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client import session_file
from segue.client.continuation import Continuation
from segue.client.create_request import CreateOptions
from segue.client.errors import SessionFileError
from segue.client.session_file import decode_session, encode_session, read_session, write_session
from segue.client.session_state import SavedTurn, SessionRecord
from segue.client.settings import SessionSettings
from segue.client.turn_effects import DeliveredCreate
from tests.strategies import examples, hostile_bytes

URL = "http://127.0.0.1:4747/v1"
SETTINGS = SessionSettings(model="m", tools=({"type": "x"},), fields={"temperature": 0.5}, store=True)
ITEMS = (b'{ "type": "odd" }', b'{"a":1e0}')
TURN = SavedTurn(
    items=(b'{"b":[]}',),
    key="k",
    settings=SETTINGS,
    delivered=DeliveredCreate(options=CreateOptions(idempotency_key="k", resume=True), epoch="e", silent_s=1.0),
    alive_at=5.0,
)


@pytest.mark.parametrize("turn", [None, TURN])
@pytest.mark.parametrize("continuation", [None, Continuation(response_id="r", stored=True)])
def test_a_session_comes_back_as_it_was(turn: SavedTurn | None, continuation: Continuation | None) -> None:
    """The items to the byte."""
    record = SessionRecord(settings=SETTINGS, items=ITEMS, continuation=continuation, turn=turn)
    assert decode_session(encode_session(record, URL), URL) == record


def test_the_file_says_what_it_is_and_holds_no_key_of_an_api() -> None:
    data = msgspec.json.decode(encode_session(SessionRecord(settings=SETTINGS, items=()), URL))
    assert (data["schema"], data["version"], data["base_url"]) == ("segue.client.session", 1, URL)
    assert set(data) == {"schema", "version", "base_url", "settings", "items", "continuation", "turn"}


def changed(**members: object) -> bytes:
    data = msgspec.json.decode(encode_session(SessionRecord(settings=SETTINGS, items=ITEMS), URL))
    return msgspec.json.encode(data | members)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no session"),
        (b"{}", "holds no session"),
        (changed(schema="other"), "holds no session"),
        (changed(version=2), "has version 2"),
        (changed(items=[1]), "is damaged"),
        (changed(settings={}), "is damaged"),
        (changed(turn={"items": []}), "is damaged"),
        (changed(base_url="http://other/v1"), "belongs to another server"),
    ],
)
def test_what_is_no_session_of_this_server_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(SessionFileError, match=reason):
        decode_session(data, URL)


@settings(max_examples=examples(300))
@given(data=hostile_bytes, cut=st.integers(0, 500))
def test_whatever_is_in_a_file_it_is_read_or_refused(data: bytes, cut: int) -> None:
    for hostile in (data, changed()[:cut], changed(continuation=None)[:cut] + data):
        with suppress(SessionFileError):
            assert isinstance(decode_session(hostile, URL), SessionRecord)


def test_a_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    for data in (b"one", b"two"):
        write_session(str(path), data)
        assert read_session(str(path)) == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.json"
    write_session(str(path), b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SessionFileError, match="No space left on device"):
        write_session(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SessionFileError, match="No such file"):
        write_session(str(tmp_path / "missing" / "session.json"), b"new")


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SessionFileError, match="could not be read"):
        read_session(str(tmp_path / "missing"))
    monkeypatch.setattr(session_file, "MOST_BYTES", 3)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(SessionFileError, match="too large"):
        read_session(str(tmp_path / "large"))


def test_what_is_no_plain_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    """A pipe would be waited for, and a device or a folder is not ours to put a file in the place of."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, where in (
        ("pipe", tmp_path),
        ("link", tmp_path),
        ("null", Path("/dev")),
        (tmp_path.name, tmp_path.parent),
    ):
        path = str(where / name)
        with pytest.raises(SessionFileError, match="could not be written: it is no plain file"):
            write_session(path, b"new")
        with pytest.raises(SessionFileError, match="could not be read: it is no plain file"):
            read_session(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_session(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(SessionFileError, match="could not be read: embedded null byte"):
        read_session("with a \0")
