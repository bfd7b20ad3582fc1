"""Reading JSON from a socket without ever raising, and naming what is wrong in the wire's words.

`decode` is the only way bytes become values in this package. Its failures are problems: a message for a person and a
`param` for a program. What it does not do: decide what is allowed, which is the business of the types given to it.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from segue.protocol.problems import Problem, invalid_json

T = TypeVar("T")

_AT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<want>[^`]+)`, got `(?P<got>[^`]+)`")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_NAMES = {"str": "a string", "int": "an integer", "float": "a number", "bool": "a boolean", "null": "null"}

#: What the JSON reader can raise on hostile bytes; nesting beyond the interpreter's limit is a RecursionError.
READ_ERRORS = (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError)

encode = msgspec.json.Encoder().encode

_any = msgspec.json.Decoder()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(data: bytes | str, decoder: msgspec.json.Decoder[T], where: str = "") -> T | Problem:
    """Decode one JSON document; `where` is the wire path of the document inside the request, e.g. `input[2]`."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        return _explain(str(error), where)
    except RecursionError:
        return invalid_json("it is nested too deeply")
    except READ_ERRORS as error:
        return invalid_json(str(error))


def compact(raw: bytes) -> bytes:
    """Rewrite a JSON value on one line, so that it fits into an SSE `data:` field; the value must be valid."""
    return encode(_any.decode(raw))


def is_sound(raw: bytes | msgspec.Raw) -> bool:
    """Tell whether a JSON value decodes in full: skipped parts of a larger document were never looked at."""
    try:
        _any.decode(raw)
    except READ_ERRORS:
        return False
    return True


def with_field(data: bytes, name: str, value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the object `data` with one top-level field set; every other value keeps its bytes."""
    fields = _object.decode(data)
    fields[name] = msgspec.Raw(encode(value))
    return encode(fields)


def _explain(text: str, where: str) -> Problem:
    found = _AT.fullmatch(text)
    assert found is not None, "the pattern matches any text"
    what, path = found["what"], found["path"] or "$"
    param = _join(where, path)
    if missing := _MISSING.fullmatch(what):
        field = _join(param, f"$.{missing['field']}")
        return Problem("missing_required_parameter", f"Missing required parameter: '{field}'.", field)
    if expected := _EXPECTED.fullmatch(what):
        return _wrong_type(param, expected["want"], expected["got"])
    return Problem("invalid_value", f"Invalid value for '{param}': {what}." if param else f"{what}.", param or None)


def _wrong_type(param: str, want: str, got: str) -> Problem:
    wanted = " or ".join(_NAMES.get(name, f"an {name}") for name in want.split(" | "))
    given = _NAMES.get(got, f"an {got}")
    if not param:
        return invalid_json(f"it is {given}, not {wanted}")
    return Problem("invalid_type", f"Invalid type for '{param}': expected {wanted}, but got {given} instead.", param)


def _join(where: str, path: str) -> str:
    """Turn a path of the reader (`$.a[0].b`) below `where` into the wire's notation (`where.a[0].b`)."""
    rest = path.removeprefix("$")
    return where + rest if where else rest.removeprefix(".")
