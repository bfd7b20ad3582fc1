"""No path leads out of the workspace, whatever it says and whatever links stand in it; files change as a whole."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.agent.workspace import MAX_FILE_BYTES, Entry, ToolError, Workspace

OUTSIDE = "what lies outside"


class Folders:
    """A workspace with files and links, beside a folder that it must not reach."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.outside = top / "outside"
        self.root = top / "root"
        for folder in (self.outside, self.root / "inner" / "deep"):
            folder.mkdir(parents=True)
        (self.outside / "secret").write_text(OUTSIDE)
        (self.root / "file").write_text("inside")
        (self.root / "inner" / "file").write_text("inside")
        (self.root / "up").symlink_to("..")
        (self.root / "away").symlink_to(self.outside)
        (self.root / "inner" / "secret").symlink_to("../../outside/secret")
        (self.root / "near").symlink_to("inner/file")
        (self.root / "inner" / "loop").symlink_to("loop")
        (self.root / "chain").symlink_to("inner/deep/back")
        (self.root / "inner" / "deep" / "back").symlink_to("../../away")
        self.workspace = Workspace(self.root)

    def outside_is_as_it_was(self) -> bool:
        return [(p.name, p.read_text()) for p in self.outside.iterdir()] == [("secret", OUTSIDE)] and sorted(
            p.name for p in self.top.iterdir()
        ) == ["outside", "root"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders for many generated paths; nothing that they do may leave the root."""
    return Folders(tmp_path_factory.mktemp("top"))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


_names = st.sampled_from(
    (
        *("..", ".", "", "inner", "deep", "file", "secret", "up", "away", "near", "loop", "chain", "back", "outside"),
        *("root", "new", "~", "\0", "\ud800", "x" * 300, "inner\n", "proc", "self", "root ", "%2e%2e", "..\\", "…"),
    )
)
_paths = st.tuples(st.sampled_from(("", "/", "//", "TOP/", "TOP/root/")), st.lists(_names, max_size=7)).map(
    lambda parts: parts[0] + "/".join(parts[1])
)


@given(_paths)
def test_no_path_reads_or_writes_outside(shared: Folders, path: str) -> None:
    """Hostile paths through real links: what is read is from inside, and outside nothing changes."""
    path = path.replace("TOP", str(shared.top))
    with suppress(ToolError):
        assert shared.workspace.read(path) == "inside"
    with suppress(ToolError):
        shared.workspace.write(path, "inside")
    assert shared.outside_is_as_it_was()


@pytest.mark.parametrize(
    "path",
    ["..", "../outside/secret", "up/outside/secret", "away/secret", "inner/secret", "chain/secret", "/etc/passwd"],
)
def test_a_path_out_of_the_workspace_is_refused(folders: Folders, path: str) -> None:
    with pytest.raises(ToolError, match="leads out of the workspace"):
        folders.workspace.read(path)
    with pytest.raises(ToolError, match="leads out of the workspace"):
        folders.workspace.write(path, "x")


@pytest.mark.parametrize("path", ["file", "./inner/../file", "near", "inner/file", "inner/deep/../file"])
def test_a_path_inside_is_read(folders: Folders, path: str) -> None:
    assert folders.workspace.read(path) == "inside"
    assert folders.workspace.read(f"{folders.root}/{path}") == "inside"


def test_a_link_swapped_in_after_the_check_is_not_followed(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: the path was good when it was resolved, and a link by the time it was opened."""
    (folders.root / "inner" / "swapped").symlink_to(folders.outside / "secret")
    (folders.root / "folder").symlink_to(folders.outside)
    resolved = {"file": ("inner", "swapped"), "in folder": ("folder", "secret"), "new": ("folder", "new")}
    monkeypatch.setattr(Workspace, "resolve", lambda _, path: resolved[path])
    with pytest.raises(ToolError, match="a symbolic link to itself, or one that changed"):
        folders.workspace.read("file")
    with pytest.raises(ToolError, match="not a regular file"):
        folders.workspace.write("file", "x")
    for path in ("in folder", "new"):
        with pytest.raises(ToolError, match=r"not a directory|symbolic link"):
            folders.workspace.read(path)
        with pytest.raises(ToolError, match=r"not a directory|symbolic link"):
            folders.workspace.write(path, "x")
    assert folders.outside_is_as_it_was()


def test_a_file_is_replaced_as_a_whole(folders: Folders) -> None:
    """A hard link to a file outside keeps its contents, the mode of the file stays, and nothing is left over."""
    os.link(folders.outside / "secret", folders.root / "hard")
    script = folders.root / "script"
    script.write_text("old")
    script.chmod(0o750)
    assert folders.workspace.write("hard", "new") == 3
    assert folders.workspace.write("script", "grün") == 5
    assert folders.outside_is_as_it_was()
    assert (folders.root / "hard").read_text() == "new"
    assert (script.read_bytes(), stat.S_IMODE(script.stat().st_mode)) == ("grün".encode(), 0o750)
    assert [p.name for p in folders.root.iterdir() if p.name.startswith(".")] == []


def test_writing_through_a_link_inside_changes_what_it_points_to(folders: Folders) -> None:
    folders.workspace.write("near", "changed")
    assert (folders.root / "near").is_symlink()
    assert (folders.root / "inner" / "file").read_text() == "changed"


def test_folders_are_made_on_the_way_to_a_new_file(folders: Folders) -> None:
    folders.workspace.write("a/b/c", "new")
    assert (folders.root / "a" / "b" / "c").read_text() == "new"
    with pytest.raises(ToolError, match="not a directory"):
        folders.workspace.write("file/below", "x")


def test_a_write_that_fails_leaves_the_old_file(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ToolError, match="no space left"):
        folders.workspace.write("file", "new")
    assert folders.workspace.read("file") == "inside"
    assert [p.name for p in folders.root.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("path", [".git/hooks/pre-commit", "inner/.git/config", ".GIT/config"])
def test_what_belongs_to_git_is_not_written(folders: Folders, path: str) -> None:
    """A hook is a command, and commands are approved."""
    with pytest.raises(ToolError, match="belongs to git"):
        folders.workspace.write(path, "rm")


def test_only_regular_files_are_opened(folders: Folders) -> None:
    """A pipe without a writer does not hold the agent up."""
    os.mkfifo(folders.root / "pipe")
    with pytest.raises(ToolError, match="not a regular file"):
        folders.workspace.read("pipe")
    with pytest.raises(ToolError, match="not a regular file"):
        folders.workspace.write("pipe", "x")
    for name in ("inner", "inner/", "."):
        with pytest.raises(ToolError, match="is a folder"):
            folders.workspace.read(name)
    with pytest.raises(ToolError, match="is a folder"):
        folders.workspace.write("inner/", "x")
    with pytest.raises(ToolError, match="is a folder"):
        folders.workspace.write("inner", "x")


def test_what_is_no_text_is_said_so(folders: Folders) -> None:
    (folders.root / "binary").write_bytes(b"\x7fELF\0\1")
    (folders.root / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(ToolError, match="a binary file of 6 bytes"):
        folders.workspace.read("binary")
    with pytest.raises(ToolError, match="not UTF-8 text: byte 3 of 4"):
        folders.workspace.read("latin")


def test_a_file_that_is_too_long_is_not_read(folders: Folders) -> None:
    with (folders.root / "long").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ToolError, match=f"{MAX_FILE_BYTES + 1:,} bytes, too many"):
        folders.workspace.read("long")


def test_a_file_that_is_not_there(folders: Folders) -> None:
    with pytest.raises(ToolError, match="no such file"):
        folders.workspace.read("none")
    with pytest.raises(ToolError, match=r"symbolic link|no such file|too many"):
        folders.workspace.read("inner/loop")


def test_a_listing_names_each_kind(folders: Folders) -> None:
    os.mkfifo(folders.root / "pipe")
    found = folders.workspace.entries(())
    assert found == [
        Entry("away", note=f" -> {folders.outside}"),
        Entry("chain", note=" -> inner/deep/back"),
        Entry("file"),
        Entry("inner", is_folder=True),
        Entry("near", note=" -> inner/file"),
        Entry("pipe", note=" (special)"),
        Entry("up", note=" -> .."),
    ]
    with pytest.raises(ToolError, match="not a directory"):
        folders.workspace.entries(("file",))


def test_a_workspace_is_a_folder_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Workspace(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Workspace(tmp_path / "file")
