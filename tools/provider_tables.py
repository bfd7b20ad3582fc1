"""The tables of providers in the documentation, made from the table that the dialects run on.

Not here: what the dialects make of a field (`dialect_tables` says what becomes of settings and items).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect as kinds

from segue.dialects.provider_families import FAMILIES, ProviderFamily
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from tools.markdown import Row, code, table


def fields() -> str:
    """Write what each field of a profile means, what it may hold, and its default."""
    info = kinds.type_info(ProviderProfile)
    assert isinstance(info, kinds.StructType)
    rows = []
    for field in info.fields:
        assert isinstance(field.type, kinds.Metadata), "every field has a description"
        meaning = str((field.type.extra_json_schema or {})["description"])
        rows.append((code(field.name), _values(field.type.type), _shown(getattr(PLAIN, field.name)), meaning))
    return table(("key", "value", "default", "meaning"), rows)


def families() -> str:
    """Write the rows: whose they are, and each field that differs, with its source."""
    rows = [row for family in FAMILIES.values() for row in _rows(family)]
    return table(("provider", "chosen by the host", "key", "value", "source"), rows)


def _rows(family: ProviderFamily) -> list[Row]:
    name, hosts = code(family.name), ", ".join(map(code, family.hosts))
    rows: list[Row] = []
    for field, value in msgspec.structs.asdict(family.profile).items():
        if field in family.sources:
            where = "" if rows else hosts
            rows.append(("" if rows else name, where, code(field), _shown(value), f"[source]({family.sources[field]})"))
    return rows or [(name, hosts, "", "", "")]


def _values(kind: kinds.Type) -> str:
    match kind:
        case kinds.BoolType():
            shown = "`true` or `false`"
        case kinds.IntType(ge=least):
            shown = f"integer ≥ {least}"
        case kinds.StrType():
            shown = "string"
        case kinds.LiteralType(values=values):
            shown = ", ".join(code(f'"{value}"') for value in values)
        case kinds.VarTupleType(item_type=item):
            shown = f"list of: {_values(item)}" if isinstance(item, kinds.LiteralType) else "list of strings"
        case kinds.UnionType(types=types):
            shown = " or ".join(_values(one) for one in types if not isinstance(one, kinds.NoneType))
        case kinds.Metadata(type=inner):
            shown = _values(inner)
        case other:
            raise TypeError(f"say in _values() how {other!r} is shown")
    return shown


def _shown(value: Any) -> str:  # noqa: ANN401 - any value of a field
    return "" if value is None or value in {"", ()} else code(msgspec.json.encode(value).decode())
