"""The secret beside the file of a store."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from segue.config import ConfigError
from segue.gateway.sealing_secret import stored_secret


def test_a_secret_is_made_once_and_is_its_users_alone(tmp_path: Path) -> None:
    store, file = tmp_path / "segue.db", tmp_path / "segue.db.secret"
    assert stored_secret(store, make=False) is None
    assert list(tmp_path.iterdir()) == []
    made = stored_secret(store, make=True)
    assert made is not None
    assert len(made) == 64
    assert file.read_bytes() == made
    file.chmod(0o644)
    assert stored_secret(store, make=False) == stored_secret(store, make=True) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stored_secret(tmp_path / "other.db", make=True) != made


def test_a_file_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "segue.db.secret"
    file.write_bytes(b"cut")
    made = stored_secret(tmp_path / "segue.db", make=True)
    assert made == file.read_bytes()
    assert len(made) == 64


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Such as a link, which may lead anywhere."""
    (tmp_path / "segue.db.secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"segue\.db\.secret"):
        stored_secret(tmp_path / "segue.db", make=True)
    assert not (tmp_path / "elsewhere").exists()
