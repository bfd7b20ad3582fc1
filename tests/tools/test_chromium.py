"""Where the tests' browser comes from: the search path, or a package that is unpacked; and what is said without one."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import tarfile
from pathlib import Path

import brotli
import pytest

from tools import chromium
from tools.chromium import environment, install, installed, main, unpack


@pytest.fixture(autouse=True)
def nothing_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(chromium, "PLATFORM", (platform.system(), platform.machine()))
    return path


def program(file: Path, text: str = "") -> Path:
    file.write_text(f"#!/bin/sh\n{text}")
    file.chmod(0o755)
    return file


def pack(folder: Path) -> Path:
    """A package with a program, a library and a font."""
    folder.mkdir(parents=True)
    (folder / "chromium.br").write_bytes(brotli.compress(b"the program"))
    for archive, name in (("al2023", "lib/libx.so"), ("fonts", "fonts/x.ttf")):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as writing:
            writing.addfile(tarfile.TarInfo(name))
        (folder / f"{archive}.tar.br").write_bytes(brotli.compress(packed.getvalue()))
    return folder


def test_one_on_the_search_path_is_preferred(tmp_path: Path, nothing_on_the_path: Path) -> None:
    assert installed(tmp_path) is None
    own = program(tmp_path / "chromium")
    assert installed(tmp_path) == own
    other = program(nothing_on_the_path / "google-chrome")
    assert installed(tmp_path) == other
    assert environment(other) == dict(os.environ)


def test_a_package_is_unpacked_with_its_libraries_and_fonts(tmp_path: Path) -> None:
    unpack(pack(tmp_path / "packed"), tmp_path)
    found = installed(tmp_path)
    assert found is not None
    assert (found.read_bytes(), found.stat().st_mode & 0o777) == (b"the program", 0o755)
    given = environment(found)
    assert (Path(given["LD_LIBRARY_PATH"]) / "libx.so").exists()
    assert str(tmp_path / "fonts") in Path(given["FONTCONFIG_FILE"]).read_text()
    assert (tmp_path / "fonts" / "x.ttf").exists()


def test_npm_installs_the_package(
    tmp_path: Path, nothing_on_the_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(nothing_on_the_path / "npm")
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        pack(tmp_path / "own" / "node_modules" / "@sparticuz" / "chromium" / "bin")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    main(tmp_path / "own")
    main(tmp_path / "own")
    assert capsys.readouterr().out == "Chromium: ready\n" * 2
    assert len(asked) == 1, "what is there is not installed again"
    assert asked[0][-1].startswith("@sparticuz/chromium@")


def test_a_failure_is_told(tmp_path: Path, nothing_on_the_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(tmp_path)
    assert capsys.readouterr().out.startswith("Chromium: left out: npm is not installed")
    program(nothing_on_the_path / "npm", "echo no such package >&2\nexit 1\n")
    assert install(tmp_path) == "no such package"
    program(nothing_on_the_path / "npm", "exit 1\n")
    assert install(tmp_path) == "npm failed"
