"""`segue bench endpoint` says what it costs before it asks, and never shows a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.cli import bench_endpoint
from segue.cli.bench_endpoint import base_url_of
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.cli.background_gateway import BackgroundGateway
from tests.cli.conftest import Command

FEW = ("--turns", "3", "--rounds", "1", "--turn-bytes", "40")


@pytest.fixture
def gateway() -> Iterator[str]:
    with BackgroundGateway(ScriptedUpstream()) as background:
        yield background.url


def test_a_gateway_is_measured(gateway: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key goes to the server and nowhere else."""
    monkeypatch.setenv("SOME_KEY", "sk-very-secret-key")
    given = ("bench", "endpoint", gateway, "--model", MODEL, *FEW, "--key-env", "SOME_KEY", "--json", "found.json")
    status, printed, told = command(*given)
    assert status == 0
    assert told.startswith("segue: http replay\nsegue: http id\n")
    assert printed.startswith("At most 31 requests to 127.0.0.1, about ")
    assert "http id" in printed
    assert "kept" in printed
    written = (tmp_path / "found.json").read_text()
    assert json.loads(written)["settings"]["model"] == MODEL
    assert "secret" not in printed + written + told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("http://127.0.0.1:9", "--turns", "2"), "--turns must be at least 3"),
        (("http://127.0.0.1:9", "--timeout", "0"), "--timeout must be more than 0 and at most 3600 seconds"),
        (("http://127.0.0.1:9", "--key-env", "NO_SUCH"), "the variable NO_SUCH (--key-env) is not set"),
        (("http://127.0.0.1:9", "--budget", "100"), "that is more than --budget 100"),
        (("http://me:pw@127.0.0.1:9",), "give the server as http://HOST:PORT"),
        (("https://api.example",), "repeat the command with --yes"),
        (("http://192.0.2.7", "--model", "m"), "repeat the command with --yes"),
        (("http://127.0.0.1:9",), "no connection: The server cannot be reached."),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], reason: str, command: Command) -> None:
    status, _, told = command("bench", "endpoint", *arguments)
    assert status == 2
    assert told.startswith(f"segue: {reason}") or reason in told
    assert told.count("\n") == 1


def test_a_server_that_serves_nothing_is_a_failure(command: Command) -> None:
    status, printed, _ = command("bench", "endpoint", "http://127.0.0.1:9", "--model", "m", *FEW)
    assert status == 1
    assert "http replay: no connection" in printed


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ([], "it lists none"),
        (["a", "b"], "the server has a, b"),
        ([f"m{number}" for number in range(9)], "the server has m0, m1, m2, m3, m4, m5, m6, m7, …"),
    ],
)
def test_a_model_must_be_named_unless_there_is_one(
    models: list[str], told: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listed(_: object) -> list[str]:
        return models

    monkeypatch.setattr(bench_endpoint, "list_models", listed)
    status, _, said = command("bench", "endpoint", "http://127.0.0.1:9", *FEW)
    assert (status, said) == (2, f"segue: name a model with --model; {told}\n")
    models[:] = ["only"]
    assert command("bench", "endpoint", "http://127.0.0.1:9", *FEW)[0] == 1


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://localhost:4747", "http://localhost:4747/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://host/openai/v1", "https://host/openai/v1"),
        ("http://[::1]:8000/", "http://[::1]:8000/v1"),
        ("ftp://host", None),
        ("host:4747", None),
        ("http://", None),
        ("http://host:port", None),
        ("http://host/v1?key=1", None),
        ("http://host/v1#a", None),
        ("http://user@host", None),
    ],
)
def test_where_the_api_is(url: str, base: str | None) -> None:
    found = base_url_of(url)
    assert (None if found is None else str(found)) == base
