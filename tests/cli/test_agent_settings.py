"""The settings files of agents, as far as they matter to `segue run` and `segue doctor`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from segue.cli import agent_settings
from segue.cli.agent_settings import claude_variables, facts_of
from segue.sidecar.diagnosis.agent_checks import SettingsFile


@pytest.fixture(autouse=True)
def _no_company(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine's managed files are others'."""
    monkeypatch.setattr(agent_settings, "_CLAUDE_MANAGED", (tmp_path / "managed" / "claude.json",))
    monkeypatch.setattr(agent_settings, "_OPENCODE_MANAGED", (tmp_path / "managed",))
    monkeypatch.setattr(agent_settings, "_GEMINI_MANAGED", (tmp_path / "managed" / "gemini.json",))


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def read(folder: Path, *command: str, work: str = "work", **environ: str) -> list[tuple[str, object, bool]]:
    (folder / work).mkdir(exist_ok=True, parents=True)
    facts = facts_of(command, {"HOME": str(folder / "home"), **environ}, folder / work)
    return [(file.path.removeprefix(f"{folder}/"), file.settings, file.managed) for file in facts.files]


def test_the_files_of_claude_are_those_of_the_company_the_project_and_the_user(tmp_path: Path) -> None:
    names = ("managed/claude.json", "work/.claude/settings.local.json", "work/.claude/settings.json")
    others = ("home/.claude/settings.json", "c/settings.json")
    write(tmp_path, {name: f'{{"env": {{"A": "{name}"}}}}' for name in (*names, *others)})
    seen = read(tmp_path, "/usr/bin/claude", "-p", "x")
    assert [path for path, _, _ in seen] == [*names, "home/.claude/settings.json"]
    assert [managed for _, _, managed in seen] == [True, False, False, False]
    moved = read(tmp_path, "claude", CLAUDE_CONFIG_DIR=str(tmp_path / "c"))
    assert moved[-1] == ("c/settings.json", {"env": {"A": "c/settings.json"}}, False)
    assert read(tmp_path, "claude", HOME="")[-1][0] == names[-1]
    facts = facts_of(["claude"], {"HOME": str(tmp_path / "home")}, tmp_path / "work")
    assert claude_variables(facts) == {"A": "managed/claude.json"}


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('{"env": {"A": "1", "B": 2}, "model": "x"}', {"A": "1"}),
        ('{"env": []}', {}),
        ("{}", {}),
        ("[]", {}),
        ("no JSON", {}),
        ('{"env": {"A": "' + "x" * 2**20 + '"}}', {}),
        ("[" * 100_000, {}),
    ],
)
def test_only_variables_count(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    write(tmp_path, {"home/.claude/settings.json": text})
    facts = facts_of(["claude"], {"HOME": str(tmp_path / "home")}, tmp_path / "work")
    assert claude_variables(facts) == variables
    assert len(facts.files) == 1


def test_a_file_that_is_there_and_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "work" / ".claude"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "settings.json")
    (folder / "settings.local.json").write_bytes(b'{"env": {"A": "\xe4"}}')
    assert read(tmp_path, "claude") == [
        ("work/.claude/settings.local.json", None, False),
        ("work/.claude/settings.json", None, False),
    ]


def test_codex_reads_its_profile_and_its_login_without_the_tokens(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "home/.codex/config.toml": 'model = "m"\n',
            "home/.codex/fast.config.toml": 'model_provider = "p"\n',
            "home/.codex/auth.json": '{"OPENAI_API_KEY": null, "tokens": {"access_token": "secret"}}',
            "work/.codex/config.toml": 'model_provider = "evil"\n',
        },
    )
    seen = read(tmp_path, "codex", "exec", "--profile", "fast")
    assert seen == [
        ("home/.codex/fast.config.toml", {"model_provider": "p"}, False),
        ("home/.codex/config.toml", {"model": "m"}, False),
        ("home/.codex/auth.json", {"auth_mode": "chatgpt"}, False),
    ]
    assert len(read(tmp_path, "codex", "-p", "../fast", CODEX_API_KEY="k")) == 1
    write(tmp_path, {"c/auth.json": '{"auth_mode": "apikey", "OPENAI_API_KEY": "sk"}', "c/config.toml": "["})
    assert read(tmp_path, "codex", CODEX_HOME=str(tmp_path / "c")) == [
        ("c/config.toml", None, False),
        ("c/auth.json", {"auth_mode": "apikey"}, False),
    ]
    write(tmp_path, {"c/auth.json": "no"})
    assert read(tmp_path, "codex", CODEX_HOME=str(tmp_path / "c"))[-1] == ("c/auth.json", None, False)


def test_opencode_reads_up_to_the_repository_and_what_its_variables_name(tmp_path: Path) -> None:
    (tmp_path / "work" / ".git").mkdir(parents=True)
    names = (
        "managed/opencode.jsonc",
        "work/sub/.opencode/opencode.json",
        "work/opencode.jsonc",
        "work/opencode.json",
        "named.json",
        "home/.config/opencode/opencode.json",
    )
    write(tmp_path, dict.fromkeys((*names, "opencode.json"), "{}"))
    named = str(tmp_path / "named.json")
    seen = read(tmp_path, "opencode", work="work/sub", OPENCODE_CONFIG=named, OPENCODE_CONFIG_CONTENT='{"a": 1}')
    assert [path for path, _, _ in seen] == [names[0], "OPENCODE_CONFIG_CONTENT", *names[1:]]
    assert seen[0][2]
    assert seen[1][1] == {"a": 1}
    write(tmp_path, {"alone/opencode.json": "// not JSON"})
    assert read(tmp_path, "opencode", work="alone", HOME="")[1:] == [("alone/opencode.json", None, False)]


def test_gemini_reads_the_project_and_the_user(tmp_path: Path) -> None:
    names = ("managed/gemini.json", "work/.gemini/settings.json", "home/.gemini/settings.json")
    write(tmp_path, dict.fromkeys(names, "{}"))
    assert [path for path, _, _ in read(tmp_path, "gemini")] == list(names)


def test_of_another_program_nothing_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "python", "agent.py") == []


def test_a_folder_that_may_not_be_entered_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "exists", refuse)
    [first, *_] = facts_of(["gemini"], {}, tmp_path).files
    assert first == SettingsFile(str(tmp_path / "managed" / "gemini.json"), None, managed=True)
