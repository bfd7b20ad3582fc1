"""The local model warns of each setting that it drops."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from segue.dialects.responses.request import RESPONSES_FIELDS
from segue.engine.settings import LOCAL_FIELDS, loss_warnings
from segue.protocol.requests import Settings

Json = dict[str, Any]
FUNCTION = {"type": "function", "name": "look", "parameters": {}}


def told(**fields: Any) -> tuple[str, ...]:  # noqa: ANN401 - any setting
    return loss_warnings(Settings(model="m", **fields))


def test_every_setting_has_its_rule() -> None:
    assert set(LOCAL_FIELDS) == set(RESPONSES_FIELDS)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"instructions": "x", "temperature": 1.0, "top_p": 0.5, "truncation": "auto", "max_output_tokens": 5},
        {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}, "metadata": {"a": "b"}},
        {"include": ("reasoning.encrypted_content",), "prompt_cache_key": "k", "safety_identifier": "s"},
        {"extra": {"user": Raw(b'"u"'), "stream_options": Raw(b'{"include_obfuscation":false}')}},
        {"include": ("message.output_text.logprobs",), "top_logprobs": 2},
        {"extra": {"seed": Raw(b"7"), "stop": Raw(b'"END"')}},
    ],
)
def test_of_what_is_obeyed_nothing_is_said(fields: Json) -> None:
    assert told(**fields) == ()


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"reasoning": {"effort": "low"}, "max_tool_calls": 1}, ["reasoning", "max_tool"]),
        ({"tools": [{"type": "custom", "name": "edit"}, {"type": "web_search"}]}, ["edit", "web_search"]),
        ({"text": {"verbosity": "low", "new": 1}}, ["text.new", "text.verbosity"]),
        ({"include": ("file_search_call.results",)}, ["include: file_search_call.results"]),
        ({"extra": {"prompt_cache_retention": Raw(b'"24h"'), "new": Raw(b"1")}}, ["prompt_cache_retention", "new"]),
    ],
)
def test_what_is_loss_warnings_is_named(fields: Json, names: list[str]) -> None:
    said = told(**fields)
    assert [name for name, warning in zip(names, said, strict=True) if f"'{name}" not in warning] == []
