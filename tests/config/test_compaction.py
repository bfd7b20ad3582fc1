"""`[compaction]`: its limits and its secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.config import CompactionConfig, ConfigError, compaction_secrets
from tests.config.tables import error_of, from_toml


def test_the_table_is_read(tmp_path: Path) -> None:
    read = from_toml(tmp_path, '[compaction]\nsecrets_env = ["A", "B"]\nprompt = "Sum up."\nthreshold_tokens = 5000\n')
    assert read.compaction == CompactionConfig(secrets_env=["A", "B"], prompt="Sum up.", threshold_tokens=5000)


@pytest.mark.parametrize(
    "line", ["threshold_tokens = 999", "summary_tokens = 255", 'prompt = ""', "retained_tokens = -1"]
)
def test_what_cannot_be_is_refused(tmp_path: Path, line: str) -> None:
    assert line.partition(" ")[0] in error_of(tmp_path, f"[compaction]\n{line}\n")


def test_secrets_come_from_variables_the_first_to_seal_with() -> None:
    table = CompactionConfig(secrets_env=["NEW", "OLD"])
    assert compaction_secrets(table, {"NEW": "n" * 32, "OLD": "o" * 44}) == [b"n" * 32, b"o" * 44]
    assert compaction_secrets(CompactionConfig(), {}) == []


@pytest.mark.parametrize(
    ("value", "fault"), [("", "NEW .* is not set"), ("s" * 31, "has 31 characters"), ("a b" * 20, "cannot be a key")]
)
def test_what_is_no_secret_is_a_mistake(value: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault) as caught:
        compaction_secrets(CompactionConfig(secrets_env=["NEW"]), {"NEW": value})
    assert "compaction.secrets_env" in str(caught.value)
    assert not value or value not in str(caught.value)
