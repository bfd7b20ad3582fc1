"""The documentation agrees with the code and with itself: generated parts are fresh, links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import generate_latest

from segue.config import (
    AgentConfig,
    CertificateConfig,
    CompactionConfig,
    Config,
    KeyConfig,
    LimitsConfig,
    ListenerConfig,
    RouteConfig,
    ServerConfig,
    SidecarConfig,
    SshConfig,
    TenantConfig,
    TunnelConfig,
    UpstreamConfig,
)
from segue.gateway.admin.metrics import Metrics
from segue.http.error_replies import FailureCode
from segue.protocol.problems import Code
from tests.docs.snippets import pages
from tools.generate_docs import stale_pages

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"

_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^]]*\]\((?P<target>[^)\s]+)\)")


def links_of(page: Path) -> Iterator[str]:
    """Yield the targets of a page's links."""
    for found in _LINK.finditer(_CODE.sub("", page.read_text(encoding="utf-8"))):
        yield found["target"]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that the headings of a page get."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown(name: str) -> set[str]:
    """Return what stands in the first column of the tables of a reference page."""
    return set(re.findall(r"^\| `([^`]+)` \|", (REFERENCE / name).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.deep  # its quick twin: `make check` looks too
def test_generated_parts_are_fresh() -> None:
    """What stands between the marks is what the code says now; `make docs` makes it so."""
    assert [str(page) for page in stale_pages(ROOT)] == []


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository names one that exists, and a heading that it has."""
    for link in links_of(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors_of(target), f"{link}: no such heading"


def test_every_page_can_be_reached() -> None:
    """The table of contents leads to every page of docs/."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links_of(index)}
    assert set((ROOT / "docs").rglob("*.md")) - linked == {index}


def test_every_setting_is_listed() -> None:
    """Each key that the configuration accepts is in its reference, and each table has a heading."""
    for struct in (
        ServerConfig,
        ListenerConfig,
        UpstreamConfig,
        KeyConfig,
        CertificateConfig,
        LimitsConfig,
        TenantConfig,
        RouteConfig,
        TunnelConfig,
        SidecarConfig,
        SshConfig,
        AgentConfig,
        CompactionConfig,
    ):
        assert set(struct.__struct_fields__) <= shown("configuration.md")
    assert set(Config.__struct_fields__) == {
        "server",
        "listener",
        "compaction",
        "upstream",
        "key",
        "certificate",
        "limits",
        "tenant",
        "route",
        "tunnel",
        "sidecar",
        "ssh",
        "agent",
    }


def test_every_error_code_is_listed_with_a_message() -> None:
    """Each code that a client can get is in the reference, with what it says."""
    assert set(get_args(Code)) | set(get_args(FailureCode)) <= shown("errors.md")
    assert re.findall(r"^\| `(\w+)` \| \d+ .*\|  \|$", (REFERENCE / "errors.md").read_text("utf-8"), re.MULTILINE) == []


def test_every_metric_is_explained() -> None:
    """Each metric is in the reference, under the name that it is scraped by, with a help text."""
    names = {line.split()[2] for line in scrape().splitlines() if line.startswith("# HELP")}
    ours = {name for name in names if name.startswith("segue_") and not name.endswith("_created")}
    assert ours <= shown("metrics.md")
    page = (REFERENCE / "metrics.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in names if not name.startswith("segue_")), "those of the process"


def scrape() -> str:
    """Return what a new gateway answers on `GET /metrics`."""
    return generate_latest(Metrics().registry).decode()
