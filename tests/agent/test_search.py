"""A search is bounded in time and size, follows no link, and no pattern can hold it up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from segue.agent.search import SearchArguments, search_files
from segue.agent.search_process import MAX_LINE_CHARACTERS, MAX_MATCHES
from segue.agent.workspace import MAX_FILE_BYTES, ToolError, Workspace

ENVIRONMENT = {"PATH": os.defpath}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / ".git").mkdir()
    (tmp_path / "outside").write_text("needle outside\n")
    (root / "link").symlink_to("../outside")
    (root / "away").symlink_to("..")
    (root / "a").write_text("one needle\ntwo\n")
    (root / "inner" / "b").write_text("Need\fle\rNeedle\r\nneedle (x)\n", newline="")
    (root / ".git" / "c").write_text("needle\n")
    (root / "binary").write_bytes(b"needle\0")
    os.mkfifo(root / "pipe")
    return Workspace(root)


async def found(workspace: Workspace, pattern: str, path: str = ".", *, regex: bool = False) -> str:
    return await search_files(workspace, SearchArguments(pattern, path, regex), environment=ENVIRONMENT)


async def test_each_match_has_its_place(workspace: Workspace) -> None:
    skipped = "2 files searched, 1 binary or large ones skipped"
    assert await found(workspace, "needle") == f"a:1:one needle\ninner/b:2:needle (x)\n({skipped})"
    assert (
        await found(workspace, "[Nn]eedle$", regex=True) == f"a:1:one needle\ninner/b:1:Need\fle\rNeedle\n({skipped})"
    )
    assert await found(workspace, "needle (x)", "inner") == "inner/b:2:needle (x)\n(1 files searched)"
    assert await found(workspace, "Needle", "inner/b") == "inner/b:1:Need\fle\rNeedle\n(1 files searched)"
    assert await found(workspace, "nothing", "a") == "(1 files searched)"


async def test_nothing_outside_is_searched(workspace: Workspace) -> None:
    for path in ("..", "link", "away"):
        with pytest.raises(ToolError, match="leads out"):
            await found(workspace, "needle", path)
    with pytest.raises(ToolError, match="no such file"):
        await found(workspace, "needle", "none")


async def test_a_pattern_that_python_warns_of_is_searched(workspace: Workspace) -> None:
    assert await found(workspace, "[[n]eedle", "a", regex=True) == "a:1:one needle\n(1 files searched)"


async def test_a_pattern_that_is_none_is_told(workspace: Workspace) -> None:
    for pattern, words in (("(", "missing"), ("a{99999999999}", "too large"), ("(" * 5000 + ")" * 5000, "")):
        with pytest.raises(ToolError, match=rf"the pattern cannot be used: .*{words}"):
            await found(workspace, pattern, regex=True)
    with pytest.raises(ToolError, match="pattern is empty"):
        await found(workspace, "")


async def test_a_pattern_that_would_never_end_is_stopped(workspace: Workspace) -> None:
    """The process that matches it is killed."""
    (workspace.root / "hostile").write_text("a" * 64 + "b\n")
    arguments = SearchArguments("(a+)+$", ".", regex=True)
    with pytest.raises(ToolError, match=r"stopped after 0.5 s"):
        await search_files(workspace, arguments, environment=ENVIRONMENT, time_limit_s=0.5)


async def test_matches_and_lines_are_bounded(workspace: Workspace) -> None:
    (workspace.root / "many").write_text("match\n" * (MAX_MATCHES + 1))
    (workspace.root / "wide").write_text("wide" + "x" * 9999)
    (workspace.root / "large").write_bytes(b"match\n" * (MAX_FILE_BYTES // 6 + 1))
    lines = (await found(workspace, "match", "many")).splitlines()
    assert (len(lines), lines[-1][:21]) == (MAX_MATCHES + 1, f"… more than {MAX_MATCHES} match")
    assert (await found(workspace, "wide", "wide")).splitlines()[0] == f"wide:1:wide{'x' * (MAX_LINE_CHARACTERS - 4)} …"
    assert "skipped" in await found(workspace, "nothing", "large")


@pytest.fixture
def odd_name(workspace: Workspace) -> None:
    """A file whose name is no text."""
    if sys.platform == "darwin":
        pytest.skip("file names are UTF-8 there")
    (workspace.root / os.fsdecode(b"\xff")).write_text("needle\n")


@pytest.mark.usefixtures("odd_name")
async def test_names_that_are_no_text_do_not_stop_a_search(workspace: Workspace) -> None:
    assert "?:1:needle" in await found(workspace, "needle")
