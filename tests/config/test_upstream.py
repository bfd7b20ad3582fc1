"""`[[upstream]]`: which settings belong together, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.config import concurrency, split_header
from tests.config.tables import PROVIDER_TOML, UPSTREAM_TOML, error_of, from_toml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROVIDER_TOML.replace("base_url", "#"), "upstream 'u': base_url is missing: give the address of the API"),
        (PROVIDER_TOML.replace("https:", "ftp:"), "base_url 'ftp://api.example/v1' is not an address of the form"),
        (PROVIDER_TOML.replace("https://api.example", ""), "base_url '/v1' is not an address of the form"),
        (PROVIDER_TOML.replace("example", "example:99999"), "is no address: Port out of range"),
        (PROVIDER_TOML.replace("/v1", "/v1?key=x"), "base_url may have a host and a path, nothing else"),
        (PROVIDER_TOML.replace("api.", "me:secret@api."), "base_url may have a host and a path, nothing else"),
        (PROVIDER_TOML + 'key_env = "K"\npass_key = true', "it has key_env and pass_key: whose key is sent?"),
        (PROVIDER_TOML + 'headers = ["x"]', "the header 'x' is not of the form 'Name: value'"),
        (PROVIDER_TOML + 'headers = ["x: a\\r\\nb: c"]', "is not of the form 'Name: value'"),
        (PROVIDER_TOML + "threads = 2", "threads means nothing to the dialect 'chat'; leave it out"),
        (PROVIDER_TOML + "slots = 4\nmax_concurrent = 5", "max_concurrent is 5, but each turn needs one of 4 slots"),
        (PROVIDER_TOML + 'transport = "websocket"', "transport means nothing to the dialect 'chat'; leave it out"),
        (
            PROVIDER_TOML.replace("chat", "responses") + 'transport = "websocket"\nslots = 4',
            "slots are of a llama-server, which has no WebSockets",
        ),
        (
            PROVIDER_TOML.replace("chat", "responses") + "websocket_age_s = 4",
            'websocket_age_s means nothing without transport = "websocket"',
        ),
        (PROVIDER_TOML.replace("chat", "responses") + "websocket_idle = 0", "websocket_idle: must be at least 1"),
        (PROVIDER_TOML + "slots = 0", "[[upstream]] 'u' slots: must be at least 1"),
        (PROVIDER_TOML.replace("chat", "messages") + "slots = 4", "slots means nothing to the dialect 'messages'"),
        (PROVIDER_TOML + "body = 1", "[[upstream]] 'u' body: must be a table, not a whole number"),
        (UPSTREAM_TOML.format(name="u") + "body = {a = 1}", "body means nothing to the dialect 'scripted'"),
        (PROVIDER_TOML + "max_tokens = 7", "max_tokens means nothing to the dialect 'chat'; leave it out"),
        (UPSTREAM_TOML.format(name="u") + 'key_env = "K"', "key_env means nothing to the dialect 'scripted'"),
        (UPSTREAM_TOML.format(name="u") + "attempts = 7", "attempts means nothing to the dialect 'scripted'"),
        (UPSTREAM_TOML.format(name="u") + "weight = 2", "weight, backup and rerun mean nothing without a group"),
        (UPSTREAM_TOML.format(name="u") + "backup = true", "weight, backup and rerun mean nothing without a group"),
        (UPSTREAM_TOML.format(name="u") + 'group = "g"\nweight = 0', "[[upstream]] 'u' weight: must be at least 1"),
        (UPSTREAM_TOML.format(name="u") + "tenants = []", "[[upstream]] 'u' tenants: must not be empty"),
    ],
)
def test_a_provider_that_cannot_be_reached_like_that_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """And so is a setting that would do nothing."""
    assert expected in error_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 64), ("slots = 4", 4), ("slots = 100", 100), ("max_concurrent = 7", 7), ("slots = 4\nmax_concurrent = 3", 3)],
)
def test_as_many_turns_run_as_there_are_slots(tmp_path: Path, text: str, expected: int) -> None:
    """Unless it is said otherwise."""
    assert concurrency(from_toml(tmp_path, PROVIDER_TOML + text).upstream[0]) == expected


def test_headers_are_split_at_the_colon(tmp_path: Path) -> None:
    """Once."""
    assert split_header("X-Title: a: b") == ("X-Title", "a: b")
