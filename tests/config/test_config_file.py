"""Commands that agents run under read the file that is named, else the user's own, and never the working folder's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.config import ChosenFile, anchored, choose_file, user_config_file

NOT_READ = "segue.toml in this folder is not read; use --config segue.toml if you trust it"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own file, of which only the folder exists yet; the working folder is another."""
    folder, working = tmp_path / "config" / "segue", tmp_path / "working"
    folder.mkdir(parents=True)
    for place in (folder, folder.parent):
        place.chmod(0o755)  # whatever the umask
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder / "segue.toml"


def written(file: Path, mode: int = 0o644) -> Path:
    file.write_text("")
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"XDG_CONFIG_HOME": "/c"}, "/c/segue/segue.toml"),
        ("linux", {"XDG_CONFIG_HOME": "relative"}, "/home/u/.config/segue/segue.toml"),
        ("linux", {}, "/home/u/.config/segue/segue.toml"),
        ("darwin", {}, "/home/u/Library/Application Support/segue/segue.toml"),
        ("win32", {"APPDATA": "/AppData"}, "/AppData/segue/segue.toml"),
        ("win32", {}, None),
        ("win32", {"APPDATA": "relative"}, None),
    ],
)
def test_the_users_file_is_where_the_platform_keeps_settings(
    monkeypatch: pytest.MonkeyPatch, platform: str, environ: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setattr("sys.platform", platform)
    found = user_config_file(environ)
    assert found == (None if expected is None else Path(expected))


def test_a_home_in_the_working_folder_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "here")
    monkeypatch.setattr("sys.platform", "linux")
    assert user_config_file({}) is None


def test_a_file_behind_a_folder_that_cannot_be_entered_is_not_read_and_that_is_said(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> os.stat_result:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", denied)
    told = f"{own} is not read, since a folder above it cannot be entered"
    assert choose_file(None) == ChosenFile(notices=(told,))


def test_the_file_that_is_named_is_read_whatever_else_is_there(own: Path) -> None:
    written(own)
    written(Path("segue.toml"))
    assert choose_file(Path("segue.toml")) == ChosenFile(Path("segue.toml"))


def test_without_any_file_there_is_nothing_to_say(own: Path) -> None:
    assert choose_file(None) == ChosenFile()


def test_the_file_of_the_working_folder_is_mentioned_and_not_read(own: Path) -> None:
    written(Path("segue.toml"))
    assert choose_file(None) == ChosenFile(notices=(NOT_READ,))
    written(own)
    assert choose_file(None) == ChosenFile(own, own.parent, (NOT_READ,))


def test_the_users_own_file_is_read_in_its_own_folder_too(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(own)
    monkeypatch.chdir(own.parent)
    assert choose_file(None) == ChosenFile(own, own.parent)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_not_read(own: Path, mode: int) -> None:
    written(own, mode)
    chosen = choose_file(None)
    assert (chosen.path, chosen.relative_to) == (None, None)
    assert [notice.partition(";")[0] for notice in chosen.notices] == [
        f"{own} is not read, since others can change {own}"
    ]


@pytest.mark.parametrize(("mode", "read"), [(0o755, True), (0o777, False), (0o775, False), (0o1777, True)])
def test_nor_is_one_in_a_folder_where_others_can_replace_it(own: Path, mode: int, read: bool) -> None:
    """In a folder with the sticky bit they cannot."""
    written(own)
    for folder in (own.parent, own.parent.parent):
        folder.chmod(mode)
        chosen = choose_file(None)
        assert chosen.path == (own if read else None)
        assert [f"since others can change {folder};" in notice for notice in chosen.notices] == [True] * (not read)
        folder.chmod(0o755)


def test_a_link_is_followed_to_a_file_that_only_the_user_can_write(own: Path, tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    dotfiles.chmod(0o755)
    own.symlink_to(written(dotfiles / "segue.toml"))
    assert choose_file(None) == ChosenFile(own, own.parent)
    (dotfiles / "segue.toml").chmod(0o666)
    assert choose_file(None).path is None
    (dotfiles / "segue.toml").chmod(0o600)
    dotfiles.chmod(0o777)
    assert choose_file(None).path is None


@pytest.mark.parametrize(("owner", "read"), [("ours", True), ("root", True), ("another", False)])
def test_a_file_of_another_user_is_not_read_unless_it_is_roots(
    own: Path, monkeypatch: pytest.MonkeyPatch, owner: str, read: bool
) -> None:
    us = written(own).stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: us if owner == "ours" else us + 1)
    monkeypatch.setattr("segue.config.config_file._ROOT", us if owner == "root" else us + 2)
    assert choose_file(None).path == (own if read else None)


def test_modes_say_nothing_on_windows(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(own, 0o666)
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("APPDATA", os.environ["XDG_CONFIG_HOME"])
    assert choose_file(None).path == own


@pytest.mark.parametrize(
    ("value", "expected"), [("", ""), ("a/b", "/f/a/b"), ("/a", "/a"), ("~/a", "/home/u/a"), ("../a", "/f/../a")]
)
def test_a_path_is_relative_to_the_file_that_holds_it(
    value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert anchored(value, Path("/f")) == expected
