"""Where the project is to be found, for the metadata of a package: told by the environment when it is built.

A checkout does not know its own public address, and a fork has another one. Whoever publishes names the addresses:

    export RELEASE_SOURCE_URL=https://… RELEASE_DOCUMENTATION_URL=https://…
    export RELEASE_CHANGELOG_URL=https://… RELEASE_ISSUES_URL=https://…
    python -m hatchling build

Without any of these, a package is built that names none. An index shows the README as the package's description, and
has no files beside it: where the source is told, the README's pictures and links lead there. hatchling loads this file
as a metadata hook. Not here: whether a package that is built may be published (`check_release`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: By the labels that a package index knows: what it shows under the name of each.
VARIABLES = {label: f"RELEASE_{label.upper()}_URL" for label in ("Source", "Documentation", "Changelog", "Issues")}

#: What describes the package, as in `project.readme` of pyproject.toml.
README = {"file": "README.md", "content-type": "text/markdown"}
#: In Markdown: a picture or a link, its text (which may hold a picture), and where it leads.
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|!?\[[^\[\]]*\](?:\([^()\s]*\))?)*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def project_urls(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses by their labels: all of them, or none.

    Raises:
        ValueError: Only some are told, or one is no public address.
    """
    told = {label: environ.get(variable, "").strip() for label, variable in VARIABLES.items()}
    if not any(told.values()):
        return {}
    missing = [VARIABLES[label] for label, url in told.items() if not url]
    if missing:
        raise ValueError(f"a package that names one of its addresses names all: set {', '.join(missing)} too")
    for label, url in told.items():
        problem = url_problem(url)
        if problem is not None:
            raise ValueError(f"{VARIABLES[label]}: {url!r} {problem}")
    return told


def url_problem(url: str) -> str | None:
    """Return what is wrong with an address that everybody is to open, if anything."""
    if not url.isascii() or any(char <= " " or char in '<>"' for char in url):
        return "has characters that no address has"
    try:
        parts = urlsplit(url)
        host, user = parts.hostname or "", parts.username
        _ = parts.port
    except ValueError as error:
        return f"is no address: {error}"
    if parts.scheme != "https" or not host:
        return "does not begin with https://HOST/"
    if user is not None:
        return "has a user or a password"
    if "." not in host or host.endswith((".local", ".internal", ".localhost")) or host[-1].isdecimal() or ":" in host:
        return "is not on a host that everybody can name"
    return None


def absolute_links(markdown: str, source: str) -> str:
    """Let pictures and links that name a file of the project lead to it, in the newest state of its source.

    `source` is the address of the repository. GitHub serves a file below it at `raw/HEAD/`, and shows it as a page at
    `blob/HEAD/`; GitLab leads from there to its own.
    """
    source = source.removesuffix("/").removesuffix(".git")

    def moved(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        text = _LINK.sub(moved, text)
        if not is_relative(target):
            return f"{picture}[{text}]({target})"
        return f"{picture}[{text}]({source}/{'raw' if picture else 'blob'}/HEAD/{target})"

    pieces = _FENCE.split(markdown)
    return "".join(piece if piece.startswith("```") else _LINK.sub(moved, piece) for piece in pieces)


def is_relative(target: str) -> bool:
    """Say whether a link names a file beside the page that it is on."""
    return not target.startswith(("#", "/")) and not urlsplit(target).scheme


class ProjectUrlsHook(MetadataHookInterface):
    """Adds the addresses to the metadata, and the description, whose links lead to them."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add what the environment tells. A source distribution has its addresses with it, and keeps them."""
        readme = metadata.setdefault("readme", README)
        if "urls" in metadata:
            return
        urls = project_urls(os.environ)
        if urls:
            metadata["urls"] = urls
            text = readme.get("text") or Path(self.root, readme["file"]).read_text(encoding="utf-8")
            metadata["readme"] = {
                "content-type": readme["content-type"],
                "text": absolute_links(text, urls["Source"]),
            }
