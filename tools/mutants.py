"""Plants small faults in a pure package, one at a time, and tells which of them the package's own tests do not notice.

    make mutants PACKAGE=protocol          all of it: takes some minutes per thousand lines
    python -m tools.mutants protocol --report    judge the last run again, and write the page of its survivors

mutmut makes the faults and runs the tests; it works on a copy of the checkout in `build/mutants/PACKAGE` and remembers
what it has tried, so a second run only tries what has changed and what survived. A *mutant* is the code with one fault.
A mutant that no test notices *survives*: a test is missing, or the fault changes nothing. `tools/mutants_kept.toml`
says of survivors that may stay why they may. Not here: packages that do I/O, where a fault often ends in a time-out
instead of a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PURE = ("protocol", "history", "tunnel", "dialects", "http")
KEPT = ROOT / "tools" / "mutants_kept.toml"
LEAST_PERCENT = 90.0

#: What mutmut notes for a mutant: https://mutmut.readthedocs.io. Whatever else it notes is a test run that ended badly.
_SURVIVED = frozenset({0})
_NOT_REACHED = frozenset({5, 33})
_NOT_TRIED = frozenset({None, 2, 34})

_SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/segue/{package}/*"]
also_copy = ["docs"]
# an assertion says what a caller must not do; no test may do it
do_not_mutate_patterns = ["^\\\\s*assert "]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-m", "not deep", "--hypothesis-profile=mutants"]
pytest_add_cli_args_test_selection = ["tests/{package}"]
use_git_change_detection = false
"""


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """One fault that no test noticed."""

    where: str
    """`module:function`."""
    before: str
    after: str
    reached: bool
    """Whether a test runs the function at all."""

    @property
    def wording(self) -> bool:
        """Whether only a text for people differs: its case, or the marks that mutmut puts around it."""
        plain = [re.sub(r"XX", "", line).lower() for line in (self.before, self.after)]
        return plain[0] == plain[1] and " " in self.before


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of the mutants of one package."""

    package: str
    tried: int
    survivors: tuple[Survivor, ...]

    @property
    def killed_percent(self) -> float:
        """How many of them the tests noticed."""
        return 100 * (1 - len(self.survivors) / max(1, self.tried))


def run(package: str, processes: int) -> None:
    """Try every mutant of a package that was not tried before."""
    folder = _folder(package)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src", "tests", "docs"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Python forgets a folder of its path that is missing when it first looks there
    (folder / "mutants" / "src").mkdir(parents=True, exist_ok=True)
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + _SETTINGS.format(package=package)
    (folder / "pyproject.toml").write_text(settings, encoding="utf-8")
    forget_survivors(folder / "mutants" / "src" / "segue" / package)
    _mutmut(folder, "run", "--max-children", str(processes))


def judge(package: str) -> Result:
    """Read what became of the mutants of the last run."""
    folder = _folder(package)
    codes = dict(_codes(folder / "mutants" / "src" / "segue" / package))
    tried = {name: code for name, code in codes.items() if code not in _NOT_TRIED}
    left = {name: code for name, code in tried.items() if code in _SURVIVED | _NOT_REACHED}
    survivors = tuple(_survivor(folder, name, reached=code in _SURVIVED) for name, code in sorted(left.items()))
    return Result(package=package, tried=len(tried), survivors=survivors)


def reason_of(survivor: Survivor, kept: Mapping[str, Mapping[str, str]]) -> str:
    """Say in a word why a survivor may stay; an empty text if nobody has said so."""
    if not survivor.reached:
        return ""
    if survivor.wording:
        return "wording"
    return kept.get(survivor.where, {}).get(survivor.after, "")


def page(result: Result) -> str:
    """Write the page of a package: how many mutants died, and every one that did not."""
    kept = tomllib.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    reasons = [(survivor, reason_of(survivor, kept)) for survivor in result.survivors]
    words = Counter(reason or "no test yet" for _, reason in reasons)
    noticed = result.tried - len(result.survivors)
    lines = [
        f"# Mutants of {result.package}",
        "",
        f"`make mutants PACKAGE={result.package}` planted {result.tried} faults.",
        f"The tests in `tests/{result.package}` alone noticed {noticed}: **{result.killed_percent:.1f} %**.",
        "",
        *(f"- {count}: {word}" for word, count in words.most_common()),
        "",
        "| where | fault | why it may stay |",
        "| --- | --- | --- |",
    ]
    for survivor, reason in reasons:
        if reason != "wording":
            fault = f"`{_cell(survivor.before)}` → `{_cell(survivor.after)}`"
            lines.append(f"| `{survivor.where}` | {fault} | {reason or 'no test yet'} |")
    return "\n".join(lines) + "\n"


def _folder(package: str) -> Path:
    return ROOT / "build" / "mutants" / package


def _mutmut(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder / "mutants" / "src"), str(folder / "src")))}
    shows = arguments[0] == "run"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, cwd=folder, env=environment, check=True, text=True, stdout=None if shows else subprocess.PIPE
    )
    return done.stdout or ""


def _codes(folder: Path) -> Iterator[tuple[str, int | None]]:
    for path in sorted(folder.rglob("*.meta")):
        yield from json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].items()


def forget_survivors(folder: Path) -> None:
    """Have them tried again: a test may have been written since."""
    for path in folder.rglob("*.meta"):
        notes = json.loads(path.read_text(encoding="utf-8"))
        codes = notes["exit_code_by_key"]
        notes["exit_code_by_key"] = {
            name: None if code in _SURVIVED | _NOT_REACHED else code for name, code in codes.items()
        }
        path.write_text(json.dumps(notes), encoding="utf-8")


def _survivor(folder: Path, name: str, *, reached: bool) -> Survivor:
    lines = _mutmut(folder, "show", name).splitlines()
    removed = [line[1:].strip() for line in lines if line.startswith("-") and not line.startswith("---")]
    added = [line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")]
    module, _, function = re.sub(r"__mutmut_\d+$", "", name).removeprefix("segue.").rpartition(".")
    function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return Survivor(where=f"{module}:{function}", before=" ".join(removed), after=" ".join(added), reached=reached)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def main() -> int:
    """Run, judge, print; returns 1 if too many survive."""
    parser = argparse.ArgumentParser(description="plant faults in a pure package and see which its tests miss")
    parser.add_argument("package", choices=PURE)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", action="store_true", help="only judge the last run, and write docs/results")
    asked = parser.parse_args()
    if not asked.report:
        run(asked.package, asked.processes)
    result = judge(asked.package)
    for survivor in result.survivors:
        reached = "" if survivor.reached else "  (no test runs it)"
        print(f"{survivor.where}{reached}\n  - {survivor.before}\n  + {survivor.after}")
    if asked.report:
        (ROOT / "docs" / "results" / f"mutants-{asked.package}.md").write_text(page(result), encoding="utf-8")
    print(
        f"{asked.package}: {result.tried} tried, {len(result.survivors)} survived, {result.killed_percent:.1f} % killed"
    )
    return 0 if result.killed_percent >= LEAST_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
