"""The folder for a user's sockets, and the locks in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from segue.gateway import runtime_directory as runtime
from segue.gateway.runtime_directory import locked, private_directory, runtime_directory, socket_files
from segue.gateway.user_socket import UserSocketError


def test_the_folder_is_the_configured_one_or_one_that_outlives_a_login() -> None:
    assert runtime_directory() == Path(f"/tmp/segue-{os.geteuid()}")  # noqa: S108 - nothing is made there
    assert runtime_directory("~/x") == Path.home() / "x"


def test_the_folder_is_made_for_the_user_alone(tmp_path: Path) -> None:
    folder = private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_directory(folder) == folder


def test_a_folder_of_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_others, link, file = tmp_path / "open", tmp_path / "link", tmp_path / "file"
    open_to_others.mkdir()
    open_to_others.chmod(0o750)
    link.symlink_to(private_directory(tmp_path / "own"))
    file.touch()
    for folder, why in ((open_to_others, "others have a part"), (link, "no folder of its own"), (file, "File exists")):
        with pytest.raises(UserSocketError, match=why):
            private_directory(folder)
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    with pytest.raises(UserSocketError, match="belongs to another user"):
        private_directory(tmp_path / "own")


def test_each_version_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / "run")
    mine = socket_files(folder)
    monkeypatch.setattr(runtime, "__version__", "9.9.9")
    other = socket_files(folder)
    assert {mine.socket.parent, other.lock.parent} == {tmp_path / "run"}
    assert len({*mine, *other}) == 4


def test_one_at_a_time_has_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with locked(file) as first:
        assert first
        with locked(file, wait=False) as second:
            assert not second
    with locked(file, wait=False) as third:
        assert third
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
