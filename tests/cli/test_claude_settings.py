"""The settings files of Claude Code, as far as they matter to `segue run`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.cli.claude_settings import settings_files, variables_in


def test_the_files_are_those_of_the_company_the_project_and_the_user() -> None:
    names = [str(file) for file in settings_files({"HOME": "/home/u"}, Path("/p"))]
    assert names[0] == "/etc/claude-code/managed-settings.json"
    assert names[-3:] == [
        "/p/.claude/settings.local.json",
        "/p/.claude/settings.json",
        "/home/u/.claude/settings.json",
    ]
    moved = list(settings_files({"HOME": "/home/u", "CLAUDE_CONFIG_DIR": "/c"}, Path("/p")))
    assert moved[-1] == Path("/c/settings.json")
    assert list(settings_files({}, Path("/p")))[-1] == Path("/p/.claude/settings.json")


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('{"env": {"A": "1", "B": 2}, "model": "x"}', {"A": "1"}),
        ('{"env": []}', {}),
        ("{}", {}),
        ("[]", {}),
        ("no JSON", {}),
        ('{"env": {"A": "' + "x" * 2**20 + '"}}', {}),
    ],
)
def test_only_variables_are_read(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    assert variables_in(file) == variables


def test_a_file_that_cannot_be_read_sets_nothing(tmp_path: Path) -> None:
    assert variables_in(tmp_path) == {}
    assert variables_in(tmp_path / "none") == {}
    os.mkfifo(tmp_path / "pipe")
    assert variables_in(tmp_path / "pipe") == {}
    (tmp_path / "latin").write_bytes(b'{"env": {"A": "\xe4"}}')
    assert variables_in(tmp_path / "latin") == {}
