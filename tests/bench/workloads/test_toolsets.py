"""Generated tools have the size that is asked for, and the form that every API can carry."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # the package ships no types

from segue.bench.workloads.prose import ProseWriter
from segue.bench.workloads.toolsets import make_tools
from segue.testing.replies import compact
from tests.strategies import examples


@pytest.mark.parametrize(("count", "size"), [(4, 2_700), (10, 8_300), (14, 35_000), (15, 38_000)])
def test_all_together_have_about_the_size(count: int, size: int) -> None:
    made = make_tools(ProseWriter("size"), count, size)
    assert len(made) == count
    assert 0.8 * size < len(compact(made)) < 1.25 * size


@settings(max_examples=examples(25))
@given(st.integers(1, 12), st.integers(100, 8_000), st.integers(0, 1000))
def test_every_schema_is_one(count: int, size: int, seed: int) -> None:
    made = make_tools(ProseWriter(str(seed)), count, size)
    assert made == make_tools(ProseWriter(str(seed)), count, size)
    for tool in made:
        assert list(tool) == ["name", "description", "schema"]
        assert tool["name"].isidentifier()
        Draft202012Validator.check_schema(tool["schema"])
        assert set(tool["schema"]["required"]) <= set(tool["schema"]["properties"])
