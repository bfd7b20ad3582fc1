"""The gateway's keys: those in its configuration, and those that are sent to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from segue.config.errors import ConfigError
from segue.config.keys import KeyConfig, key_of_file, sendable_key

DIGEST = "0" * 64


def test_a_key_is_known_by_its_digest() -> None:
    key = msgspec.convert({"name": "ann", "tenant": "a", "sha256": DIGEST}, KeyConfig)
    assert (key.name, key.tenant, key.sha256) == ("ann", "a", DIGEST)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"tenant": ""}, {"sha256": "0" * 63}, {"sha256": "A" * 64}, {"key": "sk-secret"}]
)
def test_what_is_no_key_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "ann", "tenant": "a", "sha256": DIGEST} | wrong, KeyConfig)


@pytest.mark.parametrize("key", ["sk-1", " sk-1", "sk-1\n", "\tsk-1\r\n"])
def test_what_a_file_or_a_shell_adds_to_a_key_is_left_out(key: str) -> None:
    assert sendable_key(key, "SEGUE_SIDECAR_KEY") == "sk-1"


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_a_key_of_blanks_is_none(key: str) -> None:
    assert sendable_key(key, "SEGUE_SIDECAR_KEY") is None


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-se\x00cret", "sk-se\x7fcret"])
def test_a_key_that_no_header_can_hold_is_refused_by_the_name_of_its_source(key: str) -> None:
    with pytest.raises(ConfigError, match="--key cannot be sent") as raised:
        sendable_key(key, "--key")
    assert "sk-" not in str(raised.value)


def test_a_file_holds_a_key_with_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(" sk-1\n")
    assert key_of_file(str(tmp_path / "key")) == "sk-1"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "cannot read the key file .*: No such file"),
        (Path.mkdir, "cannot read the key file .*: Is a directory"),
        (lambda file: file.write_bytes(b"\xff\xfesecret"), "holds no text"),
        (lambda file: file.write_text("secret" * 1000), "holds more than a key"),
        (lambda file: file.write_text(" \n"), "is empty"),
        (lambda file: file.write_text("sk-secret\nx"), "what the key file .* holds cannot be sent as a key"),
    ],
)
def test_a_file_that_holds_no_key_is_named_and_not_quoted(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    make(file)
    with pytest.raises(ConfigError, match=words) as raised:
        key_of_file(str(file))
    assert "secret" not in str(raised.value)
