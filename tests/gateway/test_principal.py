"""What a key may be used for, by names and globs."""

from __future__ import annotations

import pytest

from segue.gateway.principal import Principal


@pytest.mark.parametrize(
    ("patterns", "name", "allowed"),
    [
        (("*",), "anything", True),
        ((), "anything", False),
        (("gpt-*", "small"), "gpt-5", True),
        (("gpt-*", "small"), "small", True),
        (("gpt-*", "small"), "smaller", False),
        (("gpt-*",), "GPT-5", False),
        (("claude-[45]*",), "claude-4", True),
        (("claude-[45]*",), "claude-3", False),
    ],
)
def test_models_and_routes_are_names_or_globs(patterns: tuple[str, ...], name: str, *, allowed: bool) -> None:
    assert Principal("t", models=patterns).may_use(name) is allowed
    assert Principal("t", routes=patterns).may_reach(name) is allowed


def test_a_key_expires_at_its_moment() -> None:
    assert not Principal("t").has_expired(1e12)
    expiring = Principal("t", expires_at=100.0)
    assert [expiring.has_expired(now) for now in (99.9, 100.0, 100.1)] == [False, True, True]
