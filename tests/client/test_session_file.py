"""A session is appended to its file as long as that is the file that was left; a write that fails loses nothing."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from segue.client import session_file
from segue.client.errors import SessionFileError
from segue.client.local_history import EMPTY_HISTORY, LocalHistory
from segue.client.session_file import SessionFile, read_session, replace_file
from segue.client.session_journal import read_journal
from segue.client.session_state import SessionRecord
from segue.client.settings import SessionSettings

URL = "http://127.0.0.1:4747/v1"
SETTINGS = SessionSettings(model="m")
HISTORY = EMPTY_HISTORY.append((b'{"a":1}',))


def record(history: LocalHistory = HISTORY) -> SessionRecord:
    return SessionRecord(settings=SETTINGS, history=history)


def saved(path: Path) -> tuple[bytes, ...]:
    """Return the items that are in the file."""
    return read_journal(read_session(str(path)), URL).history.items


# --- appending -------------------------------------------------------------------------------------------------------


def test_what_is_new_is_appended_and_only_the_owner_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    file = SessionFile(str(path), URL)
    file.write(record())
    before, inode = path.read_bytes(), path.stat().st_ino
    longer = HISTORY
    for _ in range(3):
        longer = longer.append([b'{"b":2}'])
        file.write(record(longer))
        assert saved(path) == longer.items
        assert path.read_bytes().startswith(before)
        before = path.read_bytes()
    assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_another_history_takes_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    file = SessionFile(str(path), URL)
    file.write(record())
    inode = path.stat().st_ino
    file.write(record(EMPTY_HISTORY.append((b'{"edited":1}',))))
    assert path.stat().st_ino != inode
    assert saved(path) == (b'{"edited":1}',)


def other_file(path: Path) -> None:
    path.with_suffix(".other").write_bytes(path.read_bytes())
    path.with_suffix(".other").replace(path)


@pytest.mark.parametrize(
    "meddle",
    [
        Path.unlink,
        other_file,
        lambda path: path.write_bytes(path.read_bytes() + b"torn"),
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o644),
        lambda path: path.chmod(0o400),
    ],
)
def test_a_file_that_somebody_has_touched_is_written_anew(tmp_path: Path, meddle: object) -> None:
    path = tmp_path / "session.json"
    file = SessionFile(str(path), URL)
    file.write(record())
    assert callable(meddle)
    meddle(path)
    file.write(record(HISTORY.append((b'{"b":2}',))))
    assert saved(path) == (b'{"a":1}', b'{"b":2}')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_next_process_appends_nothing_to_a_file_whose_end_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    file = SessionFile(str(path), URL)
    file.write(record())
    file.write(record(HISTORY.append((b'{"b":2}',))))
    path.write_bytes(path.read_bytes()[:-1])
    assert saved(path) == HISTORY.items
    later, history = SessionFile(str(path), URL), HISTORY
    for _ in range(2):
        history = history.append((b'{"c":3}',))
        later.write(record(history))
        assert saved(path) == history.items


def test_an_append_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the line was written; and after an error of `fsync` nobody knows what is on the disk."""
    path = tmp_path / "session.json"
    file, longer = SessionFile(str(path), URL), HISTORY.append((b'{"b":2}',))
    file.write(record())
    before, inode = path.read_bytes(), path.stat().st_ino
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
        patched.setattr(os, "fsync", fails(errno.ENOSPC))
        with pytest.raises(SessionFileError, match="No space left on device"):
            file.write(record(longer))
    assert path.read_bytes() == before
    file.write(record(longer))
    assert path.stat().st_ino != inode
    assert saved(path) == longer.items


def test_what_an_append_wrote_counts_even_if_it_could_not_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.json"
    file = SessionFile(str(path), URL)
    file.write(record())
    longer = HISTORY.append((b'{"b":2}',))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails(errno.EIO))
        patched.setattr(os, "ftruncate", fails(errno.EIO))
        with pytest.raises(SessionFileError, match="Input/output error"):
            file.write(record(longer))
    assert saved(path) == longer.items
    file.write(record(longer))
    assert path.read_bytes().count(b"\n") == 1, "it was written anew"


def fails(number: int) -> object:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# --- replacing -------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    for data in (b"one", b"two"):
        replace_file(str(path), data)
        assert read_session(str(path)) == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.json"
    replace_file(str(path), b"old")
    monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
    with pytest.raises(SessionFileError, match="No space left on device"):
        replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SessionFileError, match="No such file"):
        replace_file(str(tmp_path / "missing" / "session.json"), b"new")


@pytest.mark.parametrize(("number", "fatal"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_the_new_name_is_on_the_disk_too_where_a_folder_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fatal: bool
) -> None:
    synced: list[bool] = []

    def sync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if synced[-1]:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", sync)
    if fatal:
        with pytest.raises(SessionFileError, match="Input/output error"):
            replace_file(str(tmp_path / "session.json"), b"data")
    else:
        replace_file(str(tmp_path / "session.json"), b"data")
    assert synced == [False, True]
    assert [one.name for one in tmp_path.iterdir()] == ["session.json"]


def test_a_folder_that_may_not_be_read_may_be_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opens(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    replace_file(str(tmp_path / "session.json"), b"data")
    assert (tmp_path / "session.json").read_bytes() == b"data"


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SessionFileError, match="could not be read"):
        read_session(str(tmp_path / "missing"))
    monkeypatch.setattr(session_file, "MOST_BYTES", 3)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(SessionFileError, match="too large"):
        read_session(str(tmp_path / "large"))
    with pytest.raises(SessionFileError, match="could not be written: it is too large"):
        replace_file(str(tmp_path / "large"), b"1234")


def test_what_is_no_plain_file_is_neither_read_nor_written(tmp_path: Path) -> None:
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
            SessionFile(path, URL).write(record())
        with pytest.raises(SessionFileError, match="could not be read: it is no plain file"):
            read_session(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_file_behind_a_link_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file = SessionFile(str(tmp_path / "link"), URL)
    for history in (HISTORY, HISTORY.append((b"{}",))):
        file.write(record(history))
        assert (tmp_path / "link").is_symlink()
        assert saved(tmp_path / "real") == history.items


def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(SessionFileError, match=r"could not be read: .*embedded null"):
        read_session("with a \0")
    with pytest.raises(SessionFileError, match=r"could not be written: .*embedded null"):
        SessionFile("with a \0", URL).write(record())
