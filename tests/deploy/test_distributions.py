"""The wheel and the source distribution: what is in them, what is not, and that they run outside of a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tools.check_release import check, read_metadata
from tools.project_urls import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: What the source distribution holds: all that the tests and `make docs` need.
TOP = {
    *("src", "tests", "tools", "docs", "deploy"),
    *("Makefile", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.md", "LICENSE"),
    *("pyproject.toml", ".gitignore", "PKG-INFO"),
}
#: Larger than any file that a person has written, or a tool for the documentation.
MOST_BYTES = 400_000
OUTSIDE = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "COLUMNS": "100"}


def build(source: Path, target: Path, **environ: str) -> tuple[Path, Path]:
    """Build both from a checkout, with the build system that is installed here."""
    line = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(target)]
    done = subprocess.run(
        line, cwd=source, capture_output=True, text=True, check=False, timeout=100, env={**OUTSIDE, **environ}
    )
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source distribution of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def tracked(*below: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", *below], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split("\n")) - {""}


def is_checkout() -> bool:
    return (ROOT / ".git").exists() and shutil.which("git") is not None


def test_the_metadata_says_what_it_is(built: tuple[Path, Path]) -> None:
    told = read_metadata(built[0])
    assert (told["Name"], told["License-Expression"], told["License-File"]) == ("segue", "Apache-2.0", "LICENSE")
    assert told["Requires-Python"] == ">=3.11"
    assert told["Metadata-Version"] >= "2.4", "a license is an expression since then"
    for name in ("Summary", "Author", "Keywords"):
        assert told[name]
    assert set(told.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    assert told["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    for package in built:
        assert read_metadata(package).get_payload() == (ROOT / "README.md").read_text("utf-8")


def test_a_package_names_no_address_unless_it_is_told(built: tuple[Path, Path]) -> None:
    assert [read_metadata(one).get_all("Project-URL") for one in built] == [None, None]
    assert len([line for line in check(built, "") if "names no" in line]) == 2 * len(VARIABLES)


def test_a_package_names_the_addresses_that_its_builder_tells(tmp_path: Path) -> None:
    told = {variable: f"https://code.example.org/{label.lower()}" for label, variable in VARIABLES.items()}
    wanted = [f"{label}, {told[variable]}" for label, variable in VARIABLES.items()]
    first = build(ROOT, tmp_path / "first", **told)
    assert [read_metadata(one).get_all("Project-URL") for one in first] == [wanted, wanted]
    version = read_metadata(first[0])["Version"]
    assert check(first, f"## [{version}] - 2026-12-01") == []
    with tarfile.open(first[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("segue-*")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "metadata"],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    urls = json.loads(done.stdout)["urls"]
    assert urls == {label: told[variable] for label, variable in VARIABLES.items()}, (
        "who builds from the source tells none"
    )
    texts = [read_metadata(one).get_payload() for one in first]
    assert texts == [json.loads(done.stdout)["readme"]["text"]] * 2
    assert "](https://code.example.org/source/raw/HEAD/docs/start/run.svg)" in texts[0]


def test_the_extra_all_has_everything_that_a_gateway_can_use() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    wanted = sorted(extras.keys() - {"all", "testing", "bench"}, reverse=True)
    assert sorted(everything.removeprefix("segue[").removesuffix("]").split(","), reverse=True) == wanted


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "segue").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == there
    assert {"segue/py.typed", "segue/stores/migrations/0001_records.sql"} <= names


def test_the_source_distribution_holds_what_is_kept_in_git_and_nothing_else(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert {name.partition("/")[0] for name in members} == TOP
    assert not [name for name, member in members.items() if not member.isfile() or member.size > MOST_BYTES]
    unwanted = ("__pycache__", ".venv", "node_modules", ".db", ".pyc", ".env", ".key", ".pem", ".log")
    assert not [name for name in members if any(part.endswith(unwanted) for part in name.split("/"))]
    assert "segue.toml" not in members, "somebody's own configuration"
    if is_checkout():
        assert members.keys() - {"PKG-INFO"} <= tracked() | tracked("--others", "--exclude-standard")


def outside(site: Path, *arguments: str, cwd: Path) -> str:
    """Run segue from an unpacked wheel, in another folder; the packages that it needs are those of this environment."""
    environ = {**OUTSIDE, "PYTHONPATH": str(site), "HOME": str(cwd)}
    line = [sys.executable, "-P", *arguments]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False, timeout=100, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_runs_outside_of_the_checkout(built: tuple[Path, Path], tmp_path: Path) -> None:
    """With all that it reads beside its modules: the tasks of the agent, and the schema of the store."""
    shutil.unpack_archive(built[0], tmp_path / "site", "zip")
    program = (
        "import segue; print(segue.__file__)\n"
        "from segue.cli.main import app\n"
        "for line in (['agent', '--list-tasks'], ['--help']):\n"
        "    app(line, result_action='return_value')"
    )
    told = outside(tmp_path / "site", "-c", program, cwd=tmp_path)
    assert told.startswith(str(tmp_path / "site"))
    assert "fix-a-failing-test" in told
    assert "segue" in told.partition("Usage:")[2]


@pytest.mark.deep  # builds everything a second time
def test_the_same_checkout_gives_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In another folder, at another time."""
    copy = tmp_path / "elsewhere"
    wanted = [path.name for path in ROOT.iterdir() if path.name in TOP]
    copy.mkdir()
    for name in wanted:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, copy / name, copy_function=shutil.copy, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(source, copy / name)
    again = build(copy, tmp_path / "dist")
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


@pytest.mark.deep
def test_a_wheel_built_from_the_source_distribution_is_the_same(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("segue-*")
    wheel, _ = build(source, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(built[0]) as other:
        assert one.namelist() == other.namelist()
        assert all(one.read(name) == other.read(name) for name in one.namelist() if not name.endswith("RECORD"))


def interpreter(version: str) -> str | None:
    """Find a Python of this version that runs here."""
    name = f"python{version}"
    known = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"))
    for program in filter(None, (*map(str, known), shutil.which(name))):
        if subprocess.run([program, "-c", "import venv"], capture_output=True, check=False, timeout=60).returncode == 0:
            return program
    return None


class Installed:
    """segue in a new environment, in a home that has nothing else."""

    def __init__(self, version: str, package: str, folder: Path) -> None:
        python = interpreter(version)
        if python is None:
            pytest.skip(f"there is no Python {version} here")
        self._folder = folder
        self._programs = folder / "env" / "bin"
        subprocess.run([python, "-m", "venv", str(folder / "env")], check=True, capture_output=True, timeout=200)
        done = self._run("pip", "install", "--quiet", "--disable-pip-version-check", package, timeout=400)
        if "No matching distribution" in done.stderr or "Failed to establish" in done.stderr:
            pytest.skip("the package index cannot be reached, or has no wheels for this Python")
        assert done.returncode == 0, done.stderr

    def _run(self, program: str, *arguments: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        line = [str(self._programs / program), *arguments]
        environ = None if program == "pip" else {**OUTSIDE, "HOME": str(self._folder), "SHELL": "/bin/bash"}
        return subprocess.run(
            line, cwd=self._folder, capture_output=True, text=True, check=False, timeout=timeout, env=environ
        )

    def segue(self, *arguments: str) -> str:
        """Run segue; return what it prints."""
        done = self._run("segue", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, program: str) -> str:
        """Run a program; return what it prints."""
        done = self._run("python", "-c", program)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_a_newcomer_can_install_it(version: str, built: tuple[Path, Path], tmp_path: Path) -> None:
    """Into a new environment, from the package index. Without the extra `local`, the scripted model answers."""
    new = Installed(version, str(built[0]), tmp_path)
    assert "Usage: segue" in new.segue("--help")
    assert "% less" in new.segue("demo")
    assert "fix-a-failing-test" in new.segue("agent", "--list-tasks")
    assert "bash-completion/completions/segue" in new.segue("--install-completion")
    assert (tmp_path / ".local" / "share" / "bash-completion" / "completions" / "segue").read_text().strip()


#: Packages that an extra brings, by the names under which they are imported.
BROUGHT = {"local": "cyllama, jinja2, llguidance", "cluster": "psycopg, redis", "all": "cyllama, psycopg, redis"}


@pytest.mark.deep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", BROUGHT)
def test_a_newcomer_can_install_an_extra_from_the_source(extra: str, built: tuple[Path, Path], tmp_path: Path) -> None:
    """The source distribution is built on the way. With the extra `local`, the model of the demo can be fetched."""
    new = Installed("3.11", f"{built[1]}[{extra}]", tmp_path)
    assert (
        new.python(f"import {BROUGHT[extra]}, segue; print(segue.__version__)").strip()
        == read_metadata(built[0])["Version"]
    )
    if extra == "local":
        assert new.segue("model", "get", "smollm2").startswith(f"smollm2: {tmp_path}")
        assert "Context at the end" in new.segue("demo")


@pytest.mark.deep  # hatchling has judged classifiers and license while it built
def test_an_index_would_take_both(built: tuple[Path, Path]) -> None:
    """With the tool that uploads: metadata, and a README that it can show."""
    twine = shutil.which("twine", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if twine is None:
        pytest.skip("there is no twine here: `pip install --group deploy`")
    line = [twine, "check", "--strict", *map(str, built)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env=OUTSIDE)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout
