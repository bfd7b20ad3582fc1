"""The tools on files say what a model needs to go on, and no more than fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.agent.file_tools import (
    MAX_ENTRIES,
    MAX_LINES,
    MAX_READ_BYTES,
    EditArguments,
    ListArguments,
    ReadArguments,
    WriteArguments,
    edit_file,
    list_folder,
    read_file,
    write_file,
)
from segue.agent.workspace import ToolError, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def fill(workspace: Workspace, **files: str) -> None:
    for name, text in files.items():
        (workspace.root / name).write_text(text, newline="")


def test_the_files_below_a_folder_are_listed_to_a_depth(workspace: Workspace) -> None:
    for folder in ("a/b/c/d", ".git/objects", "empty"):
        (workspace.root / folder).mkdir(parents=True)
    fill(workspace, **{"a/one": "1", "a/b/two": "22", "a/b/c/three": "333", "a/b/c/d/four": ""})
    (workspace.root / "link").symlink_to("a/one")
    os.mkfifo(workspace.root / "pipe")
    assert list_folder(workspace, ListArguments()).splitlines() == [
        ".git/", "a/b/c/d/four", "a/b/c/three", "a/b/two", "a/one", "link -> a/one", "pipe (special)",
    ]  # fmt: skip
    assert list_folder(workspace, ListArguments("a/b", 1)) == "a/b/c/\na/b/two"
    assert list_folder(workspace, ListArguments("empty")) == "(empty)"
    with pytest.raises(ToolError, match="leads out"):
        list_folder(workspace, ListArguments(".."))


def test_a_long_listing_is_cut(workspace: Workspace) -> None:
    for number in range(MAX_ENTRIES + 5):
        (workspace.root / f"{number:04}").touch()
    lines = list_folder(workspace, ListArguments()).splitlines()
    assert len(lines) == MAX_ENTRIES + 1
    assert lines[-1].startswith(f"… more than {MAX_ENTRIES} paths")


def test_a_long_listing_is_cut_in_a_folder_below(workspace: Workspace) -> None:
    (workspace.root / "a" / "b").mkdir(parents=True)
    for number in range(MAX_ENTRIES + 1):
        (workspace.root / "a" / "b" / f"{number:04}").touch()
    assert "more than" in list_folder(workspace, ListArguments())


def test_a_folder_that_cannot_be_opened_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.root / "closed").mkdir()
    entries = Workspace.entries

    def refuse(self: Workspace, names: tuple[str, ...]) -> object:
        if names:
            raise ToolError("'closed': permission denied")
        return entries(self, names)

    monkeypatch.setattr(Workspace, "entries", refuse)
    assert list_folder(workspace, ListArguments()) == "closed/ ('closed': permission denied)"


def test_lines_are_read_as_they_stand(workspace: Workspace) -> None:
    fill(workspace, text="one\ntwo\r\nthree", empty="", odd="a\fb\u2028c\rd\ne")
    assert read_file(workspace, ReadArguments("odd", 2)) == "[lines 2 to 2 of 2]\ne"
    assert read_file(workspace, ReadArguments("text")) == "one\ntwo\r\nthree"
    assert read_file(workspace, ReadArguments("text", 2)) == "[lines 2 to 3 of 3]\ntwo\r\nthree"
    assert read_file(workspace, ReadArguments("text", None, 1)) == "[lines 1 to 1 of 3]\none\n"
    assert read_file(workspace, ReadArguments("text", 2, 99)) == "[lines 2 to 3 of 3]\ntwo\r\nthree"
    assert read_file(workspace, ReadArguments("empty")) == "(empty file)"
    with pytest.raises(ToolError, match="has 3 lines; there are none from 4 to 3"):
        read_file(workspace, ReadArguments("text", 4))


def test_a_long_file_is_read_in_parts(workspace: Workspace) -> None:
    fill(workspace, long="x\n" * (MAX_LINES + 1), wide=("y" * 999 + "\n") * 100, widest="z" * (MAX_READ_BYTES + 1))
    assert read_file(workspace, ReadArguments("long")).startswith(f"[lines 1 to {MAX_LINES:,} of {MAX_LINES + 1:,}]\n")
    assert read_file(workspace, ReadArguments("wide")).startswith(f"[lines 1 to {MAX_READ_BYTES // 1000} of 100]\n")
    with pytest.raises(ToolError, match="line 1 of 'widest' is longer"):
        read_file(workspace, ReadArguments("widest"))


def test_an_edit_replaces_one_place(workspace: Workspace) -> None:
    fill(workspace, text="a = 1\nb = 1\n")
    assert edit_file(workspace, EditArguments("text", "b = 1", "b = 2\nc = 3")) == "replaced 1 place, at line 2"
    assert (workspace.root / "text").read_text() == "a = 1\nb = 2\nc = 3\n"


def test_an_edit_keeps_the_line_ends_of_a_file(workspace: Workspace) -> None:
    fill(workspace, text="a\r\nb\r\nc\r\n")
    edit_file(workspace, EditArguments("text", "a\nb\n", "1\n2\n"))
    assert (workspace.root / "text").read_bytes() == b"1\r\n2\r\nc\r\n"
    edit_file(workspace, EditArguments("text", "c\n", "c\r\nd\n"))
    assert (workspace.root / "text").read_bytes() == b"1\r\n2\r\nc\r\nd\r\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("x = 1", "x = 2", r"old stands 2 times in 'text' \(lines 1, 3\)"),
        ("def  f():", "def g():", "with other white space"),
        ("nowhere", "", "old does not stand in 'text'; read the file again"),
        ("\n \n", "", "other white space"),
        ("", "x", "old is empty"),
        ("x", "x", "the same"),
    ],
)
def test_an_edit_that_does_not_match_once_says_why(workspace: Workspace, old: str, new: str, words: str) -> None:
    fill(workspace, text="x = 1\ny = 2\nx = 1\ndef f():\n")
    with pytest.raises(ToolError, match=words):
        edit_file(workspace, EditArguments("text", old, new))
    assert (workspace.root / "text").read_text() == "x = 1\ny = 2\nx = 1\ndef f():\n"


def test_places_that_overlap_are_two_places(workspace: Workspace) -> None:
    """As the ends of nested blocks do: nobody knows which of them the model meant."""
    fill(workspace, text="f {\n}\n}\n}\n")
    with pytest.raises(ToolError, match=r"old stands 2 times in 'text' \(lines 2, 3\)"):
        edit_file(workspace, EditArguments("text", "}\n}\n", "}\n"))
    assert (workspace.root / "text").read_text() == "f {\n}\n}\n}\n"


def test_overlapping_places_are_told_with_their_lines(workspace: Workspace) -> None:
    fill(workspace, text="ab\n" * 9)
    with pytest.raises(ToolError, match=r"old stands 9 times in 'text' \(lines 1, 2, 3, 4, 5\)"):
        edit_file(workspace, EditArguments("text", "ab", "c"))


def test_a_file_is_written(workspace: Workspace) -> None:
    assert write_file(workspace, WriteArguments("new/file", "text\n")) == "wrote 5 bytes"
    assert (workspace.root / "new" / "file").read_text() == "text\n"
