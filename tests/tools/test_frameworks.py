"""The environments of the agent frameworks: which there are, when one is made anew, and why one could not be made."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.integration.test_frameworks import FRAMEWORKS
from tools.frameworks import Environment, main, wanted


def wheel(folder: Path) -> str:
    """A distribution that holds nothing."""
    path = folder / "hollow-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hollow-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hollow\nVersion: 1.0\n")
        archive.writestr("hollow-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("hollow-1.0.dist-info/RECORD", "")
    return str(path)


def test_each_framework_has_a_group_with_exact_versions_and_a_program() -> None:
    assert set(wanted()) == {framework for framework in FRAMEWORKS.values() if framework is not None}
    assert all("==" in requirement for group in wanted().values() for requirement in group)


@pytest.mark.deep
def test_an_environment_holds_its_group_or_says_why_not(tmp_path: Path) -> None:
    environment = Environment("hollow", tmp_path)
    missing = str(tmp_path / "missing-1.0-py3-none-any.whl")
    environment.make([missing])
    failure = environment.failure()
    assert failure is not None
    assert "missing-1.0" in failure
    assert not environment.is_current([missing])
    given = [wheel(tmp_path)]
    environment.make(given)
    assert environment.failure() is None, "it was made anew"
    assert environment.is_current(given)
    assert not environment.is_current([*given, "more"])
    told = [str(environment.python), "-c", "from importlib.metadata import version; print(version('hollow'))"]
    assert subprocess.run(told, capture_output=True, text=True, check=True).stdout == "1.0\n"


def test_what_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    monkeypatch.setattr(Environment, "make", lambda self, requirements: made.append(self.name))
    first, *others = wanted()
    (tmp_path / first).mkdir()
    (tmp_path / first / ".requirements").write_text("\n".join(wanted()[first]), "utf-8")
    (tmp_path / others[0]).mkdir()
    (tmp_path / others[0] / ".failure").write_text("No such version.", "utf-8")
    main(tmp_path)
    assert made == others
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [f"{first}: ready", f"{others[0]}: left out: No such version."]
