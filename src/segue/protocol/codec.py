"""Reads JSON from a peer without ever raising, and says what is wrong with it in the wire's words.

Bytes become values in this package only through `decode`. It returns a failure as a problem, with a message for a
person and a `param` for a program. Not here: what is allowed, which the type given to `decode` says.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from segue.protocol.problems import Problem, invalid_json

T = TypeVar("T")

#: A JSON text in pieces, some of which others share.
Pieces = Sequence[bytes | memoryview]

_AT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`(?P<path>\$[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<want>[^`]+)`, got `(?P<got>[^`]+)`")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_TOO_DEEP = "it is nested too deeply"
_NAMES = {"str": "a string", "int": "an integer", "float": "a number", "bool": "a boolean", "null": "null"}

#: The escape of half a surrogate pair, if it has an odd number of backslashes: an even one is of texts about such.
_SURROGATE = re.compile(rb"(\\+)u([dD][89a-fA-F][0-9a-fA-F]{2})")
_ESCAPE_BYTES = 6
_LOW_HALF = b"cdefCDEF"
#: More lone halves than these are no accident.
_MOST_LONE = 1000

#: Longer messages of msgspec are cut: they quote a wrong value in full, and a client can send megabytes of it.
_LONG = 400

#: How deep JSON may be nested if we keep it. Code that reads it again may recurse, with less stack left than we had.
MAX_DEPTH = 64

#: What reading JSON from a peer can raise. Any other exception is a mistake of ours.
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)

encode = msgspec.json.Encoder().encode

_SLICE_BYTES = 256 * 1024
#: So much is copied in one call that holds the interpreter's lock.
_COPIED_BYTES = 64 * 1024
#: So many bytes of a text are not decoded only to see that it is one: that is one call, during which nothing else runs.
_LONG_TEXT = 64 * 1024
_QUOTE = ord('"')
_utf8_decoder = codecs.getincrementaldecoder("utf-8")

_NULL = msgspec.Raw(b"null")
_any = msgspec.json.Decoder()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode(data: bytes | str, decoder: msgspec.json.Decoder[T], where: str = "") -> T | Problem:
    """Decode one JSON document; `where` is its path inside the request, e.g. `input[2]`."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        return explain(error, where)
    except msgspec.DecodeError as error:
        return invalid_json(str(error))
    except UnicodeError:
        return not_unicode()
    except RecursionError:
        return invalid_json(_TOO_DEEP)


def without_lone_surrogates(document: bytes | str) -> bytes | None:
    """Return a document with U+FFFD in place of each lone surrogate; None if it has none, or very many.

    JSON lets an escape name half of a pair (RFC 8259, 8.2), and a program that counts in UTF-16 writes one where it
    cuts a text. No UTF-8 says that, so a decoder refuses the document. Call this when one has: it looks at every escape
    of a surrogate.
    """
    data = document if isinstance(document, bytes) else document.encode("utf-8", "replace")
    found = list(islice(_lone_surrogates(data), _MOST_LONE + 1))
    if not 1 <= len(found) <= _MOST_LONE:
        return None
    ends = [0, *(at + _ESCAPE_BYTES for at in found)]
    return rb"\ufffd".join(data[begin:end] for begin, end in zip(ends, [*found, len(data)], strict=True))


def _lone_surrogates(data: bytes) -> Iterator[int]:
    """Yield where the escapes of lone surrogates are."""
    if rb"\ud" not in data and rb"\uD" not in data:
        return
    high: int | None = None  # one whose other half may follow
    for escape in _SURROGATE.finditer(data):
        if len(escape[1]) % 2 == 0:
            continue
        at = escape.end() - _ESCAPE_BYTES
        is_low = escape[2][1] in _LOW_HALF
        if is_low and high == at - _ESCAPE_BYTES:
            high = None
            continue
        if high is not None:
            yield high
        high = None if is_low else at
        if is_low:
            yield at
    if high is not None:
        yield high


def encode_exactly(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Encode a value that is kept and may be large: of its buffer, `encode` leaves up to a third unused."""
    return bytes(memoryview(encode(value)))


def join_long(*pieces: bytes | msgspec.Raw) -> bytes:
    """Join pieces of which one is a long text, and let other threads work meanwhile.

    CPython joins a megabyte and more without the interpreter's lock, but only what is bytes and no part of something.
    """
    size = _COPIED_BYTES
    views = [memoryview(piece) for piece in pieces]
    return b"".join([bytes(view[at : at + size]) for view in views for at in range(0, len(view), size)])


def keep_text(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a copy of a text: a view would keep the whole document in memory."""
    return msgspec.Raw(join_long(raw)) if is_long_text(raw) else raw.copy()


def not_unicode() -> Problem:
    """Return why a document is refused of which a text is no Unicode."""
    return invalid_json("it holds text that is not valid Unicode")


def is_long_text(raw: msgspec.Raw) -> bool:
    """Return whether a value is a long text. All but its UTF-8 was checked when it was skipped: see `is_utf8`."""
    data = memoryview(raw)
    return len(data) > _LONG_TEXT and data[0] == _QUOTE


def is_utf8(data: bytes | memoryview) -> bool:
    """Return whether bytes are UTF-8, as every text of a WebSocket must be (RFC 6455, 8.1).

    A slice at a time, so that a large text neither is in memory twice nor keeps other threads waiting.
    """
    decoder, view = _utf8_decoder(), memoryview(data)
    try:
        for at in range(0, len(view), _SLICE_BYTES):
            decoder.decode(view[at : at + _SLICE_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def size_of(document: bytes | str) -> int:
    """Return how many bytes a document has on the wire."""
    if isinstance(document, bytes) or document.isascii():
        return len(document)
    return len(document.encode("utf-8", "surrogatepass"))


def decode_value(raw: msgspec.Raw, where: str) -> Any | Problem:  # noqa: ANN401 - any JSON value
    """Decode a part of a document in full, which nothing has checked while it was skipped; refuse deep nesting."""
    data = bytes(raw)
    value = decode(data, _any, where)
    brackets = data.count(b"[") + data.count(b"{")  # a document cannot be deeper than its number of brackets
    return invalid_json(_TOO_DEEP) if brackets > MAX_DEPTH and _is_deep(value) else value


def unknown_fields(data: bytes | str, known: Collection[str]) -> dict[str, msgspec.Raw] | Problem:
    """Return the fields of a JSON object that are not `known` and not null, as they came; each is sound JSON."""
    fields = decode(data, _object)
    if isinstance(fields, Problem):
        return fields
    unknown: dict[str, msgspec.Raw] = {}
    for name, raw in fields.items():
        if name in known or raw == _NULL:
            continue
        value = decode_value(raw, name)
        if isinstance(value, Problem):
            return value
        unknown[name] = raw.copy()
    return unknown


def is_nested_too_deeply(data: bytes) -> bool:
    """Tell whether code that reads a document again might not be able to. What is no JSON is not."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return False
    try:
        return _is_deep(_any.decode(data))
    except RecursionError:
        return True
    except UNREADABLE:
        return False


def with_field(data: bytes, name: str, value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the object `data` with one top-level field set; every other value keeps its bytes."""
    fields = _object.decode(data)
    fields[name] = msgspec.Raw(encode(value))
    return encode(fields)


def without_field(data: bytes, name: str) -> bytes:
    """Return the object `data` without one top-level field; every other value keeps its bytes."""
    fields = _object.decode(data)
    fields.pop(name, None)
    return encode(fields)


def explain(error: msgspec.ValidationError, where: str = "") -> Problem:
    """Turn msgspec's error about a document at `where` in the request into a problem."""
    text = str(error)
    if len(text) > _LONG:
        text = f"{text[: _LONG // 2]}…{text[-_LONG // 2 :]}"  # the fault stands at one end and the path at the other
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


def _is_deep(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [node for node in level if type(node) is dict or type(node) is list]
        if not level:
            return False
        level = [child for node in level for child in (node.values() if type(node) is dict else node)]
    return True


def _wrong_type(param: str, want: str, got: str) -> Problem:
    wanted = " or ".join(_NAMES.get(name, f"an {name}") for name in want.split(" | "))
    given = _NAMES.get(got, f"an {got}")
    if not param:
        return invalid_json(f"it is {given}, not {wanted}")
    return Problem("invalid_type", f"Invalid type for '{param}': expected {wanted}, but got {given} instead.", param)


def _join(where: str, path: str) -> str:
    """Turn a path of msgspec (`$.a[0].b`) below `where` into the wire's notation (`where.a[0].b`)."""
    rest = path.removeprefix("$")
    return where + rest if where else rest.removeprefix(".")
