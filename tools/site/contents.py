"""The contents of the site: the order of its pages is that of the links in docs/index.md.

A page is listed under the heading of its first link. So a reader of the files and a reader of the site find the same
order, and no second list has to be kept. Not here: the building (`conf`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Sections of the start page that only lead to pages of other sections.
WITHOUT_CONTENTS = frozenset({"Where do you want to begin?"})

_HEADING = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
_PAGE = re.compile(r"\]\((?P<page>[a-z0-9/-]+)\.md(?:#[^)]*)?\)")


class Section(NamedTuple):
    """A heading of the start page, and the pages below it, as names without their suffix."""

    title: str
    pages: list[str]


def sections(index: str) -> list[Section]:
    """Return the sections of the start page, each with the pages that no section before it has."""
    pieces = _HEADING.split(index)[1:]
    listed: set[str] = set()
    found = []
    for title, text in zip(pieces[::2], pieces[1::2], strict=True):
        if title in WITHOUT_CONTENTS:
            continue
        pages = [page for page in dict.fromkeys(_PAGE.findall(text)) if page not in listed]
        listed.update(pages)
        found.append(Section(title, pages))
    return [section for section in found if section.pages]


def hidden_contents(index: str) -> str:
    """Return the start page with the tables of contents that Sphinx makes its sidebar of."""
    trees = (
        f"```{{toctree}}\n:hidden:\n:caption: {section.title}\n\n" + "\n".join(section.pages) + "\n```\n"
        for section in sections(index)
    )
    return "\n".join([index, *trees])
