"""A session is in its file as it was saved last, wherever the file was cut; or it is refused with a reason."""

from __future__ import annotations

import zlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client import session_journal
from segue.client.continuation import Continuation
from segue.client.create_request import CreateOptions
from segue.client.errors import SessionFileError
from segue.client.local_history import EMPTY_HISTORY, LocalHistory, history_of
from segue.client.session_journal import Journal, read_journal, write_anew, write_change
from segue.client.session_state import SavedTurn, SessionRecord
from segue.client.settings import SessionSettings
from segue.client.turn_effects import DeliveredCreate
from tests.strategies import examples, hostile_bytes

URL = "http://127.0.0.1:4747/v1"
SETTINGS = SessionSettings(model="m", tools=({"type": "x"},), fields={"temperature": 0.5}, store=True)
ITEMS = (b'{ "type": "odd" }', b'{"a":1e0}', b'{\n  "b": "\xc3\xbc\\n"\n}')
TURN = SavedTurn(
    items=(b'{"b":[]}',),
    key="k",
    settings=SETTINGS,
    delivered=DeliveredCreate(options=CreateOptions(idempotency_key="k", resume=True), epoch="e", silent_s=1.0),
    alive_at=5.0,
)

Shown = tuple[SessionSettings, tuple[bytes, ...], Continuation | None, SavedTurn | None]


def shown(record: SessionRecord) -> Shown:
    return record.settings, record.history.items, record.continuation, record.turn


def record_of(
    history: LocalHistory, turn: SavedTurn | None = None, *, settings: SessionSettings = SETTINGS
) -> SessionRecord:
    return SessionRecord(settings=settings, history=history, turn=turn)


class PlayedFile:
    """A file in memory, and each state that it was left in: up to where, and with which session."""

    def __init__(self) -> None:
        self.data = b""
        self.left: list[tuple[int, Shown]] = []
        self.written: list[int] = []
        self.journal: Journal | None = None

    def save(self, record: SessionRecord) -> None:
        write = None if self.journal is None else write_change(self.journal, record)
        if write is None:
            write, self.data, self.left = write_anew(record, URL), b"", []
        self.data += write.data
        self.journal = write.then
        assert write.then.size_bytes == len(self.data)
        self.written.append(len(write.data))
        self.left.append((len(self.data), shown(record)))


# --- what was saved comes back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [None, TURN, msgspec.structs.replace(TURN, settings=SessionSettings(model="n"))])
@pytest.mark.parametrize("continuation", [None, Continuation(response_id="r", stored=True)])
def test_a_session_comes_back_as_it_was(turn: SavedTurn | None, continuation: Continuation | None) -> None:
    """The items to the byte, those with line breaks too, in the first line and in a further one."""
    record = SessionRecord(settings=SETTINGS, history=history_of(ITEMS), continuation=continuation, turn=turn)
    anew = write_anew(record, URL)
    assert shown(read_journal(anew.data, URL)) == shown(record)
    first = write_anew(record_of(EMPTY_HISTORY, settings=SessionSettings(model="o")), URL)
    change = write_change(first.then, record)
    assert change is not None
    assert shown(read_journal(first.data + change.data, URL)) == shown(record)


def test_each_item_of_a_turn_is_written_once() -> None:
    """Before the turn leaves; not when it has shown its id, and not when it has ended."""
    file, history = PlayedFile(), history_of((b'{"first":1}',))
    file.save(record_of(history))
    begun = SavedTurn(items=(b'{"mine":1}',), key="k", settings=SETTINGS)
    file.save(record_of(history, begun))
    delivered = DeliveredCreate(response_id="resp_1")
    file.save(record_of(history, msgspec.structs.replace(begun, delivered=delivered, alive_at=7.0)))
    history = history.append((*begun.items, b'{"answer":1}'))
    file.save(record_of(history))
    history = history.append((b'{"by another":1}',))
    file.save(record_of(history, TURN))
    file.save(record_of(history))
    for item in (b"first", b"mine", b"answer", b"by another"):
        assert file.data.count(item) == 1
    assert [shown(read_journal(file.data[:size], URL)) for size, _ in file.left] == [known for _, known in file.left]


def test_other_settings_of_the_session_do_not_change_those_of_its_turn() -> None:
    file, history = PlayedFile(), history_of(ITEMS)
    file.save(record_of(history, TURN))
    file.save(record_of(history, TURN, settings=SessionSettings(model="other")))
    assert shown(read_journal(file.data, URL)) == file.left[-1][1]


def test_each_line_is_json_and_the_first_says_what_it_is_and_holds_no_key_of_an_api() -> None:
    file = PlayedFile()
    file.save(record_of(history_of(ITEMS)))
    file.save(record_of(history_of(ITEMS), TURN))
    for history in (history_of(ITEMS), history_of(ITEMS).append(ITEMS)):
        file.save(record_of(history))
    first = msgspec.json.decode(file.data.split(b"\n")[0])
    assert (first["schema"], first["version"]) == ("segue.client.session", 2)
    assert set(first) == {"schema", "version", "session", "check"}
    assert set(first["session"]) == {"base_url", "settings", "items", "continuation", "turn"}
    for line in file.data.split(b"\n")[1:-1]:
        assert set(msgspec.json.decode(line)) == {"change", "check"}


# --- what a save costs -----------------------------------------------------------------------------------------------


def test_a_save_costs_what_is_new_however_long_the_history_is() -> None:
    """Three saves a turn: before it leaves, when it has shown its id, and when it has ended."""
    history, costs = EMPTY_HISTORY, list[list[int]]()
    journal = write_anew(record_of(history), URL).then
    for number in range(1, 1001):
        asked = SavedTurn(items=(b'{"asked":"%08d%b"}' % (number, b"x" * 500),), key=f"{number:08d}", settings=SETTINGS)
        shown_id = msgspec.structs.replace(asked, delivered=TURN.delivered, alive_at=5.0)
        longer = history.append((*asked.items, b'{"answer":"%08d%b"}' % (number, b"y" * 500)))
        costs.append([])
        for record in (record_of(history, asked), record_of(history, shown_id), record_of(longer)):
            write = write_change(journal, record)
            assert write is not None, "it is never written anew"
            costs[-1].append(len(write.data))
            journal = write.then
        history = longer
    assert 1000 < sum(costs[0]) < 1000 + 600
    widest = max(len(b"%d" % 2**32) - 1, 1)  # the check is a number of up to ten digits
    for depth in (100, 1000):
        assert all(abs(cost - first) <= widest for cost, first in zip(costs[depth - 1], costs[0], strict=True))
    assert journal.size_bytes < 1000 * (1000 + 600)


def test_a_file_that_says_mostly_what_is_no_more_is_written_anew() -> None:
    """A turn that is sent and fails over and over, with a history that does not grow."""
    file, history = PlayedFile(), history_of((b'{"a":"%b"}' % (b"x" * 100_000),))
    file.save(record_of(history))
    largest = 0
    for number in range(200):
        file.save(
            record_of(history, SavedTurn(items=(b'{"b":"%b"}' % (b"y" * 9_000),), key=str(number), settings=SETTINGS))
        )
        largest = max(largest, len(file.data))
    assert largest < 4 * (100_000 + 65_536) + 1000
    assert sum(file.written) < 3 * 200 * 9_000, "what is written anew was paid for by what was appended"


def test_a_file_that_would_be_too_large_to_read_is_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_journal, "MOST_BYTES", 1000)
    first = write_anew(record_of(EMPTY_HISTORY), URL)
    assert write_change(first.then, record_of(history_of((b'{"a":"%b"}' % (b"x" * 1000),)))) is None


# --- cuts and damage -------------------------------------------------------------------------------------------------


@st.composite
def saves(draw: st.DrawFn) -> list[SessionRecord]:
    """What a program may save one after the other: turns that end or do not, edits, forks, other settings."""
    records, history, config = [], history_of(draw(st.lists(st.sampled_from(ITEMS), max_size=2))), SETTINGS
    other = EMPTY_HISTORY
    for number in range(draw(st.integers(1, 8))):
        new = tuple(draw(st.lists(st.sampled_from(ITEMS), max_size=2)))
        turn = SavedTurn(items=new, key=str(number), settings=draw(st.sampled_from((config, SETTINGS))))
        match draw(st.sampled_from(("turn", "turn", "turn", "edit", "fork", "settings"))):
            case "turn":
                if draw(st.booleans()):
                    records.append(record_of(history, turn, settings=config))
                if draw(st.booleans()):
                    turn = msgspec.structs.replace(turn, delivered=TURN.delivered, alive_at=float(number))
                    records.append(record_of(history, turn, settings=config))
                if draw(st.booleans()):
                    history = history.append((*new, ITEMS[0]))
            case "edit":
                history = EMPTY_HISTORY.append(new)
            case "fork":
                history, other = other, history
            case _:
                config = SessionSettings(model=str(number), store=True)
        stored = Continuation(response_id=str(number), stored=True) if draw(st.booleans()) else None
        records.append(SessionRecord(settings=config, history=history, continuation=stored))
    return records


@settings(max_examples=examples(150))
@given(records=saves(), data=st.data())
def test_wherever_a_file_is_cut_it_holds_what_was_saved_before(
    records: list[SessionRecord], data: st.DataObject
) -> None:
    file = PlayedFile()
    for record in records:
        file.save(record)
        assert shown(read_journal(file.data, URL)) == shown(record)
    first = file.left[0][0]
    for cut in {
        *(size + near for size, _ in file.left for near in (-1, 0, 1)),
        data.draw(st.integers(0, len(file.data))),
    }:
        if cut < first:
            with pytest.raises(SessionFileError):
                read_journal(file.data[:cut], URL)
        else:
            kept = [known for size, known in file.left if size <= cut]
            assert shown(read_journal(file.data[:cut], URL)) == kept[-1]


@settings(max_examples=examples(150))
@given(records=saves(), data=st.data())
def test_a_byte_that_is_another_one_is_noticed(records: list[SessionRecord], data: st.DataObject) -> None:
    """In the last line it is as if that had been cut; anywhere else the file is refused."""
    file = PlayedFile()
    for record in records:
        file.save(record)
    at, value = data.draw(st.integers(0, len(file.data) - 1)), data.draw(st.integers(0, 255))
    spoilt = file.data[:at] + bytes([value]) + file.data[at + 1 :]
    whole, before = file.left[-1][1], [known for size, known in file.left[:-1] if size <= at]
    try:
        read = shown(read_journal(spoilt, URL))
    except SessionFileError:
        assert spoilt != file.data
        return
    last_line = at >= ([0, *(size for size, _ in file.left)])[-2]
    assert read == whole or (last_line and read == before[-1])


def test_lines_that_are_missing_doubled_or_of_another_file_are_damage() -> None:
    file = PlayedFile()
    for number in range(4):
        file.save(record_of(EMPTY_HISTORY, SavedTurn(items=ITEMS, key=str(number), settings=SETTINGS)))
    first, second, third, fourth, _ = file.data.split(b"\n")
    for lines in ((first, third, fourth), (first, second, second, third), (first, b"{}", third), (first, b"", second)):
        with pytest.raises(SessionFileError, match="is damaged"):
            read_journal(b"\n".join((*lines, b"")), URL)
    cut = read_journal(b"\n".join((first, second, b"\0" * 100, b"")), URL)
    assert shown(cut) == file.left[1][1], "blocks of an append that never came are zeros"


def spoilt(change: dict[str, object]) -> bytes:
    """Return a file whose further line fits, and says something that no writer says."""
    first = write_anew(record_of(EMPTY_HISTORY), URL)
    written = msgspec.json.encode(change)
    check = zlib.crc32(written, first.then.check)
    return first.data + b'{"change":%b,"check":%d}\n' % (written, check)


@pytest.mark.parametrize(
    "change",
    [
        {"ended": True},
        {"progress": {}},
        {"items": [1]},
        {"items": ["text"]},
        {"items": ['{} , "model":"other"']},
        {"items": ["{\u4e00}"]},
        {"settings": {}},
    ],
)
def test_a_line_that_no_session_can_have_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(SessionFileError, match="is damaged"):
        read_journal(spoilt(change), URL)


# --- other files -----------------------------------------------------------------------------------------------------

OLD: dict[str, object] = {
    "schema": "segue.client.session",
    "version": 1,
    "base_url": URL,
    "settings": SETTINGS,
    "items": list(map(msgspec.Raw, ITEMS)),
    "continuation": Continuation(response_id="r", stored=True),
    "turn": {
        "items": list(map(msgspec.Raw, TURN.items)),
        "key": TURN.key,
        "settings": TURN.settings,
        "delivered": TURN.delivered,
        "alive_at": TURN.alive_at,
    },
}


def test_a_file_of_version_1_is_read() -> None:
    old = msgspec.json.encode(OLD)
    assert b"\n" in old
    record = read_journal(old, URL)
    assert shown(record) == (SETTINGS, ITEMS, OLD["continuation"], TURN)
    without_turn = read_journal(msgspec.json.encode(OLD | {"turn": None, "continuation": None, "items": []}), URL)
    assert shown(without_turn) == (SETTINGS, (), None, None)


def changed(**members: object) -> bytes:
    """Return a file of version 1 with other members."""
    return msgspec.json.encode(OLD | members)


def first_line(**members: object) -> bytes:
    data = msgspec.json.decode(write_anew(record_of(history_of(ITEMS)), URL).data)
    return msgspec.json.encode(data | members) + b"\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no session"),
        (b"{}", "holds no session"),
        (b"\n", "holds no session"),
        (changed(schema="other"), "holds no session"),
        (changed(version=3), "has version 3"),
        (changed(version=2), "is damaged"),
        (changed(items=[1]), "is damaged"),
        (changed(settings={}), "is damaged"),
        (changed(turn={"items": []}), "is damaged"),
        (changed(base_url="http://other/v1"), "belongs to another server"),
        (first_line(version=3), "has version 3"),
        (first_line(version=1), "is damaged"),
        (first_line(check=0), "is damaged"),
        (first_line(session={}), "is damaged"),
    ],
)
def test_what_is_no_session_of_this_server_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(SessionFileError, match=reason):
        read_journal(data, URL)


@settings(max_examples=examples(300))
@given(data=hostile_bytes, cut=st.integers(0, 500))
def test_whatever_is_in_a_file_it_is_read_or_refused(data: bytes, cut: int) -> None:
    whole = write_anew(record_of(history_of(ITEMS)), URL).data
    for hostile in (data, whole[:cut], whole[:cut] + data, whole + data, changed()[:cut] + data):
        with suppress(SessionFileError):
            assert isinstance(read_journal(hostile, URL), SessionRecord)
