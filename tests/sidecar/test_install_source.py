"""What may be fetched on another machine is what its user has named exactly, and one word of any shell."""

from __future__ import annotations

import shlex

import pytest

from segue.sidecar.install_source import InstallSource, parse_install_source

HASH = "#sha256=" + "0a" * 32


@pytest.mark.parametrize(
    "text",
    [
        "segue==0.1.0",
        "acme-segue==1.0rc1+corp.2",
        "~/segue-0.1.0-py3-none-any.whl",
        "/srv/wheels/segue-0.1.0-py3-none-any.whl",
        "https://wheels.example.com/segue-0.1.0-py3-none-any.whl",
        f"https://wheels.example.com:8443/a/segue-0.1.0-py3-none-any.whl{HASH}",
    ],
)
def test_an_exact_version_and_a_wheel_say_what_to_fetch(text: str) -> None:
    source = parse_install_source(text)
    assert source == InstallSource(text)
    assert shlex.split(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "true",
        "segue",  # whoever owns that name on an index decides what it is
        "segue>=0.1",
        "segue==0.1.*",
        "segue==",
        "--index-url=https://evil.example==1",
        "segue @ https://wheels.example.com/segue.whl",
        "segue-0.1.0-py3-none-any.whl",  # in which folder, of which machine?
        "./segue-0.1.0-py3-none-any.whl",
        "/srv/segue-0.1.0.tar.gz",
        "http://wheels.example.com/segue-0.1.0-py3-none-any.whl",
        "https://me:secret@wheels.example.com/segue-0.1.0-py3-none-any.whl",
        "https://wheels.example.com/segue-0.1.0-py3-none-any.whl#sha256=12",
        "git+https://example.com/segue",
        "segue==1; id",
        "segue==1'0",
        "~/$(id).whl",
        "~/a b.whl",
        "~/a\n.whl",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not say exactly what to fetch: NAME==VERSION, or a wheel"):
        parse_install_source(text)


def test_an_index_is_told_in_each_tools_own_words() -> None:
    source = parse_install_source("segue==0.1.0", "https://pypi.example.com/simple/")
    assert source.options("--index-url") == ("--index-url", "https://pypi.example.com/simple/")
    assert InstallSource("segue==0.1.0").options("--index-url") == ()


@pytest.mark.parametrize(
    ("text", "index", "told"),
    [
        ("segue==1", "http://pypi.example.com/simple", "is not the address of a package index"),
        ("segue==1", "https://me:secret@pypi.example.com/simple", "without user and password"),
        ("segue==1", "https://pypi.example.com/simple/ -r x", "is not the address of a package index"),
        ("~/segue-1-py3-none-any.whl", "https://pypi.example.com/simple/", "name only one of the two"),
    ],
)
def test_an_index_that_cannot_be_meant_is_refused(text: str, index: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_install_source(text, index)
