"""Plants small faults in a pure package, one at a time, and tells which of them the package's own tests do not notice.

    make mutants PACKAGE=protocol                   all of it: takes some minutes per thousand lines
    make mutants PACKAGE=protocol MUTANTS="--sample 600"     of its mutants 600, chosen at random
    make mutants PACKAGE=protocol MUTANTS=--report  judge the last run again, and write the page of its survivors

mutmut makes the faults and runs the tests; it works on a copy of the checkout in `build/mutants/PACKAGE` and remembers
what it has tried, so a second run only tries what has changed and what survived without a reason. A *mutant* is the
code with one fault. A mutant that no test notices *survives*: a test is missing, or the fault changes nothing.
`tools/mutants_kept.toml` says of survivors that may stay why they may. A mutant whose tests do not end in time has been
noticed. Not here: packages that do I/O, where a time-out may mean anything.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PURE = ("protocol", "history", "tunnel", "dialects", "http")
KEPT = ROOT / "tools" / "mutants_kept.toml"
LEAST_PERCENT = 90.0
#: A sample is the same one each time that there are the same mutants.
SEED = 1
#: When the tests of a mutant are ordered, those of its own module count as so many times shorter.
_OWN_MODULE = 8

#: What mutmut notes for a mutant: https://mutmut.readthedocs.io. Whatever else it notes is a test run that ended badly.
_SURVIVED = frozenset({0})
_NOT_REACHED = frozenset({5, 33})
_SKIPPED = 34
_NOT_TRIED = frozenset({None, 2, _SKIPPED})
#: Whatever was noted of these, a test may have been written since.
_OPEN = _SURVIVED | _NOT_REACHED | _NOT_TRIED
_TIMED_OUT = frozenset({-24, -9, 24, 36, 152, 255})

#: A text in a line of code.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')

_SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/segue/{package}/*"]
also_copy = ["docs"]
# an assertion says what a caller must not do; no test may do it
do_not_mutate_patterns = ["^\\\\s*assert "]
# nobody reads why a test failed, so nothing is spent on telling it
pytest_add_cli_args = [
    "-p", "no:cacheprovider", "-m", "not deep", "--hypothesis-profile=mutants", "--assert=plain", "--tb=no",
]
pytest_add_cli_args_test_selection = ["tests/{package}"]
use_git_change_detection = false
# `mutant_trials` stops what computes without an end; a busy machine may make the others wait
timeout_multiplier = 60.0
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
        """Whether only a text of several words differs: its case, or the marks that mutmut puts around it."""
        if _TEXT.sub('""', self.before) != _TEXT.sub('""', self.after):
            return False
        pairs = zip(_TEXT.findall(self.before), _TEXT.findall(self.after), strict=True)
        changed = [(before, after) for before, after in pairs if before != after]
        return all(" " in before and before.lower() == after.replace("XX", "").lower() for before, after in changed)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of the mutants of one package."""

    package: str
    planted: int
    """How many there are."""
    tried: int
    """Of these, how many were tried: all, or a sample."""
    timed_out: int
    """Of these, how many were noticed by tests that did not end in time."""
    survivors: tuple[Survivor, ...]

    @property
    def killed_percent(self) -> float:
        """How many of those that were tried the tests noticed."""
        return 100 * (1 - len(self.survivors) / max(1, self.tried))

    @property
    def interval_percent(self) -> tuple[float, float]:
        """Where the percentage of all of them is, at 95 % confidence, by that of a sample (Wilson's score interval)."""
        share, count, z = self.killed_percent / 100, max(1, self.tried), 1.96
        middle = share + z * z / (2 * count)
        half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
        scale = 100 / (1 + z * z / count)
        return scale * (middle - half), scale * (middle + half)


def run(package: str, processes: int, sample: int | None = None) -> None:
    """Try every mutant of a package, or of a sample of them, that was not tried before."""
    folder = _folder(package)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("src", "tests", "docs"):
        copy_changed(ROOT / name, folder / name)
    for name in ("tests", "docs"):  # mutmut deletes nothing there
        shutil.rmtree(folder / "mutants" / name, ignore_errors=True)
    # Python forgets a folder of its path that is missing when it first looks there
    (folder / "mutants" / "src").mkdir(parents=True, exist_ok=True)
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + _SETTINGS.format(package=package)
    (folder / "pyproject.toml").write_text(settings, encoding="utf-8")
    # a test that has changed may reach what it did not reach before
    (folder / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    _trials(folder, "generate", str(processes))
    kept = _kept()
    settled = {name for name, survivor in _survivors(package, _codes(package)).items() if reason_of(survivor, kept)}
    choose(folder / "mutants" / "src" / "segue" / package, sample, settled)
    _trials(folder, "run", "--max-children", str(processes))


def judge(package: str) -> Result:
    """Read what became of the mutants of the last run."""
    codes = _codes(package)
    tried = {name: code for name, code in codes.items() if code not in _NOT_TRIED}
    return Result(
        package=package,
        planted=len(codes),
        tried=len(tried),
        timed_out=sum(code in _TIMED_OUT for code in tried.values()),
        survivors=tuple(_survivors(package, tried).values()),
    )


def reason_of(survivor: Survivor, kept: Mapping[str, Mapping[str, str]]) -> str:
    """Say in a word why a survivor may stay; an empty text if nobody has said so."""
    if not survivor.reached:
        return ""
    return kept.get(survivor.where, {}).get(survivor.after, "wording" if survivor.wording else "")


def page(result: Result) -> str:
    """Write the page of a package: how many mutants died, and every one that did not."""
    kept = _kept()
    reasons = [(survivor, reason_of(survivor, kept)) for survivor in result.survivors]
    words = Counter(reason or "no test yet" for _, reason in reasons)
    lines = [
        f"# Mutants of {result.package}",
        "",
        *_summary(result),
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


def _summary(result: Result) -> Iterator[str]:
    noticed = result.tried - len(result.survivors)
    yield f"`make mutants PACKAGE={result.package}` planted {result.planted:,} faults, one at a time."
    sure = ""
    if result.tried < result.planted:
        yield f"Of these, {result.tried:,} were tried, chosen at random (`--sample {result.tried}`, seed {SEED})."
        sure = " (95 % confidence interval for all of them: {:.1f} to {:.1f} %)".format(*result.interval_percent)
    yield f"The tests in `tests/{result.package}` alone noticed {noticed:,}: **{result.killed_percent:.1f} %**{sure}."
    if result.tried < result.planted:
        yield "Tests that were written for what survived in the sample count too, so the rest may do a little worse."
    yield f"A test that does not end in time has noticed the fault, too: there were {result.timed_out} of these."
    yield ""
    yield f"The other {len(result.survivors)}:"


def in_order(tests: Iterable[str], mutant: str, seconds: Mapping[str, float]) -> list[str]:
    """Return the tests that run code of a mutant in the order that most likely ends soonest."""
    module, _ = _place(mutant)
    folder, _, file = module.replace(".", "/").rpartition("/")
    own = f"tests/{folder}/test_{file}.py::"
    return sorted(tests, key=lambda name: seconds[name] / (_OWN_MODULE if name.startswith(own) else 1))


def _place(mutant: str) -> tuple[str, str]:
    """Return the module of a mutant, without the name of the project, and the function."""
    module, _, function = re.sub(r"__mutmut_\d+$", "", mutant).removeprefix("segue.").rpartition(".")
    return module, function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def _folder(package: str) -> Path:
    return ROOT / "build" / "mutants" / package


def _trials(folder: Path, *arguments: str) -> str:
    paths = (folder / "mutants" / "src", folder / "src", ROOT)
    shows = arguments[0] != "diffs"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "tools.mutant_trials", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        check=True,
        text=True,
        stdout=None if shows else subprocess.PIPE,
    )
    return done.stdout or ""


def _codes(package: str) -> dict[str, int | None]:
    paths = sorted((_folder(package) / "mutants" / "src" / "segue" / package).rglob("*.meta"))
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return {name: code for noted in notes for name, code in noted["exit_code_by_key"].items()}


def _survivors(package: str, codes: Mapping[str, int | None]) -> dict[str, Survivor]:
    left = {name: code for name, code in sorted(codes.items()) if code in _SURVIVED | _NOT_REACHED}
    diffs = json.loads(_trials(_folder(package), "diffs", *left))
    return {name: _survivor(name, diffs[name], reached=code in _SURVIVED) for name, code in left.items()}


def _kept() -> dict[str, dict[str, str]]:
    return tomllib.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}


def copy_changed(source: Path, target: Path) -> None:
    """Copy a tree. A file that has not changed keeps its time: mutmut makes the mutants of a file that is newer."""
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    for path in target.rglob("*"):
        if path.is_file() and path.relative_to(target) not in wanted:
            path.unlink()
    for name in wanted:
        data, copy = (source / name).read_bytes(), target / name
        if not copy.exists() or copy.read_bytes() != data:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)


def choose(folder: Path, sample: int | None, settled: AbstractSet[str] = frozenset()) -> None:
    """Note which mutants are to be tried: all or a random sample.

    Those are not tried again that were noticed before, or that are `settled`: that survived, and may.
    """
    notes = {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.meta"))}
    names = sorted(name for noted in notes.values() for name in noted["exit_code_by_key"])
    chosen = set(names)
    if sample is not None and sample < len(names):
        chosen = set(random.Random(SEED).sample(names, sample))  # noqa: S311 - repeatable, not secret
    for path, noted in notes.items():
        codes = noted["exit_code_by_key"]
        again = {name for name, code in codes.items() if code in _OPEN and name not in settled}
        noted["exit_code_by_key"] = {
            name: _SKIPPED if name not in chosen else None if name in again else code for name, code in codes.items()
        }
        path.write_text(json.dumps(noted), encoding="utf-8")


def _survivor(name: str, diff: str, *, reached: bool) -> Survivor:
    lines = diff.splitlines()
    removed = [line[1:].strip() for line in lines if line.startswith("-") and not line.startswith("---")]
    added = [line[1:].strip() for line in lines if line.startswith("+") and not line.startswith("+++")]
    module, function = _place(name)
    return Survivor(where=f"{module}:{function}", before=" ".join(removed), after=" ".join(added), reached=reached)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def main() -> int:
    """Run, judge, print; returns 1 if too many survive."""
    parser = argparse.ArgumentParser(description="plant faults in a pure package and see which its tests miss")
    parser.add_argument("package", choices=PURE)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, help="try only so many, chosen at random; the page then says so")
    parser.add_argument("--report", action="store_true", help="only judge the last run, and write docs/results")
    asked = parser.parse_args()
    if not asked.report:
        run(asked.package, asked.processes, asked.sample)
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
