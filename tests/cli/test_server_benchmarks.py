"""The commands hand their options on. What they do is tested with their work: `test_bench_endpoint` and the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segue.cli import bench_endpoint, bench_peers
from segue.cli.bench_endpoint import EndpointCommand
from segue.cli.output_file import NO_FILES
from tests.cli.conftest import Command


def test_the_options_of_endpoint(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def run(*values: object) -> int:
        given.extend(values)
        return 0

    monkeypatch.setattr(bench_endpoint, "run_bench_endpoint", run)
    assert command("bench", "endpoint", "http://host", "--model", "m", "--turns", "9", "--yes", "--budget", "5")[0] == 0
    settings = {"turns": 9, "rounds": 3, "turn_bytes": 800, "max_output_tokens": 256}
    expected = EndpointCommand(
        url="http://host", model="m", key_env=None, deadline_s=60.0, budget=5, agreed=True, files=NO_FILES
    )
    assert given == [expected, settings]


def test_the_options_of_peers(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run(settings: object, **named: object) -> int:
        given.extend([settings, named])
        return 0

    monkeypatch.setattr(bench_peers, "run_bench_peers", run)
    assert command("bench", "peers", "SMG", "OGX", "--programs", "a", "--programs", "b", "--depths", "1, 5")[0] == 0
    settings, named = given
    assert settings == {"depths": [1, 5], "rounds": 3, "window": 20, "longest_s": 120.0}
    assert named == {"only": ("SMG", "OGX"), "programs": (Path("a"), Path("b")), "files": NO_FILES}
