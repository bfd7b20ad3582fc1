"""`segue export` and `segue import`: a conversation goes from one gateway to another, or to a shell."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from segue.cli.transfer import _script
from segue.config import ConfigError
from segue.upstreams.scripted import ScriptedUpstream, say
from tests.cli.background_gateway import BackgroundGateway
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def here() -> Iterator[BackgroundGateway]:
    with BackgroundGateway(ScriptedUpstream([say("hello")] * 10)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def said(here: BackgroundGateway) -> str:
    """The id of a response that is stored there."""
    body = json.dumps({"model": "m", "input": "it's $HOME"}).encode()
    at = urlsplit(here.url)
    client = HTTPConnection(at.hostname or "", at.port)
    client.request("POST", f"{at.path}/responses", body, {"Content-Type": "application/json"})
    made = json.load(client.getresponse())
    client.close()
    return str(made["id"])


def test_a_file_is_written_and_read_by_another_gateway(
    command: Command, tmp_path: Path, here: BackgroundGateway, said: str
) -> None:
    assert command("export", said, "--output", "talk.json", "--base-url", here.url) == (0, "", "")
    file = tmp_path / "talk.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with BackgroundGateway(ScriptedUpstream()) as other:
        status, printed, told = command("import", "talk.json", "--base-url", other.url)
        assert (status, printed, told) == (0, f"{said}\n", "segue: 1 of 1 turns were new\n")
        status, printed, _ = command("export", said, "--base-url", other.url)
    assert json.loads(printed)["turns"] == json.loads(file.read_bytes())["turns"]


def test_a_file_can_come_from_standard_input(
    command: Command, here: BackgroundGateway, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, printed, _ = command("export", said, "--base-url", here.url)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    status, printed, told = command("import", "-", "--base-url", here.url)
    assert (status, printed, told) == (0, f"{said}\n", "segue: 0 of 1 turns were new\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "resp_x"), "the gateway refuses: Response with id 'resp_x' not found."),
        (("export", "../../healthz"), "the gateway refuses"),
        (("import", "none.json"), "cannot read none.json: No such file or directory"),
        (("import", "bad.json"), "the gateway refuses: "),
    ],
)
def test_what_cannot_be_is_told(
    command: Command, tmp_path: Path, here: BackgroundGateway, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "bad.json").write_text("{}")
    status, printed, said = command(*arguments, "--base-url", here.url)
    assert (status, printed) == (2, "")
    assert told in " ".join(said.split())


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
def test_the_script_is_what_a_shell_sends(
    command: Command, tmp_path: Path, here: BackgroundGateway, said: str, dialect: str
) -> None:
    """Whatever is in the conversation; curl gets the address, the key and the body."""
    status, script, told = command("export", said, "--as", dialect, "--base-url", here.url)
    assert (status, told) == (0, "")
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\ncat > body\n')
    curl.chmod(0o755)
    env = {"PATH": f"{curl.parent}:{os.environ['PATH']}", "BASE_URL": "https://api.example/v1", "API_KEY": "k y"}
    subprocess.run(["sh", "-c", script], check=True, cwd=tmp_path, env=env)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[1].startswith("https://api.example/v1/")
    assert ("x-api-key: k y" if dialect == "messages" else "Authorization: Bearer k y") in arguments
    assert "it's $HOME" in (tmp_path / "body").read_text()
    assert json.loads((tmp_path / "body").read_text())["model"] == "m"


def test_what_was_left_out_is_said_in_comments() -> None:
    """In one line each, and nothing in them is a command."""
    answer = json.dumps({"path": "/x$(id)", "warnings": ["a\nrm -rf /", "b\x1b"], "body": {}}).encode()
    lines = _script(answer, "chat").decode().splitlines()
    assert lines[:3] == ["# arm -rf /", "# b", 'curl -sN "$BASE_URL/x%24%28id%29" \\']
    with pytest.raises(ConfigError, match="is no request"):
        _script(b"{}", "chat")
