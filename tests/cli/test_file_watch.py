"""A change of a file is told once, when it is whole."""

from __future__ import annotations

from pathlib import Path

from segue.cli.file_watch import FileWatch


def test_a_change_is_told_once_and_not_before_it_rests(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text("one")
    watch = FileWatch(file)
    assert not watch.has_changed()
    file.write_text("a part")
    assert not watch.has_changed()
    file.write_text("a part and the rest")
    assert not watch.has_changed()
    assert [watch.has_changed() for _ in range(3)] == [True, False, False]


def test_a_file_that_an_editor_replaces_is_away_for_a_moment(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text("one")
    watch = FileWatch(file)
    file.rename(tmp_path / "segue.toml~")
    assert [watch.has_changed() for _ in range(2)] == [False, False]
    file.write_text("two")
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]


def test_what_changed_before_the_first_look_is_told(tmp_path: Path) -> None:
    """Between reading the file and looking at it."""
    file = tmp_path / "segue.toml"
    file.write_text("one")
    watch = FileWatch(file)
    file.write_text("two lines")
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
