"""Where each setting may come from, which source wins, and what is refused with advice."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import convert

from segue.config import (
    DIALECTS_OF,
    Config,
    ConfigError,
    KeyConfig,
    LimitsConfig,
    ListenerConfig,
    RouteConfig,
    ServerConfig,
    SidecarConfig,
    UpstreamConfig,
    load,
)
from segue.http.routes import SELF, Resolved, parse_target, route_table
from tests.config.tables import KEY, KEY_TOML, OTHER_SHA, SHA, UPSTREAM_TOML, error_of, from_toml
from tests.strategies import any_text, examples


def test_everything_has_a_default() -> None:
    """A gateway for this machine, with no upstream but those that are built in."""
    assert load(None, {}) == Config(server=ServerConfig(), upstream=[], key=[])
    assert (ServerConfig().host, ServerConfig().port, ServerConfig().store) == ("127.0.0.1", 4747, "sqlite:///segue.db")


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    """And leaves the rest at its default."""
    text = '[server]\nport = 1\nhosts = ["a"]\n' + UPSTREAM_TOML.format(name="u") + KEY_TOML
    assert from_toml(tmp_path, text) == Config(
        server=ServerConfig(port=1, hosts=["a"]),
        upstream=[UpstreamConfig(name="u", dialect="scripted", models=["m"])],
        key=[convert(KEY, KeyConfig)],
    )


def test_a_gateway_may_have_several_addresses(tmp_path: Path) -> None:
    """With a profile each; those that pick a free port may be as many as one likes."""
    text = '[[listener]]\nport = 4748\nprofile = "serial"\n' + "[[listener]]\nport = 0\n" * 2
    expected = [ListenerConfig(port=4748, profile="serial"), ListenerConfig(port=0), ListenerConfig(port=0)]
    assert from_toml(tmp_path, text).listener == expected
    assert load(None, {"SEGUE_LISTENER_0_PORT": "9"}).listener == [ListenerConfig(port=9)]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Key by key."""
    environ = {"SEGUE_SERVER_PORT": "2", "SEGUE_KEY_0_TENANT": "other", "HOME": "/", "SEGUE": "x"}
    config = from_toml(tmp_path, "[server]\nport = 1\nmax_queued = 5\n" + KEY_TOML, environ)
    assert config == Config(
        server=ServerConfig(port=2, max_queued=5), key=[convert({**KEY, "tenant": "other"}, KeyConfig)]
    )


def test_the_command_line_wins_over_both(tmp_path: Path) -> None:
    """But only where it says something."""
    config = from_toml(tmp_path, "[server]\nport = 1\n", {"SEGUE_SERVER_PORT": "2"}, port=3, host=None, store=None)
    assert config == Config(server=ServerConfig(port=3))


def told(environ: dict[str, str], table: str, key: str) -> Config:
    """What is read if the command line gives a key."""
    given = {"key": key}
    return load(None, environ, sidecar=given) if table == "sidecar" else load(None, environ, agent=given)


@pytest.mark.parametrize("table", ["sidecar", "agent"])
def test_a_key_is_taken_without_the_line_end_that_a_file_or_a_shell_adds(tmp_path: Path, table: str) -> None:
    variable = f"SEGUE_{table.upper()}_KEY"
    for config in (
        load(None, {variable: " sk-1\r\n"}),
        told({}, table, "sk-1\n"),
        from_toml(tmp_path, f'[{table}]\nkey = "sk-1\\n"\n'),
    ):
        assert (config.sidecar.key or config.agent.key) == "sk-1"
    empty = load(None, {variable: "\n"})
    assert (empty.sidecar.key, empty.agent.key) == (None, None)


def test_a_key_takes_the_place_of_one_from_below_however_that_is_named(tmp_path: Path) -> None:
    in_file, named = '[sidecar]\nkey = "sk-1"\n', '[sidecar]\nkey_file = "f"\n'

    def keys(config: Config) -> tuple[str | None, str | None]:
        return config.sidecar.key, config.sidecar.key_file

    assert keys(from_toml(tmp_path, named)) == (None, "f")
    assert keys(from_toml(tmp_path, in_file, {"SEGUE_SIDECAR_KEY_FILE": "g"})) == (None, "g")
    assert keys(from_toml(tmp_path, named, {"SEGUE_SIDECAR_KEY": "sk-2"})) == ("sk-2", None)
    assert keys(from_toml(tmp_path, named, {"SEGUE_SIDECAR_KEY": ""})) == (None, None)
    assert keys(load(None, {"SEGUE_SIDECAR_KEY_FILE": "g"}, sidecar={"key": "sk-3"})) == ("sk-3", None)
    assert keys(load(None, {"SEGUE_SIDECAR_KEY_FILE": "g"}, sidecar={"key": None, "port": 1})) == (None, "g")
    both = "sidecar: it has key and key_file: which one is sent?"
    assert error_of(tmp_path, in_file + 'key_file = "f"\n') == both
    assert error_of(tmp_path, "", {"SEGUE_SIDECAR_KEY_FILE": "g", "SEGUE_SIDECAR_KEY": "sk-2"}) == both


@pytest.mark.parametrize("table", ["sidecar", "agent"])
@pytest.mark.parametrize("key", ["sk\n1", "sk\x001", "sk\x7f1", "sk\udcff1"])
def test_a_key_that_cannot_be_sent_is_refused_by_the_name_of_its_source(tmp_path: Path, table: str, key: str) -> None:
    variable = f"SEGUE_{table.upper()}_KEY"
    with pytest.raises(ConfigError, match=f"{variable} cannot be sent as a key") as caught:
        load(None, {variable: key})
    assert "sk" not in str(caught.value)
    with pytest.raises(ConfigError, match="--key cannot be sent as a key"):
        told({variable: "sk-1"}, table, key)
    with pytest.raises(ConfigError, match=rf"\[{table}\] key of .*\.toml cannot be sent as a key"):
        from_toml(tmp_path, f'[{table}]\nkey = "sk\\n1"\n')


def test_rows_of_the_environment_need_no_file_and_no_order() -> None:
    """A container has variables only, and nobody sorts those; ten comes after nine."""
    rows = {
        f"SEGUE_KEY_{row}_{name.upper()}": f"{row:064x}" if name == "sha256" else f"{name} {row}"
        for row in range(11)
        for name in KEY
    }
    expected = Config(key=[KeyConfig(name=f"name {n}", tenant=f"tenant {n}", sha256=f"{n:064x}") for n in range(11)])
    assert load(None, rows) == expected
    assert load(None, dict(reversed(rows.items()))) == expected
    assert load(None, dict(sorted(rows.items()))) == expected


def test_rows_of_the_environment_follow_those_of_the_file(tmp_path: Path) -> None:
    """The next number makes a new row."""
    second = {"name": "k2", "tenant": "t", "sha256": OTHER_SHA}
    environ = {f"SEGUE_KEY_1_{name.upper()}": value for name, value in second.items()}
    assert from_toml(tmp_path, KEY_TOML, environ).key == [convert(KEY, KeyConfig), convert(second, KeyConfig)]


TABLES: dict[str, type[msgspec.Struct]] = {"server": ServerConfig, "upstream_0": UpstreamConfig, "key_0": KeyConfig}
#: What to write for the settings that are held to a form, and for the rest by their type.
FORMS: dict[tuple[str, str], tuple[str, Any]] = {
    ("server", "profile"): ("serial", "serial"),
    ("server", "access"): ("anyone", "anyone"),
    ("server", "workers"): ("1", 1),
    ("server", "tls_client_auth"): ("required", "required"),
    ("upstream_0", "transport"): ("websocket", "websocket"),
    ("upstream_0", "context_tokens"): ("512", 512),
    ("upstream_0", "base_url"): ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
    ("upstream_0", "headers"): ("A: b, C: d", ["A: b", "C: d"]),
    ("upstream_0", "body"): ('{"a": [1, true]}', {"a": [1, True]}),
    ("upstream_0", "compat"): ('{"text_parts": "string"}', {"text_parts": "string"}),
    ("key_0", "sha256"): (OTHER_SHA, OTHER_SHA),
    ("server", "threads"): ("durable", "durable"),
    ("upstream_0", "compaction"): ("upstream", "upstream"),
    ("key_0", "limits"): ('{"turns": 4}', LimitsConfig(turns=4)),
}
VALUES: dict[object, tuple[str, Any]] = {
    bool: ("true", True),
    int: ("7", 7),
    float: ("7.5", 7.5),
    str: ("x y", "x y"),
    list: ("a, b ,", ["a", "b"]),
    Literal: ("local", "local"),
    datetime: ("2030-01-31T12:00:00+01:00", datetime(2030, 1, 31, 11, tzinfo=UTC)),
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
    environ |= (
        {"SEGUE_SERVER_TLS_CERT": "c", "SEGUE_SERVER_TLS_KEY": "k", "SEGUE_SERVER_TLS_CLIENT_CA": "a"}
        if name.startswith("tls_")
        else {}
    )
    if name == "live":
        environ["SEGUE_SERVER_STORE"] = "postgresql://h/segue"
    if name.startswith("websocket_"):
        environ["SEGUE_UPSTREAM_0_TRANSPORT"] = "websocket"
    if name in {"weight", "backup", "rerun"}:  # they mean something beside another upstream of the group
        environ["SEGUE_UPSTREAM_0_GROUP"] = "g"
        other = {"name": "v", "dialect": "scripted", "models": "m", "group": "g"}
        environ |= {f"SEGUE_UPSTREAM_1_{field.upper()}": given_ for field, given_ in other.items()}
    config = load(None, environ | {f"SEGUE_{table}_{name}".upper(): text})
    row = {"server": config.server, "upstream_0": config.upstream[0], "key_0": config.key[0]}[table]
    assert getattr(row, name) == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_switch_is_written_in_either_way(text: str, *, value: bool) -> None:
    """As people write it in variables."""
    assert load(None, {"SEGUE_SERVER_COMPRESSION": text}).server.compression is value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "[server]: unknown key 'prot'; did you mean port?"),
        ("[sevrer]\nport = 1", "the configuration: unknown key 'sevrer'; did you mean server?"),
        ("[server]\nzzz = 1", "[server]: unknown key 'zzz'; known keys: host, port, "),
        (KEY_TOML + 'tenat = "x"', "[[key]] 'k': unknown key 'tenat'; did you mean tenant?"),
        (
            UPSTREAM_TOML.format(name="u") + 'model_af = "x"',
            "[[upstream]] 'u': unknown key 'model_af'; did you mean model_as?",
        ),
        ("[server]\nport = 70000", "[server] port: must be at most 65535"),
        ("[server]\nport = -1", "[server] port: must be at least 0"),
        ('[server]\nport = "1"', "[server] port: must be a whole number, not text in quotes"),
        ("[server]\nmax_age_s = 0", "[server] max_age_s: must be more than 0"),
        ("[server]\nhosts = [1]", "[server] hosts[0]: must be text in quotes, not a whole number"),
        ('[[key]]\nname = "k"', "[[key]] 'k': tenant is missing (The tenant whose responses it may see)"),
        (
            KEY_TOML.replace(SHA, "secret"),
            "[[key]] 'k' sha256: must be the SHA-256 of a key, 64 digits of 0-9 and a-f; `segue key new`",
        ),
        (
            KEY_TOML.replace(SHA, "F" * 64),
            "[[key]] 'k' sha256: must be the SHA-256 of a key, 64 digits of 0-9 and a-f; `segue key new`",
        ),
        (UPSTREAM_TOML.format(name=""), "[[upstream]] number 1 name: must not be empty"),
        (
            UPSTREAM_TOML.format(name="u").replace("scripted", "grpc"),
            "[[upstream]] 'u' dialect: 'grpc' is none of responses, chat, messages, local, scripted",
        ),
        (UPSTREAM_TOML.format(name="u").replace('"m"', ""), "[[upstream]] 'u' models: must not be empty"),
        ("server = 1", "[server]: must be a table, not a whole number"),
        ("[[server]]\nport = 1", "[server]: there is one: write [server], with one bracket"),
        ('key = "x"', "[key]: must be a list, not text in quotes"),
        ("key = [1]", "[[key]] number 1: must be a table, not a whole number"),
        ("[key]\nname = 'k'", "[key]: there may be several: write [[key]], with two brackets, above each"),
    ],
)
def test_a_bad_file_is_refused_by_the_name_of_the_setting(tmp_path: Path, text: str, expected: str) -> None:
    """And a misspelt one with what was probably meant."""
    assert error_of(tmp_path, text).startswith(f"{tmp_path}/segue.toml: {expected}")


@pytest.mark.parametrize(
    "text", ["server = 1", "[[server]]", "key = 'x'", "key = [1]", "[key]\nname = 'k'", "key = []"]
)
def test_a_bad_file_is_refused_whatever_is_laid_over_it(tmp_path: Path, text: str) -> None:
    """By the environment and the command line."""
    environ = {"SEGUE_SERVER_PORT": "1", "SEGUE_KEY_0_NAME": "k"}
    assert re.match(r"\S+/segue\.toml: \[.*\].*: ", error_of(tmp_path, text, environ, port=3))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SEGUE_PORT": "1"}, "SEGUE_PORT: no such setting; variables are SEGUE_SERVER_…"),
        ({"SEGUE_SERVER": "1"}, "SEGUE_SERVER: no such setting; variables are SEGUE_SERVER_…"),
        ({"SEGUE_SERVER_": "1"}, "SEGUE_SERVER_: no such setting; variables are SEGUE_SERVER_…"),
        ({"SEGUE_SERVER_PROT": "1"}, "SEGUE_SERVER_PROT: no such setting; server has host, port, "),
        (
            {"SEGUE_COMPACTION_SECRETS_ENV": "SEGUE_COMPACTION_SECRET", "SEGUE_COMPACTION_SECRET": "s"},
            "lead; call a variable of another use, such as a secret, by a name without SEGUE_",
        ),
        ({"SEGUE_SEAL": "s"}, "SEGUE_TENANT_0_…; call a variable of another use, such as a secret, by a name without"),
        ({"SEGUE_SERVER_PORT": "high"}, "SEGUE_SERVER_PORT: must be a whole number"),
        ({"SEGUE_SERVER_PORT": ""}, "SEGUE_SERVER_PORT: must be a whole number"),
        ({"SEGUE_SERVER_PORT": "70000"}, "SEGUE_SERVER_PORT: must be at most 65535"),
        ({"SEGUE_SERVER_COMPRESSION": "perhaps"}, "SEGUE_SERVER_COMPRESSION: must be true or false"),
        ({"SEGUE_UPSTREAM_0_DIALECT": "grpc"}, "SEGUE_UPSTREAM_0_DIALECT: 'grpc' is none of responses, chat, "),
        ({"SEGUE_UPSTREAM_0_BODY": "a = 1"}, "SEGUE_UPSTREAM_0_BODY: what it holds is not a JSON object"),
        ({"SEGUE_UPSTREAM_0_BODY": "[1]"}, "SEGUE_UPSTREAM_0_BODY: what it holds is not a JSON object"),
        ({"SEGUE_UPSTREAM_0_THREADS": "all"}, "SEGUE_UPSTREAM_0_THREADS: must be a whole number"),
        ({"SEGUE_KEY_1_NAME": "k"}, "SEGUE_KEY_1_NAME: the number after the table counts its rows from 0"),
        ({"SEGUE_KEY_A_NAME": "k"}, "SEGUE_KEY_A_NAME: the number after the table counts its rows from 0"),
        ({"SEGUE_KEY_-1_NAME": "k"}, "SEGUE_KEY_-1_NAME: the number after the table counts its rows from 0"),
        ({"SEGUE_KEY_\N{SUPERSCRIPT TWO}_NAME": "k"}, "SEGUE_KEY_²_NAME: the number after the table counts its rows"),
        ({"SEGUE_KEY_0": "k"}, "SEGUE_KEY_0: no such setting; key has name, tenant, sha256"),
        ({"SEGUE_KEY_0_NAME": "k"}, "[[key]] 'k': tenant is missing (The tenant"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(environ: dict[str, str], expected: str) -> None:
    """A setting that nobody reads would be worse."""
    with pytest.raises(ConfigError, match=re.escape(expected)):
        load(None, environ)


@settings(max_examples=examples(300))
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
    ids=["missing", "a tmp_path", "no TOML", "no text"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    """With what is wrong with it."""
    path = tmp_path / "segue.toml"
    make(path)
    with pytest.raises(ConfigError, match=words) as caught:
        load(path, {})
    assert str(path) in str(caught.value)


def test_routes_are_read_from_the_file_and_the_environment(tmp_path: Path) -> None:
    """As any table with rows; what they say is checked where requests are routed."""
    text = '[[route]]\nmount = "/m"\ntarget = "https://t.example/v1"\n'
    environ = {"SEGUE_ROUTE_1_PATH": "/v1/messages", "SEGUE_ROUTE_1_TARGET": "self", "SEGUE_ROUTE_0_MOUNT": "/n"}
    routes = from_toml(tmp_path, text, environ).route
    assert routes == [
        RouteConfig(target="https://t.example/v1", mount="/n"),
        RouteConfig(target="self", path="/v1/messages"),
    ]
    found = [route_table(routes).resolve(target) for target in (b"/n/x", b"/v1/messages")]
    assert found == [
        Resolved(target=parse_target("https://t.example/v1"), path=b"/v1/x", route="/n"),
        Resolved(target=SELF, path=b"/v1/messages", route="/v1/messages"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[route]]\nmount = "/m"', "[[route]] number 1: target is missing ("),
        ('[[route]]\nmont = "/m"\ntarget = "self"', "[[route]] number 1: unknown key 'mont'; did you mean mount?"),
        ('[route]\nmount = "/m"', "[route]: there may be several: write [[route]], with two brackets, above each"),
    ],
)
def test_a_misspelt_route_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """By its number."""
    assert error_of(tmp_path, text).startswith(f"{tmp_path}/segue.toml: {expected}")


def test_paths_in_the_users_own_file_are_relative_to_it(tmp_path: Path) -> None:
    """Not to the working folder, which may be somebody else's. In a variable they are relative to where it was set."""
    file = tmp_path / "mine.toml"
    file.write_text(
        '[server]\nstore = "sqlite:///a b.db?synchronous=NORMAL"\n'
        '[sidecar]\ncafile = "ca.pem"\ncache_dir = "/var/cache"\n[ssh]\ndirectory = "run"\n'
        '[[upstream]]\nname = "u"\ndialect = "local"\nmodels = ["m"]\n'
        'model_file = "m.gguf"\nchat_template_file = "t.jinja"\nkv_directory = ""\n'
    )
    folder = Path("/home/u/my settings")
    config = load(file, {}, relative_to=folder)
    (up,) = config.upstream
    assert config.server.store == "sqlite:////home/u/my%20settings/a b.db?synchronous=NORMAL"
    assert (config.sidecar.cafile, config.sidecar.cache_dir) == (f"{folder}/ca.pem", "/var/cache")
    assert config.ssh.directory == f"{folder}/run"
    assert (up.model_file, up.chat_template_file, up.kv_directory) == (f"{folder}/m.gguf", f"{folder}/t.jinja", "")
    assert load(file, {}).sidecar.cafile == "ca.pem"
    assert load(file, {"SEGUE_SIDECAR_CAFILE": "x.pem"}, relative_to=folder).sidecar.cafile == "x.pem"


def test_every_setting_that_is_a_path_is_relative_to_the_users_own_file(tmp_path: Path) -> None:
    """Also one that is added tomorrow, if it is named like the others."""
    for table, kind in (("[sidecar]", SidecarConfig), (UPSTREAM_TOML.format(name="u"), UpstreamConfig)):
        names = [name for name in kind.__struct_fields__ if name.endswith(("file", "dir", "directory"))]
        assert names
        file = tmp_path / "mine.toml"
        file.write_text("\n".join([table.replace("scripted", "local"), *(f'{name} = "x"' for name in names)]))
        config = load(file, {}, relative_to=Path("/home/u"))
        loaded = config.sidecar if kind is SidecarConfig else config.upstream[0]
        assert {name: getattr(loaded, name) for name in names} == dict.fromkeys(names, "/home/u/x")


@pytest.mark.parametrize("store", ["memory:", "sqlite:////var/lib/segue.db"])
def test_a_store_that_is_at_no_relative_path_stays_where_it_is(tmp_path: Path, store: str) -> None:
    (tmp_path / "mine.toml").write_text(f'[server]\nstore = "{store}"\n')
    assert load(tmp_path / "mine.toml", {}, relative_to=Path("/home/u")).server.store == store


def test_what_is_no_path_is_refused_as_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[sidecar]\ncafile = 1\n")
    with pytest.raises(ConfigError, match=r"\[sidecar\] cafile"):
        load(tmp_path / "mine.toml", {}, relative_to=Path("/home/u"))
