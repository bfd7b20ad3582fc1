"""The configuration: where each setting may come from, what wins, and what is refused with advice."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.config import (
    DIALECTS_OF,
    Config,
    ConfigError,
    Key,
    Listener,
    Route,
    Server,
    UpstreamConfig,
    concurrency,
    is_loopback,
    load,
    read_key,
    spin_less,
    split_header,
    without_secrets,
)
from segue.http.routes import SELF, Resolved, parse_target, route_table
from tests.strategies import any_text

SHA = "0" * 64
OTHER_SHA = "f" * 64
KEY = {"name": "k", "tenant": "t", "sha256": SHA}
KEY_TOML = f'[[key]]\nname = "k"\ntenant = "t"\nsha256 = "{SHA}"\n'
UPSTREAM_TOML = '[[upstream]]\nname = "{name}"\ndialect = "scripted"\nmodels = ["m"]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def from_toml(folder: Path, text: str, environ: Mapping[str, str] | None = None, **server: object) -> Config:
    path = folder / "segue.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ or {}, sidecar=None, **server)


def error_of(folder: Path, text: str, environ: Mapping[str, str] | None = None, **server: object) -> str:
    with pytest.raises(ConfigError) as caught:
        from_toml(folder, text, environ, **server)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------- where it is from


def test_everything_has_a_default() -> None:
    """A gateway for this machine, with no upstream but those that are built in."""
    assert load(None, {}) == Config(server=Server(), upstream=[], key=[])
    assert (Server().host, Server().port, Server().store) == ("127.0.0.1", 4747, "sqlite:///segue.db")


def test_a_file_sets_what_it_names(folder: Path) -> None:
    """And leaves the rest at its default."""
    text = '[server]\nport = 1\nhosts = ["a"]\n' + UPSTREAM_TOML.format(name="u") + KEY_TOML
    assert from_toml(folder, text) == Config(
        server=Server(port=1, hosts=["a"]),
        upstream=[UpstreamConfig(name="u", dialect="scripted", models=["m"])],
        key=[Key(**KEY)],
    )


def test_a_gateway_may_have_several_addresses(folder: Path) -> None:
    """With a profile each; those that pick a free port may be as many as one likes."""
    text = '[[listener]]\nport = 4748\nprofile = "serial"\n' + "[[listener]]\nport = 0\n" * 2
    expected = [Listener(port=4748, profile="serial"), Listener(port=0), Listener(port=0)]
    assert from_toml(folder, text).listener == expected
    assert load(None, {"SEGUE_LISTENER_0_PORT": "9"}).listener == [Listener(port=9)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[listener]]\nport = 4747", "two addresses have the port 4747"),
        ("[[listener]]\nport = 1\n" * 2, "two addresses have the port 1"),
        ('[[listener]]\nport = 1\nhost = "gateway.example"', "listener.host is 'gateway.example', which others can"),
        ("[[listener]]\n", "port"),
        ('[[listener]]\nport = 1\nprofile = "azure"', "profile"),
    ],
)
def test_an_address_that_cannot_be_is_refused(folder: Path, text: str, expected: str) -> None:
    """Before anything is opened."""
    assert expected in error_of(folder, text)


def test_the_environment_wins_over_the_file(folder: Path) -> None:
    """Key by key."""
    environ = {"SEGUE_SERVER_PORT": "2", "SEGUE_KEY_0_TENANT": "other", "HOME": "/", "SEGUE": "x"}
    config = from_toml(folder, "[server]\nport = 1\nmax_queued = 5\n" + KEY_TOML, environ)
    assert config == Config(server=Server(port=2, max_queued=5), key=[Key(**{**KEY, "tenant": "other"})])


def test_the_command_line_wins_over_both(folder: Path) -> None:
    """But only where it says something."""
    config = from_toml(folder, "[server]\nport = 1\n", {"SEGUE_SERVER_PORT": "2"}, port=3, host=None, store=None)
    assert config == Config(server=Server(port=3))


def test_rows_of_the_environment_need_no_file_and_no_order() -> None:
    """A container has variables only, and nobody sorts those; ten comes after nine."""
    rows = {
        f"SEGUE_KEY_{row}_{name.upper()}": f"{row:064x}" if name == "sha256" else f"{name} {row}"
        for row in range(11)
        for name in KEY
    }
    expected = Config(key=[Key(name=f"name {n}", tenant=f"tenant {n}", sha256=f"{n:064x}") for n in range(11)])
    assert load(None, rows) == expected
    assert load(None, dict(reversed(rows.items()))) == expected
    assert load(None, dict(sorted(rows.items()))) == expected


def test_rows_of_the_environment_follow_those_of_the_file(folder: Path) -> None:
    """The next number makes a new row."""
    second = {"name": "k2", "tenant": "t", "sha256": OTHER_SHA}
    environ = {f"SEGUE_KEY_1_{name.upper()}": value for name, value in second.items()}
    assert from_toml(folder, KEY_TOML, environ).key == [Key(**KEY), Key(**second)]


TABLES: dict[str, type[msgspec.Struct]] = {"server": Server, "upstream_0": UpstreamConfig, "key_0": Key}
#: What to write for the settings that are held to a form, and for the rest by their type.
FORMS: dict[tuple[str, str], tuple[str, Any]] = {
    ("server", "profile"): ("serial", "serial"),
    ("upstream_0", "context_tokens"): ("512", 512),
    ("upstream_0", "base_url"): ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
    ("upstream_0", "headers"): ("A: b, C: d", ["A: b", "C: d"]),
    ("upstream_0", "body"): ('{"a": [1, true]}', {"a": [1, True]}),
    ("key_0", "sha256"): (OTHER_SHA, OTHER_SHA),
}
VALUES: dict[object, tuple[str, Any]] = {
    bool: ("true", True),
    int: ("7", 7),
    float: ("7.5", 7.5),
    str: ("x y", "x y"),
    list: ("a, b ,", ["a", "b"]),
    Literal: ("local", "local"),
}


def kind_of(hint: object) -> object:
    """What decides how a setting is written: its type without limits and `None`."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    options = [option for option in get_args(hint) if option is not type(None)]
    if type(None) in get_args(hint):
        return kind_of(options[0])
    return get_origin(hint) or hint


SETTINGS = [(table, name, hint) for table, kind in TABLES.items() for name, hint in get_type_hints(kind).items()]


@pytest.mark.parametrize(("table", "name", "hint"), SETTINGS, ids=[f"{table}.{name}" for table, name, _ in SETTINGS])
def test_every_setting_can_be_set_by_its_variable(table: str, name: str, hint: object) -> None:
    """`SEGUE_` + its path; a list is written with commas."""
    text, value = FORMS.get((table, name)) or VALUES[kind_of(hint)]
    environ = {f"SEGUE_KEY_0_{field.upper()}": given_ for field, given_ in KEY.items()}
    (dialect, *_) = DIALECTS_OF.get(name, ("scripted",))
    environ |= {"SEGUE_UPSTREAM_0_NAME": "u", "SEGUE_UPSTREAM_0_DIALECT": dialect, "SEGUE_UPSTREAM_0_MODELS": "m"}
    environ |= {"SEGUE_UPSTREAM_0_BASE_URL": "http://127.0.0.1:1"} if dialect in DIALECTS_OF["base_url"] else {}
    config = load(None, environ | {f"SEGUE_{table}_{name}".upper(): text})
    row = {"server": config.server, "upstream_0": config.upstream[0], "key_0": config.key[0]}[table]
    assert getattr(row, name) == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_switch_is_written_in_either_way(text: str, *, value: bool) -> None:
    """As people write it in variables."""
    assert load(None, {"SEGUE_SERVER_COMPRESSION": text}).server.compression is value


# ------------------------------------------------------------------------------------------------------------ providers

PROVIDER_TOML = '[[upstream]]\nname = "u"\ndialect = "chat"\nmodels = ["m"]\nbase_url = "https://api.example/v1"\n'


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
        (PROVIDER_TOML + "slots = 0", "upstream[0].slots: Expected `int` >= 1"),
        (PROVIDER_TOML.replace("chat", "messages") + "slots = 4", "slots means nothing to the dialect 'messages'"),
        (PROVIDER_TOML + "body = 1", "upstream[0].body: Expected `object`, got `int`"),
        (UPSTREAM_TOML.format(name="u") + "body = {a = 1}", "body means nothing to the dialect 'scripted'"),
        (PROVIDER_TOML + "max_tokens = 7", "max_tokens means nothing to the dialect 'chat'; leave it out"),
        (UPSTREAM_TOML.format(name="u") + 'key_env = "K"', "key_env means nothing to the dialect 'scripted'"),
        (UPSTREAM_TOML.format(name="u") + "attempts = 7", "attempts means nothing to the dialect 'scripted'"),
    ],
)
def test_a_provider_that_cannot_be_reached_like_that_is_refused(folder: Path, text: str, expected: str) -> None:
    """And so is a setting that would do nothing."""
    assert expected in error_of(folder, text)


def test_a_providers_key_is_read_from_the_environment_only(folder: Path) -> None:
    """When it is needed; the configuration, which is shown and logged, does not have it."""
    (up,) = from_toml(folder, PROVIDER_TOML + 'key_env = "K"').upstream
    assert read_key(up, {"K": " sk-1\n"}) == "sk-1"
    (keyless,) = from_toml(folder, PROVIDER_TOML).upstream
    assert read_key(keyless, {"K": "sk-1"}) is None


@pytest.mark.parametrize("environ", [{}, {"K": ""}, {"K": " "}, {"K": "a b"}, {"K": "a\nb"}, {"K": "\u00e9"}])
def test_a_key_that_is_none_is_refused(folder: Path, environ: dict[str, str]) -> None:
    """Without showing it."""
    (up,) = from_toml(folder, PROVIDER_TOML + 'key_env = "K"').upstream
    with pytest.raises(ConfigError, match="the variable K \\(key_env\\)") as caught:
        read_key(up, environ)
    assert not any(len(value) > 1 and value in str(caught.value) for value in environ.values())


def test_what_headers_hold_is_not_shown(folder: Path) -> None:
    """It may be a key."""
    config = from_toml(folder, PROVIDER_TOML + 'headers = ["api-key: secret", "X-A: b"]')
    assert without_secrets(config).upstream[0].headers == ["api-key: (set)", "X-A: (set)"]
    assert config.upstream[0].headers == ["api-key: secret", "X-A: b"]


def test_what_bodies_hold_is_not_shown(folder: Path) -> None:
    """It may be a salt."""
    config = from_toml(folder, PROVIDER_TOML + '[upstream.body]\ncache_salt = "secret"\n')
    assert without_secrets(config).upstream[0].body == {"cache_salt": "(set)"}
    assert config.upstream[0].body == {"cache_salt": "secret"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 64), ("slots = 4", 4), ("slots = 100", 100), ("max_concurrent = 7", 7), ("slots = 4\nmax_concurrent = 3", 3)],
)
def test_as_many_turns_run_as_there_are_slots(folder: Path, text: str, expected: int) -> None:
    """Unless it is said otherwise."""
    assert concurrency(from_toml(folder, PROVIDER_TOML + text).upstream[0]) == expected


def test_headers_are_split_at_the_colon(folder: Path) -> None:
    """Once."""
    assert split_header("X-Title: a: b") == ("X-Title", "a: b")


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "server: unknown key 'prot'; did you mean 'port'?"),
        ("[sevrer]\nport = 1", "the configuration: unknown key 'sevrer'; did you mean 'server'?"),
        ("[server]\nzzz = 1", "server: unknown key 'zzz'; known keys: host, port, "),
        (KEY_TOML + 'tenat = "x"', "key[0]: unknown key 'tenat'; did you mean 'tenant'?"),
        (
            UPSTREAM_TOML.format(name="u") + 'model_af = "x"',
            "upstream[0]: unknown key 'model_af'; did you mean 'model_as'?",
        ),
        ("[server]\nport = 70000", "server.port: Expected `int` <= 65535"),
        ("[server]\nport = -1", "server.port: Expected `int` >= 0"),
        ('[server]\nport = "1"', "server.port: Expected `int`, got `str`"),
        ("[server]\nmax_age_s = 0", "server.max_age_s: Expected `float` > 0.0"),
        ("[server]\nhosts = [1]", "server.hosts[0]: Expected `str`, got `int`"),
        ('[[key]]\nname = "k"', "key[0]: Object missing required field `tenant`"),
        (KEY_TOML.replace(SHA, "secret"), "key[0].sha256: Expected `str` matching regex '^[0-9a-f]{64}$'"),
        (KEY_TOML.replace(SHA, "F" * 64), "key[0].sha256: Expected `str` matching regex '^[0-9a-f]{64}$'"),
        (UPSTREAM_TOML.format(name=""), "upstream[0].name: Expected `str` of length >= 1"),
        (
            UPSTREAM_TOML.format(name="u").replace("scripted", "grpc"),
            "upstream[0].dialect: Invalid enum value 'grpc'",
        ),
        (UPSTREAM_TOML.format(name="u").replace('"m"', ""), "upstream[0].models: Expected `array` of length >= 1"),
        ("server = 1", "server: Expected `object`, got `int`"),
        ("[[server]]\nport = 1", "server: Expected `object`, got `array`"),
        ('key = "x"', "key: Expected `array`, got `str`"),
        ("key = [1]", "key[0]: Expected `object`, got `int`"),
        ("[key]\nname = 'k'", "key: Expected `array`, got `object`"),
    ],
)
def test_a_bad_file_is_refused_by_the_name_of_the_setting(folder: Path, text: str, expected: str) -> None:
    """And a misspelt one with what was probably meant."""
    assert error_of(folder, text).startswith(expected)


@pytest.mark.parametrize(
    "text", ["server = 1", "[[server]]", "key = 'x'", "key = [1]", "[key]\nname = 'k'", "key = []"]
)
def test_a_bad_file_is_refused_whatever_is_laid_over_it(folder: Path, text: str) -> None:
    """By the environment and the command line."""
    environ = {"SEGUE_SERVER_PORT": "1", "SEGUE_KEY_0_NAME": "k"}
    assert re.match(r"(server|key\S*): ", error_of(folder, text, environ, port=3))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SEGUE_PORT": "1"}, "SEGUE_PORT: no such setting; variables are SEGUE_SERVER_…"),
        ({"SEGUE_SERVER": "1"}, "SEGUE_SERVER: no such setting; variables are SEGUE_SERVER_…"),
        ({"SEGUE_SERVER_": "1"}, "SEGUE_SERVER_: no such setting; variables are SEGUE_SERVER_…"),
        ({"SEGUE_SERVER_PROT": "1"}, "SEGUE_SERVER_PROT: no such setting; server has host, port, "),
        ({"SEGUE_SERVER_PORT": "high"}, "SEGUE_SERVER_PORT: Expected `int`, got `str`"),
        ({"SEGUE_SERVER_PORT": ""}, "SEGUE_SERVER_PORT: Expected `int`, got `str`"),
        ({"SEGUE_SERVER_PORT": "70000"}, "server.port: Expected `int` <= 65535"),
        ({"SEGUE_SERVER_COMPRESSION": "perhaps"}, "SEGUE_SERVER_COMPRESSION: Expected `bool`, got `str`"),
        ({"SEGUE_UPSTREAM_0_DIALECT": "grpc"}, "SEGUE_UPSTREAM_0_DIALECT: Invalid enum value 'grpc'"),
        ({"SEGUE_UPSTREAM_0_BODY": "a = 1"}, "SEGUE_UPSTREAM_0_BODY: what it holds is not a JSON object"),
        ({"SEGUE_UPSTREAM_0_BODY": "[1]"}, "SEGUE_UPSTREAM_0_BODY: what it holds is not a JSON object"),
        ({"SEGUE_UPSTREAM_0_THREADS": "all"}, "SEGUE_UPSTREAM_0_THREADS: Expected `int`, got `str`"),
        ({"SEGUE_KEY_1_NAME": "k"}, "SEGUE_KEY_1_NAME: the number after the table counts its rows from 0"),
        ({"SEGUE_KEY_A_NAME": "k"}, "SEGUE_KEY_A_NAME: the number after the table counts its rows from 0"),
        ({"SEGUE_KEY_-1_NAME": "k"}, "SEGUE_KEY_-1_NAME: the number after the table counts its rows from 0"),
        ({"SEGUE_KEY_\N{SUPERSCRIPT TWO}_NAME": "k"}, "SEGUE_KEY_²_NAME: the number after the table counts its rows"),
        ({"SEGUE_KEY_0": "k"}, "SEGUE_KEY_0: no such setting; key has name, tenant, sha256"),
        ({"SEGUE_KEY_0_NAME": "k"}, "key[0]: Object missing required field `tenant`"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(environ: dict[str, str], expected: str) -> None:
    """A setting that nobody reads would be worse."""
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(None, environ)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.from_regex(r"SEGUE_(SERVER|KEY|UPSTREAM|)_?[0-9]{0,2}_?(PORT|NAME|HOSTS|THREADS|.{0,4})", fullmatch=True),
        any_text,
        max_size=4,
    )
)
def test_no_variable_raises_anything_but_a_config_error(environ: dict[str, str]) -> None:
    """Whoever starts the gateway sees a sentence, not a traceback."""
    try:
        load(None, environ)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - that it may also be accepted is the point


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot read"),
        (lambda path: path.mkdir(), "cannot read"),
        (lambda path: path.write_text("port = "), "is not valid TOML"),
        (lambda path: path.write_bytes(b"\xff"), "is not valid TOML"),
    ],
    ids=["missing", "a folder", "no TOML", "no text"],
)
def test_a_file_that_cannot_be_read_is_named(folder: Path, make: Callable[[Path], object], words: str) -> None:
    """With what is wrong with it."""
    path = folder / "segue.toml"
    make(path)
    with pytest.raises(ConfigError, match=words) as caught:
        load(path, {})
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "gateway.example", "127.0.0.1.example"])  # noqa: S104 - what is refused
def test_others_are_let_in_with_a_key_only(folder: Path, host: str) -> None:
    """A gateway without keys serves whoever can reach it."""
    assert "there is no [[key]]: add one" in error_of(folder, "", host=host)
    assert from_toml(folder, KEY_TOML, host=host).server.host == host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KEY_TOML * 2, "two [[key]] tables are named 'k': names must differ"),
        (UPSTREAM_TOML.format(name="u") * 3, "two [[upstream]] tables are named 'u': names must differ"),
        (
            KEY_TOML + KEY_TOML.replace('"k"', '"other"'),
            "the [[key]] tables 'k' and 'other' have the same sha256: whose key is it?",
        ),
    ],
)
def test_doubles_are_refused(folder: Path, text: str, expected: str) -> None:
    """Nobody could tell them apart."""
    assert error_of(folder, text) == expected


# ----------------------------------------------------------------------------------------------------------- loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("127.255.255.255", True),
        ("::1", True),
        ("[::1]", True),
        ("0:0:0:0:0:0:0:1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("agent.localhost", True),
        ("", False),
        (".", False),
        ("0.0.0.0", False),  # noqa: S104 - not what is listened on
        ("::", False),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f.0.0.1", False),
        ("0177.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.1:80", False),
        ("127.0.0.1 ", False),
        ("\N{FULLWIDTH DIGIT ONE}27.0.0.1", False),
        ("\ud800", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host: str, *, expected: bool) -> None:
    """Names that merely look like it are not."""
    assert is_loopback(host) is expected


# ------------------------------------------------------------------------------------------------------------- routes


def test_routes_are_read_from_the_file_and_the_environment(folder: Path) -> None:
    """As any table with rows; what they say is checked where requests are routed."""
    text = '[[route]]\nmount = "/m"\ntarget = "https://t.example/v1"\n'
    environ = {"SEGUE_ROUTE_1_PATH": "/v1/messages", "SEGUE_ROUTE_1_TARGET": "self", "SEGUE_ROUTE_0_MOUNT": "/n"}
    routes = from_toml(folder, text, environ).route
    assert routes == [Route(target="https://t.example/v1", mount="/n"), Route(target="self", path="/v1/messages")]
    found = [route_table(routes).resolve(target) for target in (b"/n/x", b"/v1/messages")]
    assert found == [
        Resolved(target=parse_target("https://t.example/v1"), path=b"/v1/x"),
        Resolved(target=SELF, path=b"/v1/messages"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[route]]\nmount = "/m"', "route[0]: Object missing required field `target`"),
        ('[[route]]\nmont = "/m"\ntarget = "self"', "route[0]: unknown key 'mont'; did you mean 'mount'?"),
        ('[route]\nmount = "/m"', "route: Expected `array`, got `object`"),
    ],
)
def test_a_misspelt_route_is_refused(folder: Path, text: str, expected: str) -> None:
    """By its number."""
    assert error_of(folder, text).startswith(expected)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "200"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_spin_less_unless_the_environment_says_how(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], spins: str | None
) -> None:
    environ = dict(given)
    monkeypatch.setattr(os, "environ", environ)
    spin_less()
    assert environ.get("GOMP_SPINCOUNT") == spins
