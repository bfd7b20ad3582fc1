"""Every fault that a type can find is told in the words of the file, at the place where it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.config import Config, ConfigError, load
from segue.config.explanations import Setting, explain, explain_value, parse_setting
from tests.config.tables import KEY_TOML, PROVIDER_TOML, SHA, UPSTREAM_TOML, error_of, from_toml
from tests.strategies import any_text, examples

_TABLES = tuple(Config.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            PROVIDER_TOML.replace("chat", "openai"),
            "'openai' is none of responses, chat, messages, local, scripted; did",
        ),
        (PROVIDER_TOML.replace("chat", "openai"), "did you mean responses for OpenAI's Responses API, chat for Chat"),
        (PROVIDER_TOML.replace("chat", "Anthropic"), "'Anthropic' is none of responses, chat, messages, local, scr"),
        (PROVIDER_TOML.replace("chat", "Anthropic"), "did you mean messages?"),
        (PROVIDER_TOML.replace("chat", "respones"), "did you mean responses?"),
        (PROVIDER_TOML + 'api_key = "sk-1"', "did you mean key_env, the name of the variable that holds the key?"),
        (PROVIDER_TOML + 'url = "x"', "[[upstream]] 'u': unknown key 'url'; did you mean base_url?"),
        (KEY_TOML.replace("sha256", "key"), "did you mean sha256, the digest of the key; `segue key new` makes both?"),
        ('[[route]]\nurl = "x"', "unknown key 'url'; did you mean target?"),
        ('[upstream]\nname = "u"', "[upstream]: there may be several: write [[upstream]], with two brackets, above"),
        ("[listener]\nport = 1", "[listener]: there may be several: write [[listener]], with two brackets"),
        ("[[limits]]\nturns = 1", "[limits]: there is one: write [limits], with one bracket"),
        (KEY_TOML + "limits = {turns = 0}", "[[key]] 'k' limits.turns: must be at least 1"),
        (KEY_TOML + "expires_at = 2030-01-31T00:00:00", "[[key]] 'k' expires_at: "),
        ('[sidecar]\ntoken = "short"', "[sidecar] token: must be 16 to 128 letters and digits, and ~ _ -"),
        ("zzz = 1", "the configuration: unknown key 'zzz'; known keys: server, tunnel, sidecar, "),
    ],
)
def test_a_fault_is_told_with_its_place_and_what_to_write_instead(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in error_of(tmp_path, text)


def test_a_row_without_a_name_is_counted_from_one(tmp_path: Path) -> None:
    text = UPSTREAM_TOML.format(name="u") + '[[upstream]]\nmodels = ["m"]'
    assert "[[upstream]] number 2: name is missing (Its name; no other upstream has it)" in error_of(tmp_path, text)


def test_what_a_variable_sets_is_called_by_its_name_and_not_by_the_files(tmp_path: Path) -> None:
    """Also a setting of a row, and one within a table that the variable holds as JSON."""
    assert error_of(tmp_path, "[server]\nport = 1", {"SEGUE_SERVER_PORT": "70000"}) == (
        "SEGUE_SERVER_PORT: must be at most 65535"
    )
    of_row = error_of(tmp_path, KEY_TOML, {"SEGUE_KEY_0_SHA256": "00:11"})
    assert of_row.startswith("SEGUE_KEY_0_SHA256: must be the SHA-256 of a key, ")
    below = error_of(tmp_path, '[[tenant]]\nname = "t"\n', {"SEGUE_TENANT_0_THREADS": "disk"})
    assert below.startswith("SEGUE_TENANT_0_THREADS: 'disk' is none of memory, durable")


@pytest.mark.parametrize("secret", ["sk-very-secret", "s" * 500])
def test_no_message_quotes_a_key(tmp_path: Path, secret: str) -> None:
    """Whoever writes the key where its digest belongs has it in no log."""
    for text in (
        KEY_TOML.replace(SHA, secret),
        f'[sidecar]\ntoken = "{secret} "',
        f'{PROVIDER_TOML}api_key = "{secret}"',
        f'{PROVIDER_TOML}pass_key = "{secret}"',
    ):
        assert secret not in error_of(tmp_path, text)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", None),
        (".server", Setting("server", None, ())),
        (".server.hosts[0]", Setting("server", None, ("hosts[0]",))),
        (".key[12]", Setting("key", 12, ())),
        (".key[1].limits.turns", Setting("key", 1, ("limits", "turns"))),
        ("[...]", None),
    ],
)
def test_a_path_is_read(path: str, expected: Setting | None) -> None:
    assert parse_setting(path) == expected


def test_a_message_that_is_not_known_stays_as_it_is() -> None:
    """A later msgspec may have others."""
    assert explain_value("Something new", int) == "Something new"
    assert explain("Something new - at `$.server.port`", Config, {"server": {}}, environ=()) == (
        "[server] port: Something new"
    )


#: Values of every type that TOML has, and some that no setting takes.
_VALUES: tuple[object, ...] = ([[1]], {"x": {}}, -7, "\0", "", 9.5, True)


@pytest.mark.parametrize("table", _TABLES)
def test_no_message_has_words_of_python(table: str) -> None:
    """For each setting there is, whatever is written for it: no type of Python or JSON, no path, no pattern."""
    hint = get_type_hints(Config)[table]
    kind = next(iter(get_args(hint)), hint)
    for name in kind.__struct_fields__:
        for value in _VALUES:
            row = {name: value}
            tree = {table: [row] if get_args(hint) else row}
            said = _explained(tree)
            assert said is None or said.startswith((f"[{table}] ", f"[[{table}]] "))
            assert not {"`int`", "`str`", "`array`", "`object`", "Expected", "regex", "enum"} & set(
                (said or "").split()
            )


def _explained(tree: dict[str, Any]) -> str | None:
    """What is said of a tree; None if nothing is wrong with it."""
    try:
        msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        return explain(str(error), Config, tree, environ=())
    return None


@settings(max_examples=examples(200))
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | any_text, st.lists, max_leaves=5), st.data()
)
def test_whatever_is_written_ends_in_a_sentence(value: object, data: st.DataObject) -> None:
    """Never in another error. The name of a setting comes from TOML, whose texts are whole (UTF-8)."""
    tree = {data.draw(st.sampled_from([*_TABLES, "x"])): {data.draw(st.text()): value}}
    assert _explained(tree) != ""


def test_settings_that_are_right_are_not_explained(tmp_path: Path) -> None:
    assert from_toml(tmp_path, KEY_TOML).key[0].name == "k"
    with pytest.raises(ConfigError, match="no such setting"):
        load(None, {"SEGUE_NOTHING": "1"})
