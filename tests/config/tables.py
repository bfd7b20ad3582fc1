"""Configurations as text, and their reading, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from segue.config import Config, ConfigError, load

SHA = "0" * 64
OTHER_SHA = "f" * 64
KEY = {"name": "k", "tenant": "t", "sha256": SHA}
KEY_TOML = f'[[key]]\nname = "k"\ntenant = "t"\nsha256 = "{SHA}"\n'
UPSTREAM_TOML = '[[upstream]]\nname = "{name}"\ndialect = "scripted"\nmodels = ["m"]\n'
PROVIDER_TOML = '[[upstream]]\nname = "u"\ndialect = "chat"\nmodels = ["m"]\nbase_url = "https://api.example/v1"\n'


def from_toml(folder: Path, text: str, environ: Mapping[str, str] | None = None, **server: object) -> Config:
    path = folder / "segue.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {}, relative_to=None, sidecar=None, agent=None, **server)


def error_of(folder: Path, text: str, environ: Mapping[str, str] | None = None, **server: object) -> str:
    with pytest.raises(ConfigError) as caught:
        from_toml(folder, text, environ, **server)
    return str(caught.value)
