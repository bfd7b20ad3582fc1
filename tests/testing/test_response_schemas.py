"""The schemas judge as the document and the SDK do, and say which package is missing when they cannot."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # the package ships no types

from segue.extras import how_to_add
from segue.testing.protocol_checker import check_event
from segue.testing.response_schemas import (
    EXTRA_EVENTS,
    EXTRA_MEMBERS,
    Json,
    ProtocolViolation,
    event_schemas,
    schemas,
    short,
)
from tests.testing.response_streams import GOOD, SSE_ERROR, response

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_is_the_one_the_rules_were_written_for() -> None:
    assert sorted(schemas()["ResponseResource"]["required"]) == sorted(response())
    assert len(response()) == 31
    assert len(event_schemas()) == 24
    assert not event_schemas().keys() & EXTRA_EVENTS.keys()
    assert all(extra.reason for extra in [*EXTRA_EVENTS.values(), *EXTRA_MEMBERS.values()])


READ = {"$ref", "type", "enum", "allOf", "anyOf", "oneOf", "properties", "required", "items", "additionalProperties"}
NOTES = {"title", "description", "default", "discriminator", "example"}


def reachable(schema: Json, seen: set[str]) -> Iterator[Json]:
    """All schemas below one, those it refers to included."""
    yield schema
    name = schema.get("$ref", "").rpartition("/")[2]
    below = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    below += [member for key in ("allOf", "anyOf", "oneOf") for member in schema.get(key, ())]
    below += [*schema.get("properties", {}).values(), *([schemas()[name]] if name and name not in seen else [])]
    seen.add(name)
    for member in below:
        yield from reachable(member, seen)


def test_the_document_uses_no_keyword_that_is_not_read() -> None:
    seen: set[str] = set()
    roots = [*event_schemas().values(), schemas()["WebSocketErrorEvent"]]
    found = [schema for root in roots for schema in reachable(root, seen)]
    assert len(found) > 500
    assert {key for schema in found for key in schema if not key.startswith("x-")} <= READ | NOTES


def mutants(value: object) -> Iterator[object]:
    """The same value with one thing in it removed or replaced."""
    yield from (None, "x", 1.5, True, [{}])
    if isinstance(value, dict):
        for key, member in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield from (value | {key: other} for other in mutants(member))
    elif isinstance(value, list):
        for place, member in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in mutants(member))


def passes(frame: Json) -> bool:
    try:
        check_event(frame, transport="sse")
    except ProtocolViolation:
        return False
    return True


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.deep)])
def test_verdicts_are_those_of_jsonschema(every: int) -> None:
    everything = [SSE_ERROR, *(frame for name, frames in GOOD.items() if name != "custom tool" for frame in frames)]
    # One of each kind, and of those that hold a response only one: that package is slow.
    frames = {
        (frame["type"], frame.get("item", {}).get("type")): frame for frame in everything if "response" not in frame
    }
    frames |= {("response.completed", None): GOOD["text"][-1]}
    verdicts = {True: 0, False: 0}
    for (kind, _), frame in frames.items():
        judge = Draft202012Validator(event_schemas()[kind] | {"components": {"schemas": schemas()}})
        for mutant in islice(mutants(frame), 0, None, every):
            if isinstance(mutant, dict) and mutant.get("type") == kind:
                expected = judge.is_valid(mutant)
                assert passes(mutant) == expected, mutant
                verdicts[expected] += 1
    assert min(verdicts.values()) > 40 / every, verdicts


# ------------------------------------------------------------------------------------------------ the packages it needs

#: Importing everything of segue.testing loads none of the packages that only the checker needs.
CHEAP = """
import importlib, pkgutil, sys, segue.testing
for module in pkgutil.iter_modules(segue.testing.__path__):
    importlib.import_module(f"segue.testing.{module.name}")
print(sorted({"openai", "pydantic", "llm_comply", "jinja2", "cyllama"} & set(sys.modules)))
"""


def test_importing_the_package_imports_no_sdk() -> None:
    done = subprocess.run([sys.executable, "-c", CHEAP], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("llm_comply", "checker.check_event({'type': 'response.created'}, transport='sse')"),
        ("openai", "checker.check_event({'type': 'response.steer.failed'}, transport='sse')"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(package: str, use: str) -> None:
    program = (
        f"import sys\nsys.modules[{package!r}] = None\nfrom segue.testing import protocol_checker as checker\n{use}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.endswith(
        f"MissingPackageError: the protocol checker needs {package}, which is not installed: {how_to_add('testing')}\n"
    )


def test_the_extra_and_the_tests_have_the_same_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["project"]["optional-dependencies"]["testing"]) <= set(project["dependency-groups"]["test"])


def test_a_long_value_is_shown_by_its_ends() -> None:
    shown = short("a" * 500 + "z")
    assert (len(shown), shown[:3], shown[-3:]) == (191, "'aa", "az'")
