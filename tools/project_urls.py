"""Where the project is to be found, for the metadata of a package: told by the environment when it is built.

A checkout does not know its own public address, and a fork has another one. Whoever publishes names the addresses:

    export RELEASE_SOURCE_URL=https://… RELEASE_DOCUMENTATION_URL=https://…
    export RELEASE_CHANGELOG_URL=https://… RELEASE_ISSUES_URL=https://…
    python -m hatchling build

Without any of these, a package is built that names none. hatchling loads this file as a metadata hook. Not here:
whether a package that is built may be published (`check_release`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: By the labels that a package index knows: what it shows under the name of each.
VARIABLES = {label: f"RELEASE_{label.upper()}_URL" for label in ("Source", "Documentation", "Changelog", "Issues")}


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


class ProjectUrlsHook(MetadataHookInterface):
    """Adds the addresses to the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add what the environment tells. A source distribution has its addresses with it, and keeps them."""
        if "urls" not in metadata:
            urls = project_urls(os.environ)
            if urls:
                metadata["urls"] = urls
