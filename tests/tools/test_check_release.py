"""A package that does not say where its source, documentation, changelog and issues are is not published."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tools import check_release
from tools.check_release import check, main
from tools.project_urls import VARIABLES

CHANGELOG = "## [Unreleased]\n\n## [1.2.3] - 2026-12-01\n"
URLS = "".join(f"Project-URL: {label}, https://code.example.org/{label.lower()}\n" for label in VARIABLES)


def packages(folder: Path, urls: str) -> list[Path]:
    """A wheel and a source distribution with these lines in their metadata."""
    text = f"Metadata-Version: 2.4\nName: segue\nVersion: 1.2.3\n{urls}\nA README.\nProject-URL: Source, x\n"
    wheel, sdist = folder / "segue-1.2.3-py3-none-any.whl", folder / "segue-1.2.3.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("segue-1.2.3.dist-info/METADATA", text)
    with tarfile.open(sdist, "w:gz") as packed:
        for name, content in (("segue-1.2.3/tests/PKG-INFO", "Name: other\n"), ("segue-1.2.3/PKG-INFO", text)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content.encode()))
    return [wheel, sdist]


def test_packages_that_name_all_addresses_may_be_published(tmp_path: Path) -> None:
    assert check(packages(tmp_path, URLS), CHANGELOG) == []


@pytest.mark.parametrize("label", VARIABLES)
def test_each_address_is_missed_in_both(label: str, tmp_path: Path) -> None:
    rest = "".join(line for line in URLS.splitlines(keepends=True) if f" {label}," not in line)
    both = packages(tmp_path, rest)
    assert check(both, CHANGELOG) == [f"{one.name}: names no {label}: build it with {VARIABLES[label]}" for one in both]


def test_an_address_that_nobody_can_open_is_found(tmp_path: Path) -> None:
    found = check(packages(tmp_path, URLS.replace("https://code.example.org/issues", "http://localhost/")), CHANGELOG)
    assert len(found) == 2
    assert all("Issues: 'http://localhost/' does not begin with https://" in line for line in found)


@pytest.mark.parametrize(
    ("description", "target"),
    [
        ("![a](docs/a.svg)", "docs/a.svg"),
        ("| [b](c.md#d) |\n| --- |", "c.md#d"),
        ("[![e](f.svg)](https://x.example)", "f.svg"),
    ],
)
def test_a_description_that_leads_to_a_file_is_found(description: str, target: str, tmp_path: Path) -> None:
    both = packages(tmp_path, f"{URLS}\n{description}\n\n[g](https://x.example) [h](#i)\n")
    words = f"the description leads to {target}, which an index does not have"
    assert check(both, CHANGELOG) == [f"{one.name}: {words}" for one in both]


def test_a_version_of_which_the_changelog_does_not_speak_is_found(tmp_path: Path) -> None:
    for other in ("## [Unreleased]\n", "## [1.2.3]\n", "## [11.2.3] - 2026-12-01\n"):
        assert all("no section '## [1.2.3] - " in line for line in check(packages(tmp_path, URLS), other))


def test_both_kinds_are_wanted_and_what_is_no_package_is_named(tmp_path: Path) -> None:
    wheel, sdist = packages(tmp_path, URLS)
    assert check([wheel], CHANGELOG) == ["there is no *.gz"]
    assert check([sdist], CHANGELOG) == ["there is no *.whl"]
    broken = tmp_path / "broken.whl"
    broken.write_text("no archive")
    empty = tmp_path / "empty.tar.gz"
    tarfile.open(empty, "w:gz").close()
    missing = tmp_path / "missing.whl"
    found = check([broken, empty, missing], CHANGELOG)
    assert [line.partition(":")[0] for line in found] == ["broken.whl", "empty.tar.gz", "missing.whl"]


def test_the_command_says_so_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(CHANGELOG)
    monkeypatch.setattr(check_release, "CHANGELOG", changelog)
    both = packages(tmp_path, URLS)
    assert main([str(one) for one in both]) == 0
    assert main([str(both[0])]) == 1
    assert capsys.readouterr().out == "These packages may be published.\nthere is no *.gz\n"
