"""What an address shows of its secrets: nothing."""

from __future__ import annotations

import pytest

from segue.config.secret_urls import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory:", "memory:"),
        ("sqlite:///a.db?synchronous=NORMAL", "sqlite:///a.db?synchronous=NORMAL"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me:hunter2@a:1,b:2/db?sslmode=require", "postgresql://(set)@a:1,b:2/db?sslmode=require"),
        ("postgresql://me:hun@ter2@host/db", "postgresql://(set)@host/db"),
        ("postgresql:///db?user=me&password=hunter2", "postgresql:///db?user=me&password=(set)"),
        ("postgresql:///db?%70assword=hunter2&x=1", "postgresql:///db?password=(set)&x=1"),
        ("redis://:hunter2@host:6379/0", "redis://(set)@host:6379/0"),
    ],
)
def test_users_and_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert "hunter2" not in shown
