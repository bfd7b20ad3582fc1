"""The configuration as it is read from the environment: every kind of setting can be given there."""

from __future__ import annotations

import pytest

from segue.config import ConfigError, load

UPSTREAM = {"SEGUE_UPSTREAM_0_NAME": "a", "SEGUE_UPSTREAM_0_DIALECT": "local", "SEGUE_UPSTREAM_0_MODELS": "a, b-*"}


def test_every_kind_of_setting_can_come_from_the_environment() -> None:
    """Text, choices, lists, numbers, booleans, and settings that may be left out."""
    more = {"SEGUE_UPSTREAM_0_THREADS": "3", "SEGUE_UPSTREAM_0_MODEL_AS": "null", "SEGUE_SERVER_COMPRESSION": "true"}
    config = load(None, {**UPSTREAM, **more, "SEGUE_SERVER_DRAIN_S": "2.5", "HOME": "/"})
    (up,) = config.upstream
    assert (up.dialect, up.models, up.threads, up.model_file) == ("local", ["a", "b-*"], 3, None)
    assert up.model_as == "null", "a name, not the absence of one"
    assert (config.server.compression, config.server.drain_s) == (True, 2.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SEGUE_UPSTREAM_0_DIALECT", "telepathy"), ("SEGUE_UPSTREAM_0_THREADS", "many"), ("SEGUE_SERVER_PORTT", "1")],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str) -> None:
    """Whoever set it must find it."""
    with pytest.raises(ConfigError, match=name):
        load(None, {**UPSTREAM, name: value})
