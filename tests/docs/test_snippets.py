"""Every snippet of the README and the documentation does what the page says, on this machine, now."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.programs import Programs
from tests.docs.snippets import NOT_RUN, PATIENCE_S, Page, Snippet, pages, runs, snippets_of

ROOT = Path(__file__).resolve().parents[2]

#: Pages whose snippets need the local model.
LOCAL_MODEL = {"docs/how-to/run-a-local-model.md"}


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(PATIENCE_S) as started:
        yield started


def parameters() -> list[object]:
    names = [str(path.relative_to(ROOT)) for path in pages(ROOT)]
    marked = [pytest.param(name, marks=[pytest.mark.local_model] if name in LOCAL_MODEL else []) for name in names]
    return [*marked]


@pytest.mark.parametrize("name", parameters())
def test_the_snippets_of_a_page_run_in_order(name: str, tmp_path: Path, programs: Programs) -> None:
    """A reader who follows the page from its first line gets what it says."""
    with Page(name, tmp_path, programs, local_model=name in LOCAL_MODEL) as page:
        for snippet in snippets_of((ROOT / name).read_text(encoding="utf-8")):
            page.run(snippet)
        page.finish()


def test_no_command_is_left_out_for_nothing() -> None:
    """Every entry of the list of commands that are not run is about a command on some page."""
    texts = [path.read_text(encoding="utf-8") for path in pages(ROOT)]
    shell = [snippet for text in texts for snippet in snippets_of(text) if snippet.info == "sh"]
    left_out = {line for snippet in shell for line in snippet.code.splitlines()} - {
        line for snippet in shell for line in runs(snippet)
    }
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in left_out)] == []


def test_a_fence_that_nothing_would_run_is_a_mistake() -> None:
    """An indented fence, or one that is never closed, does not pass unseen."""
    for text in ("  ```sh\n  true\n  ```\n", "```sh\ntrue\n"):
        with pytest.raises(AssertionError, match="indented or not closed"):
            snippets_of(text)


@pytest.mark.parametrize("info", ["", "bash", "python3"])
def test_a_fence_must_say_what_is_done_with_it(info: str, tmp_path: Path, programs: Programs) -> None:
    """An info string that is not known fails its page instead of being skipped."""
    with Page("page", tmp_path, programs) as page, pytest.raises(AssertionError, match="does not say what is done"):
        page.run(Snippet(info, "true\n", 1))


def test_a_snippet_that_fails_fails_its_page(tmp_path: Path, programs: Programs) -> None:
    """Whatever is run must succeed, and print what the page says it prints."""
    with Page("page", tmp_path, programs) as page:
        for snippet in (Snippet("sh", "false\n", 1), Snippet("python", "assert 0\n", 1)):
            with pytest.raises(AssertionError, match="exit status 1"):
                page.run(snippet)
        page.run(Snippet("sh", "echo one two three\n", 1))
        page.run(Snippet("text output", "one … three\n", 1))
        page.run(Snippet("python pytest", "def test_it():\n    assert 0\n", 7))
        with pytest.raises(AssertionError, match="test_line_7"):
            page.finish()
        page.run(Snippet("sh", "echo one two three\n", 1))
        with pytest.raises(AssertionError, match="one two three"):
            page.run(Snippet("text output", "one three\n", 1))


def test_a_program_that_takes_too_long_is_killed(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one runs all the same."""
    (tmp_path / "endless.py").write_text("import signal\nsignal.pause()\n")
    (tmp_path / "short.py").write_text("import os, sys\nprint(os.environ['WORD'], os.getcwd())\nsys.exit(3)\n")
    monkeypatch.setattr(programs, "patience_s", 0.1)
    assert programs.run(["endless.py"], tmp_path, {})[0] == -signal.SIGKILL
    monkeypatch.undo()
    assert programs.run(["short.py"], tmp_path, {"WORD": "said"}) == (3, f"said {tmp_path}\n", "")
