"""Keys are added to a configuration's text and taken out of it; all else stays as its user wrote it."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.config.errors import ConfigError
from segue.config.key_tables import add_key, remove_key
from segue.config.keys import KeyConfig
from tests.strategies import examples

TEXT = """# the gateway of the team
[server]
port = 4748 # not the default

[[key]] # the first
name = "a"
tenant = "team"
sha256 = "00"

[[route]]
mount = "/own"
target = "self"
"""
NOW = datetime(2027, 1, 1, 12, 30, 15, 999, tzinfo=UTC)
KEY = KeyConfig("b", "team", "11")
names = st.text(min_size=1, max_size=12)


def test_a_key_is_added_behind_the_others_and_comments_stay() -> None:
    added = add_key(TEXT, KEY)
    assert [line for line in TEXT.splitlines() if line not in added.splitlines()] == []
    assert tomllib.loads(added)["key"][1] == {"name": "b", "tenant": "team", "sha256": "11"}
    assert tomllib.loads(added)["route"] == tomllib.loads(TEXT)["route"]


def test_what_was_added_is_taken_out_again() -> None:
    assert tomllib.loads(remove_key(add_key(TEXT, KEY), "b")) == tomllib.loads(TEXT)


def test_the_last_key_leaves_no_list() -> None:
    assert "key" not in tomllib.loads(remove_key(TEXT, "a"))
    assert remove_key(add_key("", KEY), "b").strip() == ""


def test_only_what_is_not_the_default_is_written() -> None:
    key = KeyConfig("b", "t", "11", NOW, ["gpt-*"], [])
    expected = {"name": "b", "tenant": "t", "sha256": "11", "expires_at": NOW, "models": ["gpt-*"], "routes": []}
    assert tomllib.loads(add_key("", key))["key"] == [expected]


@given(st.lists(st.tuples(names, names), min_size=1, max_size=4, unique_by=lambda pair: pair[0]), st.data())
@settings(max_examples=examples(60))
def test_any_name_comes_back(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    """Quotes, line ends and control characters too."""
    text = TEXT
    for name, tenant in pairs:
        text = add_key(text, KeyConfig(name, tenant, "22"))
    read = [(key["name"], key["tenant"]) for key in tomllib.loads(text)["key"][1:]]
    assert read == pairs
    gone = data.draw(st.sampled_from([name for name, _ in pairs if name != "a"] or ["a"]))
    left = [key["name"] for key in tomllib.loads(remove_key(text, gone)).get("key", [])]
    assert gone not in left or gone == "a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server", "the file is not valid TOML"),
        ("key = 3", "`key` is not written as [[key]] tables"),
        ('key = [{name = "a"}]', "`key` is not written as [[key]] tables"),
    ],
)
def test_a_file_that_cannot_be_edited_says_so(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as adding:
        add_key(text, KEY)
    with pytest.raises(ConfigError) as removing:
        remove_key(text, "a")
    assert all(str(caught.value).startswith(message) for caught in (adding, removing))


@pytest.mark.parametrize(("text", "known"), [(TEXT, "'a'"), ("", "none")])
def test_a_key_that_is_not_there_is_told_with_those_that_are(text: str, known: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remove_key(text, "zz")
    assert str(caught.value) == f"there is no key named 'zz' in the file; its keys: {known}"
