"""Checks the shape rules that no linter knows: sizes, banned names, one reader of the environment, reasons.

It reads Python files and prints one line per finding; it never changes a file.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 600
ROOTS = ("src", "tests", "tools")
BANNED_NAMES = frozenset({"base2", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"})
PACKAGE = ("src", "segue")
ENVIRONMENT_READER = ("src", "segue", "config")
ENVIRONMENT_NAMES = frozenset({"environ", "environb", "getenv", "getenvb"})

FILE_WIDE = re.compile(r"#\s*(?:(?:ruff|flake8)\s*:|mypy\s*:)", re.IGNORECASE)
NOQA = re.compile(r"#\s*noqa\b(?P<rest>.*)", re.IGNORECASE)
NOQA_CODED = re.compile(r":\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*(?P<reason>.*)")
IGNORE = re.compile(r"#\s*type:\s*ignore\b(?P<rest>.*)")
IGNORE_CODED = re.compile(r"\s*\[[a-z0-9, -]+\](?P<reason>.*)")
REASON = re.compile(r"[A-Za-z]{2,}\W+\w")  # at least two words

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One broken rule at one place."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def check(root: Path) -> list[Finding]:
    """Return the findings in all Python files below the checkout `root`, in order of path and line."""
    paths = sorted(path for name in ROOTS for path in (root / name).rglob("*.py"))
    findings: list[Finding] = []
    for path in paths:
        shown = path.relative_to(root)
        findings += check_source(shown, path.read_text(encoding="utf-8"))
    return findings


def check_source(path: Path, source: str) -> list[Finding]:
    """Return the findings in one file; `path` is relative to the checkout."""
    nodes = list(ast.walk(ast.parse(source, filename=str(path))))
    found = [*_names(path), *_module_size(path, source), *_functions(path, nodes), *_suppressions(path, source)]
    if path.parts[: len(PACKAGE)] == PACKAGE and path.parts[: len(ENVIRONMENT_READER)] != ENVIRONMENT_READER:
        found += _environment(path, nodes)
    return sorted(found, key=lambda finding: finding.line)


def _names(path: Path) -> Iterator[Finding]:
    for name in (*path.parent.parts, path.stem):
        if name.strip("_").lower() in BANNED_NAMES:
            yield Finding(path=path, line=1, message=f"{name!r} says nothing: name the file after what it holds")


def _module_size(path: Path, source: str) -> Iterator[Finding]:
    lines = len(source.splitlines())
    if lines > MAX_MODULE_LINES:
        message = f"module has {lines} lines, more than {MAX_MODULE_LINES}: split it by concept"
        yield Finding(path=path, line=1, message=message)


def _functions(path: Path, nodes: Sequence[ast.AST]) -> Iterator[Finding]:
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _function_lines(node)
            if lines > MAX_FUNCTION_LINES:
                message = f"{node.name}() has {lines} lines, more than {MAX_FUNCTION_LINES}: take a step out of it"
                yield Finding(path=path, line=node.lineno, message=message)


def _function_lines(node: FunctionNode) -> int:
    """Count the lines from `def` to the end, without the docstring."""
    total = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def _environment(path: Path, nodes: Sequence[ast.AST]) -> Iterator[Finding]:
    aliases = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "os"
    }
    for node in nodes:
        if _reads_environment(node, aliases):
            line = getattr(node, "lineno", 1)
            yield Finding(path=path, line=line, message="the environment is read in src/segue/config only")


def _reads_environment(node: ast.AST, aliases: set[str]) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
            return owner in aliases and attribute in ENVIRONMENT_NAMES
        case ast.ImportFrom(module="os", names=names):
            return any(alias.name in ENVIRONMENT_NAMES for alias in names)
        case _:
            return False


def _suppressions(path: Path, source: str) -> Iterator[Finding]:
    if not any(pattern.search(source) for pattern in (FILE_WIDE, NOQA, IGNORE)):
        return  # tokenizing takes longer than everything else here
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            for message in _comment(token.string):
                yield Finding(path=path, line=token.start[0], message=message)


def _comment(comment: str) -> Iterator[str]:
    if FILE_WIDE.search(comment):
        yield "a check is silenced at one line with a reason, or in pyproject.toml, never for a file"
        return
    noqa = NOQA.search(comment)
    if noqa and not _has_reason(NOQA_CODED.match(noqa["rest"])):
        yield "noqa needs a code and a reason: `# noqa: S603 - the command is the user's own`"
    ignore = IGNORE.search(comment)
    if ignore and not _has_reason(IGNORE_CODED.match(ignore["rest"])):
        yield "type: ignore needs a code and a reason: `# type: ignore[arg-type]  # the stub lacks bytes`"


def _has_reason(coded: re.Match[str] | None) -> bool:
    if coded is None:
        return False
    # a second suppression in the same comment is no reason for the first
    return REASON.search(re.split(r"#\s*(?:noqa|type:)", coded["reason"])[0]) is not None


def main(arguments: Sequence[str]) -> int:
    """Print the findings below the given checkout (default: the current folder); exit status 1 if there are any."""
    findings = check(Path(arguments[0] if arguments else "."))
    for finding in findings:
        print(finding)
    print(f"check_shape: {len(findings)} finding(s)" if findings else "check_shape: all files in shape")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
