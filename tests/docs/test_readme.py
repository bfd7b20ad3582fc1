"""Every figure in the README's own words is in its table of commands, or in the picture that it describes."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from tools.measured_tables import headlines

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_FIGURE = re.compile(rf"(?<![\w.])({_NUMBER})(?:%|\s(?:%|KB|MB|GB|bytes|times|ms)\b)")


def own_words(page: str) -> str:
    """Return a page without the parts that are made, and without snippets."""
    without_parts = re.sub(r"<!-- generated:.*?<!-- /generated -->", "", page, flags=re.DOTALL)
    return re.sub(r"^```.*?^```", "", without_parts, flags=re.DOTALL | re.MULTILINE)


def test_every_figure_is_in_the_table_of_commands() -> None:
    described = re.sub(r"!\[[^]]*]", "", own_words(README))
    figures = set(_FIGURE.findall(described))
    assert figures, "the README has figures"
    assert figures - set(re.findall(_NUMBER, headlines())) == set()


def test_the_words_for_the_picture_are_those_in_it() -> None:
    picture = unescape((ROOT / "docs" / "start" / "run.svg").read_text(encoding="utf-8")).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    said = {
        words
        for page in (ROOT / "README.md", ROOT / "docs" / "start" / "agent-on-a-bad-link.md")
        for words in re.findall(r"!\[segue run ends with: ([^]]+)]", page.read_text(encoding="utf-8"))
    }
    assert len(said) == 1
    assert said.pop() in picture
