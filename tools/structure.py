"""What shape the code has, in figures: modules, lines, functions, names that stand twice, imports that go in circles.

    python -m tools.structure [--json] [CHECKOUT]

It reads the source of a checkout and runs none of it, so it can look at any version. An import counts wherever it
stands, under TYPE_CHECKING too: a circle that only a type checker sees is one for a reader as well. Not here: rules
with limits (`check_shape`), and what tests reach (`check_coverage`).
"""

from __future__ import annotations

import ast
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

_LONGEST = 8


@dataclass(frozen=True, kw_only=True)
class Module:
    """One file of the package."""

    name: str
    lines: int
    imports: frozenset[str]
    """Modules of the package that it imports, wherever the import stands."""
    classes: tuple[str, ...]
    functions: Mapping[str, int]
    """Qualified name -> lines, without its docstring."""
    has_logic: bool
    """Whether a function of it does something; those of a `Protocol` have a docstring only."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The figures of one checkout."""

    modules: int
    lines: int
    module_lines: tuple[int, int, int]
    """Median, 90th percentile, largest."""
    functions: int
    function_lines: tuple[int, int, int]
    """Median, 90th and 99th percentile."""
    longest_functions: tuple[tuple[str, int], ...]
    duplicate_classes: dict[str, list[str]]
    """Name without leading underscores -> the modules that have it."""
    import_circles: list[list[str]]
    test_lines: int
    modules_without_tests: list[str]


def measure(checkout: Path) -> Structure:
    """Read the figures of a checkout."""
    modules = read_modules(checkout / "src")
    sizes = sorted(module.lines for module in modules.values())
    functions = sorted((size, name) for module in modules.values() for name, size in module.functions.items())
    lengths = [size for size, _ in functions]
    tests = [path.relative_to(checkout / "tests") for path in (checkout / "tests").rglob("*.py")]
    return Structure(
        modules=len(modules),
        lines=sum(sizes),
        module_lines=(round(statistics.median(sizes)), _percentile(sizes, 90), sizes[-1]),
        functions=len(functions),
        function_lines=(round(statistics.median(lengths)), _percentile(lengths, 90), _percentile(lengths, 99)),
        longest_functions=tuple((name, size) for size, name in reversed(functions[-_LONGEST:])),
        duplicate_classes=duplicate_classes(modules),
        import_circles=import_circles({name: module.imports for name, module in modules.items()}),
        test_lines=sum(_lines((checkout / "tests" / path).read_text(encoding="utf-8")) for path in tests),
        modules_without_tests=without_tests(modules, tests),
    )


@cache
def read_modules(source: Path) -> Mapping[str, Module]:
    """Read every module below a source folder, by its dotted name, once in a process."""
    paths = {_dotted(path.relative_to(source)): path for path in sorted(source.rglob("*.py"))}
    return {name: _read(name, path, frozenset(paths)) for name, path in paths.items()}


def duplicate_classes(modules: Mapping[str, Module]) -> dict[str, list[str]]:
    """Return the class names that stand more than once, with the modules they stand in."""
    found: dict[str, list[str]] = defaultdict(list)
    for module in modules.values():
        for name in module.classes:
            found[name.lstrip("_")].append(module.name)
    return {name: sorted(places) for name, places in sorted(found.items()) if len(places) > 1}


def import_circles(imports: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in sorted(imports.get(name, ())):
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            at = stack.index(name)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1:
                circles.append(group)

    for name in sorted(imports):
        if name not in order:
            visit(name)
    return circles


def without_tests(modules: Mapping[str, Module], tests: Sequence[Path]) -> list[str]:
    """Return the modules with logic for which no `test_<module>.py` stands in the mirrored folder of the tests."""
    there = {path.as_posix() for path in tests}
    missing = []
    for module in modules.values():
        *folders, stem = module.name.split(".")[1:] or [""]
        if module.has_logic and "/".join((*folders, f"test_{stem.strip('_')}.py")) not in there:
            missing.append(module.name)
    return missing


def render(structure: Structure) -> str:
    """Write the figures for a person."""

    def shares(figures: tuple[int, int, int], last: str) -> str:
        return f"median {figures[0]}, p90 {figures[1]}, {last} {figures[2]}"

    rows = [
        ("modules", f"{structure.modules}, {structure.lines:,} lines"),
        ("lines of a module", shares(structure.module_lines, "largest")),
        ("functions", str(structure.functions)),
        ("lines of a function", shares(structure.function_lines, "p99")),
        ("lines of tests", f"{structure.test_lines:,} ({structure.test_lines / structure.lines:.2f} a line of source)"),
        ("class names used twice", str(len(structure.duplicate_classes))),
        *(("", f"{name}: {', '.join(places)}") for name, places in structure.duplicate_classes.items()),
        ("import circles", str(len(structure.import_circles))),
        *(("", ", ".join(group)) for group in structure.import_circles),
        ("modules without a test file", str(len(structure.modules_without_tests))),
        *(("", name) for name in structure.modules_without_tests),
        ("longest functions", ""),
        *(("", f"{size:3} {name}") for name, size in structure.longest_functions),
    ]
    return "\n".join(f"{label:28}{text}".rstrip() for label, text in rows)


def _read(name: str, path: Path, known: frozenset[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=str(path))
    nodes = list(ast.walk(tree))
    imports = frozenset(_imports(nodes, known)) - {name}
    classes = tuple(node.name for node in nodes if isinstance(node, ast.ClassDef))
    return Module(
        name=name,
        lines=_lines(text),
        imports=imports,
        classes=classes,
        functions=dict(_functions(tree, f"{name}:")),
        has_logic=any(map(_does_something, nodes)),
    )


def _imports(nodes: Sequence[ast.AST], known: frozenset[str]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:  # what is named may be a module itself
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{child.name}", _body_lines(child)
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif not isinstance(child, ast.expr):
            yield from _functions(child, prefix)


def _does_something(node: ast.AST) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return not all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body)


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None, "a parsed function has an end"
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _lines(text: str) -> int:
    return text.count("\n")


def _percentile(ordered: Sequence[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def main(arguments: Sequence[str]) -> None:
    """Print the figures of a checkout: of this one, unless another is named."""
    folders = [argument for argument in arguments if not argument.startswith("--")]
    structure = measure(Path(folders[0]) if folders else Path(__file__).resolve().parents[1])
    print(json.dumps(asdict(structure), indent=2) if "--json" in arguments else render(structure))


if __name__ == "__main__":
    main(sys.argv[1:])
