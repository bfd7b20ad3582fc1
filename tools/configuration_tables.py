"""The tables of settings in the documentation, made from the types of the configuration. Not here: the other tables."""

from __future__ import annotations

import msgspec
from msgspec import NODEFAULT, UNSET
from msgspec import inspect as kinds

from tools.markdown import code, table


def settings(struct: type[msgspec.Struct], prefix: str) -> str:
    """Write the keys of one table of the configuration; raises `TypeError` for a type that it cannot name yet.

    A variable is named once: a column of them would leave the meanings no room.
    """
    info = kinds.type_info(struct)
    assert isinstance(info, kinds.StructType)
    rows = []
    for field in info.fields:
        kind, text = field.type, ""
        if isinstance(kind, kinds.Metadata):
            text = str((kind.extra_json_schema or {})["description"])
            kind = kind.type
        rows.append((code(field.name), _kind(kind), _default(field), text))
    variable = f"{prefix}_{info.fields[0].name}".upper()
    said = f"The variable of a key is `{prefix}_` and the key in capitals: `{variable}`."
    return f"{said}\n\n{table(('key', 'type', 'default', 'meaning'), rows)}"


_PLAIN_KINDS: dict[type[kinds.Type], str] = {
    kinds.BoolType: "boolean",
    kinds.DictType: "table",
    kinds.DateTimeType: "date and time",
    kinds.StructType: "table",
}


def _kind(kind: kinds.Type) -> str:
    match kind.type if isinstance(kind, kinds.Metadata) else kind:
        case kinds.BoolType() | kinds.DictType() | kinds.DateTimeType() | kinds.StructType() as plain:
            return _PLAIN_KINDS[type(plain)]
        case kinds.IntType() | kinds.FloatType() as number:
            return _number(number)
        case kinds.StrType(pattern=pattern):
            return f"string, `{pattern}`" if pattern else "string"
        case kinds.ListType(item_type=item):
            return f"list of {_kind(item)}s"
        case kinds.LiteralType(values=values):
            return " or ".join(f'`"{value}"`' for value in values)
        case kinds.UnionType(types=types):
            return " or ".join(_kind(one) for one in types if not isinstance(one, kinds.NoneType))
        case other:
            raise TypeError(f"say in _kind() how {other!r} is shown")


def _number(kind: kinds.IntType | kinds.FloatType) -> str:
    name = "integer" if isinstance(kind, kinds.IntType) else "number"
    bounds = (("> ", kind.gt), ("≥ ", kind.ge), ("≤ ", kind.le))
    return " ".join([name, *(f"{sign}{bound}" for sign, bound in bounds if bound is not None)])


def _default(field: kinds.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    if value is None or value is UNSET or isinstance(value, msgspec.Struct):
        return "none"
    shown = code(msgspec.json.encode(value).decode())
    if field.name.endswith("_bytes"):
        return f"{shown} ({value // 2**20} MiB)"
    if field.name.endswith("_s"):
        units = ((86400, "days"), (3600, "h"), (60, "min"))
        unit, name = next((pair for pair in units if value >= pair[0]), (1, "s"))
        return f"{shown} ({value / unit:g} {name})" if unit > 1 else shown
    return shown
