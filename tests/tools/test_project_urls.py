"""The addresses in a package's metadata are those that the environment tells: all, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools.check_release import relative_links
from tools.project_urls import VARIABLES, ProjectUrlsHook, absolute_links, project_urls, url_problem

ROOT = Path(__file__).resolve().parents[2]
TOLD = {variable: f"https://code.example.org/segue/{label.lower()}" for label, variable in VARIABLES.items()}
URLS = {label: TOLD[variable] for label, variable in VARIABLES.items()}


def test_without_any_there_are_none() -> None:
    assert project_urls({}) == project_urls(dict.fromkeys(TOLD, " ")) == {}


def test_all_are_taken_under_the_labels_that_an_index_knows() -> None:
    assert project_urls(TOLD) == URLS
    assert list(URLS) == ["Source", "Documentation", "Changelog", "Issues"]


@pytest.mark.parametrize("left_out", TOLD)
def test_some_are_an_error_that_names_the_others(left_out: str) -> None:
    with pytest.raises(ValueError, match=f"set {left_out} too"):
        project_urls({**TOLD, left_out: ""})


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://code.example.org/segue", "does not begin with https://"),
        ("code.example.org/segue", "does not begin with https://"),
        ("https:///segue", "does not begin with https://"),
        ("https://me:secret@code.example.org/segue", "user or a password"),
        ("https://localhost/segue", "everybody can name"),
        ("https://build.internal/segue", "everybody can name"),
        ("https://10.0.0.1/segue", "everybody can name"),
        ("https://[2001:db8::1]/segue", "everybody can name"),
        ("https://[2001:db8::1/segue", "is no address"),
        ("https://code.example.org:port/segue", "is no address"),
        ("https://code.example.org/a b", "characters"),
        ("https://code.example.org/a\nLicense: none", "characters"),
    ],
)
def test_an_address_that_nobody_else_can_open_is_refused(url: str, problem: str) -> None:
    assert problem in (url_problem(url) or "")
    with pytest.raises(ValueError, match="RELEASE_ISSUES_URL"):
        project_urls({**TOLD, "RELEASE_ISSUES_URL": url})


SOURCE = "https://code.example.org/segue"


@pytest.mark.parametrize(
    ("markdown", "moved"),
    [
        ("![a picture](docs/a.svg)", f"![a picture]({SOURCE}/raw/HEAD/docs/a.svg)"),
        ("[the page](docs/a.md#part)", f"[the page]({SOURCE}/blob/HEAD/docs/a.md#part)"),
        ("[over\ntwo lines](a.md)", f"[over\ntwo lines]({SOURCE}/blob/HEAD/a.md)"),
        ("[![build](b.svg)](a.md)", f"[![build]({SOURCE}/raw/HEAD/b.svg)]({SOURCE}/blob/HEAD/a.md)"),
        ("[a [b] c](a.md)", f"[a [b] c]({SOURCE}/blob/HEAD/a.md)"),
        ("[![build](https://x.example/b.svg)](a.md)", f"[![build](https://x.example/b.svg)]({SOURCE}/blob/HEAD/a.md)"),
        ("[out](https://x.example/), [mail](mailto:a@x.example)", None),
        ("[below](#part)", None),
        ("```toml\n[a](b)\n```\n", None),
        ("no link: a[1](2 3)", None),
    ],
)
def test_what_names_a_file_leads_to_the_source(markdown: str, moved: str | None) -> None:
    assert absolute_links(markdown, SOURCE) == absolute_links(markdown, SOURCE + ".git/") == (moved or markdown)
    assert absolute_links(absolute_links(markdown, SOURCE), "https://other.example.org") == (moved or markdown)


def test_no_link_of_the_readme_is_left_out() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files = relative_links(readme)
    assert len(files) >= 20
    assert [target for target in files if not (ROOT / target.partition("#")[0]).exists()] == []
    assert relative_links(absolute_links(readme, SOURCE)) == []


def test_the_hook_adds_them_and_keeps_those_of_a_source_distribution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("![a](a.svg)")
    hook = ProjectUrlsHook(str(tmp_path), {})
    bare: dict[str, Any] = {"name": "segue"}
    hook.update(bare)
    assert bare == {"name": "segue", "readme": {"file": "README.md", "content-type": "text/markdown"}}
    for variable, url in TOLD.items():
        monkeypatch.setenv(variable, url)
    hook.update(bare)
    assert bare["urls"] == URLS
    text = f"![a]({TOLD['RELEASE_SOURCE_URL']}/raw/HEAD/a.svg)"
    assert bare["readme"] == {"text": text, "content-type": "text/markdown"}
    theirs = {"urls": {"Source": "https://elsewhere.example.org/"}, "readme": {"text": "![a](https://b.example/)"}}
    kept: dict[str, Any] = dict(theirs)
    hook.update(kept)
    assert kept == theirs
