"""Reads JSON of a provider that strict decoding has refused, as far as it can be read.

Providers send numbers as strings, nothing as `""`, a single number where a list belongs, `NaN`, or a character cut in
two. None of that is a reason to lose an answer. What holds the answer must be readable; any other field that has not
its shape is left out, and named. It is slow, and only for what has failed: strict decoders come first. Not here: what
the fields mean.
"""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from segue.dialects.growing_text import mended

T = TypeVar("T")

#: What some servers send for nothing, whatever the type of the field is.
_NOTHING: tuple[object, ...] = ("", [], {}, False, None)


class LenientResult(msgspec.Struct, Generic[T], frozen=True):
    """What could be read, and the names of the fields that were left out."""

    value: T
    left_out: tuple[str, ...] = ()


class LenientDecoder(Generic[T]):
    """Decodes values of one type; `answer` names the fields that hold what was asked for.

    A field of the answer is read or the whole is refused. Its text may begin or end with half a character, which the
    piece before or after it completes; elsewhere such a half is replaced.
    """

    def __init__(self, shape: type[T], *, answer: frozenset[str]) -> None:
        self._shape = inspect.type_info(shape)
        self._answer = answer

    def decode(self, data: bytes) -> LenientResult[T]:
        """Return what can be read of a JSON document; raise one of `UNREADABLE` if that is not the answer."""
        left_out: list[str] = []
        value: T = self._read(decode_json(data, self._answer), self._shape, left_out)
        return LenientResult(value, tuple(left_out))

    def _read(self, value: Any, shape: inspect.Type, left_out: list[str]) -> Any:  # noqa: ANN401 - any JSON value
        match shape:
            case inspect.StructType():
                return self._read_struct(value, shape, left_out)
            case inspect.UnionType():
                return self._read_union(value, shape, left_out)
            case inspect.ListType() if isinstance(value, list):
                return [self._read(one, shape.item_type, left_out) for one in value if one is not None]
            case inspect.DictType() if isinstance(value, dict):
                return {name: self._read(one, shape.value_type, left_out) for name, one in value.items()}
            case inspect.AnyType():
                return value
            case _:
                return _read_scalar(value, shape)

    def _read_union(self, value: Any, shape: inspect.UnionType, left_out: list[str]) -> Any:  # noqa: ANN401 - see _read
        if value is None and any(isinstance(one, inspect.NoneType) for one in shape.types):
            return None
        for one in shape.types:
            try:
                return self._read(value, one, left_out)
            except msgspec.ValidationError:
                continue
        raise msgspec.ValidationError("it is of another type")

    def _read_struct(self, value: Any, shape: inspect.StructType, left_out: list[str]) -> Any:  # noqa: ANN401 - see _read
        if not isinstance(value, dict):
            raise msgspec.ValidationError("it is no object")
        fields: dict[str, Any] = {}
        for field in shape.fields:
            given = value.get(field.encode_name)
            try:
                if given is not None:
                    fields[field.name] = self._read(given, field.type, left_out)
            except msgspec.ValidationError:
                if given in _NOTHING:
                    continue
                if field.encode_name in self._answer:
                    raise
                left_out.append(field.encode_name)
        if any(field.required and field.name not in fields for field in shape.fields):
            raise msgspec.ValidationError("a field is missing")
        return shape.cls(**fields)


def _read_scalar(value: Any, shape: inspect.Type) -> Any:  # noqa: ANN401 - see _read
    match shape:
        case inspect.RawType():
            return msgspec.Raw(json.dumps(value).encode())  # which keeps halves of characters
        case inspect.StrType() if isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
        case inspect.IntType():
            return msgspec.convert(value, int, strict=False)
        case inspect.FloatType():
            return msgspec.convert(value, float, strict=False)
        case _:
            raise msgspec.ValidationError("it is of another type")


def decode_json(data: bytes, answer: frozenset[str] = frozenset()) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value whose texts are sound, but for halves of characters in fields of the answer."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    try:
        value = json.loads(text, strict=False, parse_constant=lambda _: None)
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error
    return _sound(value, "", answer)


def _sound(value: Any, name: str, answer: frozenset[str]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, str):
        return value if name in answer else mended(value)
    if isinstance(value, list):
        return [_sound(one, name, answer) for one in value]
    if isinstance(value, dict):
        return {mended(key): _sound(one, key, answer) for key, one in value.items()}
    return value
