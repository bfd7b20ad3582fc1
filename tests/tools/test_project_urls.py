"""The addresses in a package's metadata are those that the environment tells: all, or none."""

from __future__ import annotations

import pytest

from tools.project_urls import VARIABLES, ProjectUrlsHook, project_urls, url_problem

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


def test_the_hook_adds_them_and_keeps_those_of_a_source_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = ProjectUrlsHook("", {})
    bare: dict[str, object] = {"name": "segue"}
    hook.update(bare)
    assert bare == {"name": "segue"}
    for variable, url in TOLD.items():
        monkeypatch.setenv(variable, url)
    hook.update(bare)
    assert bare["urls"] == URLS
    kept: dict[str, object] = {"urls": {"Source": "https://elsewhere.example.org/"}}
    hook.update(kept)
    assert kept == {"urls": {"Source": "https://elsewhere.example.org/"}}
