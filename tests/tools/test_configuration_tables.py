"""The tables of settings name every type, default and variable."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from segue.config.units import Bytes, Moment, Positive
from tools.configuration_tables import settings


class Settings(msgspec.Struct):
    name: Annotated[str, Meta(pattern="^a", description="Its name.")]
    until: Annotated[Moment | None, Meta(description="Until when.")] = None
    on: Annotated[bool, Meta(description="Whether.")] = True
    mode: Annotated[Literal["x", "y"], Meta(description="Which.")] = "x"
    most_bytes: Annotated[Bytes, Meta(description="Size.")] = 2**21
    wait_s: Annotated[Positive, Meta(description="Time.")] = 7200.0
    names: Annotated[list[str], Meta(description="Names.")] = msgspec.field(default_factory=lambda: ["*"])


def test_each_setting_has_its_row() -> None:
    said, _, _, _, *rows = settings(Settings, "SEGUE_X").splitlines()
    assert said == "The variable of a key is `SEGUE_X_` and the key in capitals: `SEGUE_X_NAME`."
    assert rows == [
        "| `name` | string, `^a` | required | Its name. |",
        "| `until` | date and time | none | Until when. |",
        "| `on` | boolean | `true` | Whether. |",
        '| `mode` | `"x"` or `"y"` | `"x"` | Which. |',
        "| `most_bytes` | integer ≥ 1 | `2097152` (2 MiB) | Size. |",
        "| `wait_s` | number > 0 | `7200.0` (2 h) | Time. |",
        '| `names` | list of strings | `["*"]` | Names. |',
    ]


def test_a_type_without_a_name_is_not_guessed() -> None:
    class Odd(msgspec.Struct):
        span: Annotated[timedelta, Meta(description="What?")] = timedelta(0)

    with pytest.raises(TypeError, match="say in _kind"):
        settings(Odd, "X")
