"""Says whether packages may be published: each names where its source, documentation, changelog and issues are,
and its description leads nowhere else.

    python -m tools.check_release dist/*

It reads the packages and prints one line per finding; it never changes a file. Not here: what an index itself demands,
which `twine check --strict` says.
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path

from markdown_it import MarkdownIt

from tools.project_urls import VARIABLES, is_relative, url_problem

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def check(packages: Sequence[Path], changelog: str) -> list[str]:
    """Return the findings in these packages and in the changelog that goes with them."""
    findings = [f"{package.name}: {finding}" for package in packages for finding in _package(package, changelog)]
    kinds = {package.suffix for package in packages}
    return [*findings, *(f"there is no *{kind}" for kind in (".gz", ".whl") if kind not in kinds)]


def read_metadata(package: Path) -> Message:
    """Read the metadata of a wheel or of a source distribution.

    Raises:
        ValueError: It is neither, or has none.
    """
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for name in wheel.namelist():
                if name.endswith(".dist-info/METADATA"):
                    return Parser().parsestr(wheel.read(name).decode())
    elif package.name.endswith(".tar.gz"):
        with tarfile.open(package) as archive:
            for member in archive:
                file = archive.extractfile(member) if re.fullmatch(r"[^/]+/PKG-INFO", member.name) else None
                if file is not None:
                    return Parser().parsestr(file.read().decode())
    raise ValueError("this is no package")


def relative_links(markdown: str) -> list[str]:
    """Return where pictures and links of a text lead that name a file beside it."""
    blocks = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    spans = [span for block in blocks for span in block.children or ()]
    nested = [inner for span in spans for inner in span.children or ()]
    targets = [str(one.attrs.get("href") or one.attrs.get("src") or "") for one in (*spans, *nested)]
    return [target for target in targets if target and is_relative(target)]


def _package(package: Path, changelog: str) -> Iterator[str]:
    try:
        metadata = read_metadata(package)
    except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        yield str(error)
        return
    pairs = (str(line).partition(",") for line in metadata.get_all("Project-URL", []))
    urls = {label.strip(): url.strip() for label, _, url in pairs}
    for label, variable in VARIABLES.items():
        if label not in urls:
            yield f"names no {label}: build it with {variable}"
            continue
        problem = url_problem(urls[label])
        if problem is not None:
            yield f"{label}: {urls[label]!r} {problem}"
    for target in relative_links(str(metadata.get_payload())):
        yield f"the description leads to {target}, which an index does not have"
    version = metadata["Version"]
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        yield f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD'"


def main(arguments: Sequence[str]) -> int:
    """Check the packages that are named."""
    findings = check([Path(name) for name in arguments], CHANGELOG.read_text(encoding="utf-8"))
    print("\n".join(findings or ["These packages may be published."]))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
