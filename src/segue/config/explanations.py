"""What is wrong with a setting, in words: where it was written, what is wrong with it, and what to write instead.

A setting is checked by its type, with msgspec. That says what is wrong in the words of Python and JSON, at a path like
`$.upstream[0].dialect`. Here it becomes a sentence in the words of TOML, about `[[upstream]]`. Not here: reading
settings (`loading`), and checks of settings that belong together (`configuration`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

#: A path of msgspec after its `$`: a table, perhaps the number of its row, and the names below it.
_PATH = re.compile(r"\.(?P<table>\w+)(?:\[(?P<row>\d+)\])?(?P<below>.*)", re.DOTALL)
_ROW = re.compile(r"\[\d+\]|\[\.\.\.\]")
_ENVIRONMENT = "SEGUE_"

#: The types of msgspec's messages in the words of somebody who writes a file.
_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "int": "a whole number",
        "float": "a number",
        "str": "text in quotes",
        "bool": "true or false",
        "array": "a list",
        "object": "a table",
        "null": "nothing",
        "datetime": "a date and a time",
    }
)
_BOUNDS: Mapping[str, str] = MappingProxyType(
    {">=": "at least", "<=": "at most", ">": "more than", "<": "less than", "==": "exactly"}
)
#: What people write who know another program, and what it is called here: by table, and by name or by value.
_MEANT: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("upstream", "api_key"): "key_env, the name of the variable that holds the key",
        ("upstream", "key"): "key_env, the name of the variable that holds the key",
        ("upstream", "token"): "key_env, the name of the variable that holds the key",
        ("upstream", "url"): "base_url",
        ("upstream", "model"): 'models, a list: models = ["gpt-*"]',
        ("upstream", "type"): "dialect",
        ("upstream", "timeout"): "first_byte_timeout_s and idle_timeout_s",
        ("key", "key"): "sha256, the digest of the key; `segue key new` makes both",
        ("key", "api_key"): "sha256, the digest of the key; `segue key new` makes both",
        ("route", "url"): "target",
        ("route", "prefix"): "mount",
        ("sidecar", "api_key"): "key, or key_file",
        ("sidecar", "token"): "key, or key_file",
        ("upstream.dialect", "openai"): "responses for OpenAI's Responses API, chat for Chat Completions",
        ("upstream.dialect", "completions"): "chat",
        ("upstream.dialect", "chat_completions"): "chat",
        ("upstream.dialect", "anthropic"): "messages",
        ("upstream.dialect", "claude"): "messages",
        ("upstream.dialect", "ollama"): 'chat, with base_url = "http://127.0.0.1:11434/v1"',
        ("upstream.dialect", "vllm"): "chat, or responses, with the base_url of the server",
        ("upstream.dialect", "llama.cpp"): "local for a model in this process, chat for a llama-server",
    }
)
#: The forms of settings that are held to one, by the setting.
_FORMS: Mapping[str, str] = MappingProxyType(
    {
        "key.sha256": "the SHA-256 of a key, 64 digits of 0-9 and a-f; `segue key new` makes a key and its table",
        "certificate.sha256": "the SHA-256 of a certificate in DER, 64 digits of 0-9 and a-f, without colons",
        "certificate.san": "a name with its kind before it, such as DNS:build.example",
        "sidecar.token": "16 to 128 letters and digits, and ~ _ -",
    }
)


class Setting(NamedTuple):
    """One place in a configuration: the table, the number of its row if there are several, and the names below it."""

    table: str
    row: int | None
    below: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable that sets it, or what it is a part of."""
        row = () if self.row is None else (str(self.row),)
        return _ENVIRONMENT + "_".join((self.table, *row, *self.below[:1])).upper()


def parse_setting(path: str) -> Setting | None:
    """Read a path of msgspec without its `$`; None for the configuration as a whole."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    row = found["row"]
    return Setting(found["table"], None if row is None else int(row), tuple(filter(None, found["below"].split("."))))


def explain(error: str, config: type[msgspec.Struct], tree: Mapping[str, Any], *, environ: Iterable[str]) -> str:
    """Turn a message of msgspec about a tree of settings into a sentence with the place and the cure.

    `config` is the type that the tree was checked against; `environ` are the names of the variables that were laid
    over it: a setting of a variable is called by the name of that.
    """
    what, _, path = error.partition(" - at `$")
    place = parse_setting(path.rstrip("`"))
    if place is None:
        return f"the configuration: {explain_value(what, config)}"
    said = explain_value(what, _type_at(config, place), setting=".".join((place.table, *place.below)))
    if shape := _wrong_brackets(what, place, config):
        said = shape
    return f"{_place(place, tree, set(environ))}: {said}"


def explain_value(error: str, kind: Any, *, setting: str = "") -> str:  # noqa: ANN401 - a type hint
    """Say what is wrong with a value: an error of msgspec without its path, and the type that the value should have.

    `setting` is its path, such as `key.sha256`; without one it is the value of a variable, where everything is text.
    """
    for pattern, explained in _EXPLANATIONS:
        if found := pattern.fullmatch(error):
            return explained(found.groupdict(), kind, setting)
    return error


def _expected_type(found: Mapping[str, str], _kind: object, setting: str) -> str:
    wanted = " or ".join(_TYPES.get(one, one) for one in re.findall(r"\w+", found["wanted"].replace("| null", "")))
    return f"must be {wanted}, not {_TYPES.get(found['got'], found['got'])}" if setting else f"must be {wanted}"


def _out_of_bounds(found: Mapping[str, str], _kind: object, _setting: str) -> str:
    number = found["number"].removesuffix(".0")
    return f"must be {_BOUNDS[found['sign']]} {number}"


def _wrong_length(found: Mapping[str, str], _kind: object, _setting: str) -> str:
    if found["sign"] == ">=" and found["number"] == "1":
        return "must not be empty"
    units = "entries" if found["type"] == "array" else "characters"
    return f"must have {_BOUNDS[found['sign']]} {found['number']} {units}"


def _wrong_form(found: Mapping[str, str], _kind: object, setting: str) -> str:
    return f"must be {_FORMS.get(setting, 'of the form ' + found['pattern'])}"


def _not_one_of(found: Mapping[str, str], kind: object, setting: str) -> str:
    value, choices = found["value"], [str(choice) for choice in _choices(kind)]
    said = f"{value!r} is none of {', '.join(choices)}"
    meant = _MEANT.get((setting, value.lower()))
    if meant is None:
        meant = next(iter(get_close_matches(value.lower(), choices, n=1)), None)
    return said if meant is None else f"{said}; did you mean {meant}?"


def _missing(found: Mapping[str, str], kind: object, _setting: str) -> str:
    name = found["field"]
    return f"{name} is missing{_described(kind, name)}"


def _unknown(found: Mapping[str, str], kind: object, setting: str) -> str:
    name = found["field"]
    known = kind.__struct_fields__ if _is_table(kind) else ()
    meant = _MEANT.get((setting, name)) or next(iter(get_close_matches(name, known, n=1)), None)
    hint = f"known keys: {', '.join(known)}" if meant is None else f"did you mean {meant}?"
    return f"unknown key {name!r}; {hint}"


_EXPLANATIONS = tuple(
    (re.compile(pattern), explained)
    for pattern, explained in (
        (r"Object contains unknown field `(?P<field>.+)`", _unknown),
        (r"Object missing required field `(?P<field>.+)`", _missing),
        (r"Invalid enum value '(?P<value>.*)'", _not_one_of),
        (r"Expected `str` matching regex '(?P<pattern>.*)'", _wrong_form),
        (r"Expected `(?P<type>\w+)` of length (?P<sign>\S+) (?P<number>\d+)", _wrong_length),
        (r"Expected `\w+` (?P<sign>[<>]=?) (?P<number>-?[\d.]+)", _out_of_bounds),
        (r"Expected `(?P<wanted>[\w| ]+)`, got `(?P<got>\w+)`", _expected_type),
    )
)


def _wrong_brackets(what: str, setting: Setting, config: type[msgspec.Struct]) -> str | None:
    """Say how the head of a table is written, if it was written as that of the other kind."""
    if setting.below or setting.row is not None or setting.table not in config.__struct_fields__:
        return None
    if what == "Expected `array`, got `object`":
        return f"there may be several: write [[{setting.table}]], with two brackets, above each"
    if what == "Expected `object`, got `array`":
        return f"there is one: write [{setting.table}], with one bracket"
    return None


def _place(setting: Setting, tree: Mapping[str, Any], environ: set[str]) -> str:
    """Name a setting as its user wrote it: by its variable, or by its table and key in the file."""
    if setting.variable in environ and setting.below:
        return setting.variable
    if setting.row is None:
        return " ".join((f"[{setting.table}]", ".".join(setting.below))).strip()
    row = tree[setting.table][setting.row]
    name = row.get("name") if isinstance(row, dict) else None
    which = repr(name) if isinstance(name, str) and name else f"number {setting.row + 1}"
    return " ".join((f"[[{setting.table}]]", which, ".".join(setting.below))).strip()


def _type_at(config: type[msgspec.Struct], setting: Setting) -> Any:  # noqa: ANN401 - a type hint
    """Return the type of a setting, as far as its path can be followed."""
    kind: Any = config
    for name in (setting.table, *setting.below):
        kind = _plain(kind)
        if not _is_table(kind):
            break
        kind = get_type_hints(kind, include_extras=True).get(_ROW.sub("", name))
    return _plain(kind)


def _plain(kind: Any) -> Any:  # noqa: ANN401 - a type hint in and out
    """Take a type out of what is around it: limits, `None`, a list."""
    while True:
        if get_origin(kind) in {Annotated, list}:
            kind = get_args(kind)[0]
        elif type(None) in get_args(kind):
            kind = next(one for one in get_args(kind) if one is not type(None))
        else:
            return kind


def _is_table(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _choices(kind: object) -> tuple[object, ...]:
    plain = _plain(kind)
    return get_args(plain) if get_origin(plain) is Literal else ()


def _described(kind: object, name: str) -> str:
    """Return what a field is for, in brackets, if its type says so."""
    if not _is_table(kind):
        return ""
    hint = get_type_hints(kind, include_extras=True).get(name)
    described = (one.description for one in getattr(hint, "__metadata__", ()) if isinstance(one, Meta))
    text = next(filter(None, described), None)
    return "" if text is None else f" ({text.rstrip('.')})"
