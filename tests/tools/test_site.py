"""The site of the documentation: its contents are those of the start page, and nothing is missing from them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tools.site.contents import WITHOUT_CONTENTS, Section, hidden_contents, sections

ROOT = Path(__file__).resolve().parents[2]
INDEX = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")

START = """# Documentation

See [the tutorial](tutorial.md).

## Do

- [One](how-to/one.md#a-part), and [the same](how-to/one.md)
- [Elsewhere](https://example.com/other.md) and ![a picture](results/a.svg)

## Look up

- [One again](how-to/one.md), [two](reference/two.md)

## Nothing new

- [Two](reference/two.md)
"""


def test_a_page_is_listed_once_under_its_first_heading() -> None:
    assert sections(START) == [Section("Do", ["how-to/one"]), Section("Look up", ["reference/two"])]


def test_the_start_page_keeps_its_text() -> None:
    page = hidden_contents(START)
    assert page.startswith(START)
    assert "```{toctree}\n:hidden:\n:caption: Do\n\nhow-to/one\n```" in page


def test_the_contents_have_every_page_once() -> None:
    listed = [page for section in sections(INDEX) for page in section.pages]
    there = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(listed) == sorted(there - {"index"})


def test_sections_without_contents_are_there() -> None:
    assert all(f"## {title}\n" in INDEX for title in WITHOUT_CONTENTS)


@pytest.mark.deep
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="`make site` installs Sphinx")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "tools/site", "docs", str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'href="how-to/use-the-sidecar.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
