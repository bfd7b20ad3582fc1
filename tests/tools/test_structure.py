"""The figures of a checkout are those of its source, whatever it looks like."""

from __future__ import annotations

from pathlib import Path

from tools.structure import duplicate_classes, import_circles, measure, read_modules, render

FILES = {
    "src/segue/__init__.py": "",
    "src/segue/one.py": (
        "from typing import TYPE_CHECKING\n"
        "from segue import two\n"
        "if TYPE_CHECKING:\n    from segue.three import Third\n"
        'class _Head:\n    def read(self):\n        """Say\n        more."""\n        return 1\n'
    ),
    "src/segue/two.py": "class Head: ...\ndef go():\n    def inner():\n        pass\n    return inner\n",
    "src/segue/three.py": (
        'import segue.one\nclass Third:\n    def read(self):\n        """Read."""\n    def go(self): ...\n'
    ),
    "tests/test_one.py": "def test(): ...\n",
}


def lay(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_modules_are_read_with_what_they_import_and_define(tmp_path: Path) -> None:
    modules = read_modules(lay(tmp_path) / "src")
    assert set(modules) == {"segue", "segue.one", "segue.two", "segue.three"}
    assert modules["segue.one"].imports == {"segue.two", "segue.three"}, "an import for the type checker counts"
    assert modules["segue.one"].functions == {"segue.one:_Head.read": 2}, "a docstring does not count"
    assert modules["segue.two"].functions == {"segue.two:go": 4, "segue.two:go.inner": 2}


def test_names_that_stand_twice_are_found_without_their_underscores(tmp_path: Path) -> None:
    assert duplicate_classes(read_modules(lay(tmp_path) / "src")) == {"Head": ["segue.one", "segue.two"]}


def test_circles_are_found_and_chains_are_none() -> None:
    def graph(**imports: str) -> dict[str, frozenset[str]]:
        return {name: frozenset(others.split()) for name, others in imports.items()}

    assert import_circles(graph(a="b", b="c", c="")) == []
    assert import_circles(graph(a="b", b="c", c="a d", d="e", e="d", f="a")) == [["d", "e"], ["a", "b", "c"]]


def test_all_figures_of_a_checkout(tmp_path: Path) -> None:
    structure = measure(lay(tmp_path))
    assert (structure.modules, structure.lines, structure.functions, structure.test_lines) == (4, 19, 5, 1)
    assert structure.import_circles == [["segue.one", "segue.three"]]
    assert structure.modules_without_tests == ["segue.two"], "what does nothing needs no tests"
    assert structure.longest_functions[0] == ("segue.two:go", 4)
    told = render(structure).splitlines()
    assert "class names used twice      1" in told
    assert "                            Head: segue.one, segue.two" in told


def test_the_project_has_each_class_name_once_and_no_circle() -> None:
    structure = measure(Path(__file__).resolve().parents[2])
    assert structure.import_circles == []
    assert structure.duplicate_classes == {}
