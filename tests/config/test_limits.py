"""Limits: of all tenants, of one, and of a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.config import ConfigError, LimitsConfig, TenantConfig, load

KEY = f'[[key]]\nname = "a"\ntenant = "a"\nsha256 = "{"0" * 64}"\n'


def test_limits_are_read_where_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "segue.toml"
    file.write_text(
        "[limits]\nturns = 8\n"
        '[[tenant]]\nname = "a"\nlimits = { stored_bytes = 5 }\n'
        f"{KEY}limits = {{ requests_per_minute = 60, tokens_per_minute = 1000 }}\n"
    )
    config = load(file, {"SEGUE_LIMITS_TURNS": "9"})
    assert config.limits == LimitsConfig(turns=9)
    assert config.tenant == [TenantConfig("a", LimitsConfig(stored_bytes=5))]
    assert not config.tenant[0].zero_retention
    assert config.key[0].limits == LimitsConfig(requests_per_minute=60, tokens_per_minute=1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"{KEY}limits = {{ stored_bytes = 5 }}",
            "[[key]] 'a': limits.stored_responses and limits.stored_bytes are those",
        ),
        (f"{KEY}limits = {{ stored_responses = 5 }}", "[[key]] 'a': limits.stored_responses and"),
        ("[limits]\nturns = 0", "[limits] turns: must be at least 1"),
        ("[limits]\nturn = 1", "[limits]: unknown key 'turn'; did you mean turns?"),
        ('[[tenant]]\nname = "a"\nthreads = "disk"', "[[tenant]] 'a' threads: 'disk' is none of "),
        ('[[tenant]]\nname = "a"\nlimits = {}\n' * 2, "two [[tenant]] tables are named 'a': names must differ"),
    ],
)
def test_what_is_no_limit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "segue.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert message in str(caught.value)
