"""Runs mutmut so that it takes less time, and judges no mutant in another way.

    python -m tools.mutant_trials generate 2        write the mutants, try none
    python -m tools.mutant_trials diffs NAME...     show what they change, as JSON
    python -m tools.mutant_trials run               as `mutmut run`

mutmut starts pytest and collects the tests again for each mutant. Here pytest collects them once, before the process
forks for a mutant; most mutants take less time than that did. mutmut asks in each call of a function which mutant is
tried; here the fork binds each function once. And the tests of the mutant's own module run earlier than others of the
same length, since they mostly are the ones that notice. Which tests a mutant has, and what counts as noticed, is
mutmut's. What a test module computes when it is imported never meets a mutant, here as with mutmut. `mutants` calls
this module in `build/mutants/PACKAGE`. Not here: which mutants are tried, and the report.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from functools import wraps
from math import ceil
from pathlib import Path
from time import process_time
from typing import Any, TypedDict

import mutmut.__main__ as program
import pytest
from _pytest.config import _prepareconfig
from mutmut.mutation import trampoline
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils.file_utils import change_cwd
from mutmut.utils.format_utils import mangled_name_from_mutant_name
from mutmut.workers.isolation import ForkRunner

from tools.mutants import in_order

#: A test never ends if it computes for so many times as long as without a fault, and some seconds more. The clock goes
#: on while a busy machine does other things, so it only stops a test that waits (`timeout_multiplier`).
_TIMES, _SECONDS = 10, 5
_NO_LIMIT = 24 * 60 * 60
_MEMORY_BYTES = 8 * 2**30
#: Where the fork that runs all tests without a fault notes what it sees.
_SEEN = Path("tests-seen.json")

Function = Callable[..., Any]


class _Seen(TypedDict):
    calls: list[str]
    seconds: float


class Functions:
    """The functions that have mutants, each behind one that calls what is bound.

    At first that is the original, and the call is noted, so that mutmut learns which tests a mutant has. Then it is
    mutmut's own function (`ask`), which looks up in each call which mutant is tried. A fork binds them for good.
    """

    def __init__(self) -> None:
        self._all: list[tuple[str, Mapping[str, Function], list[Function]]] = []
        self._asking: list[Function] = []
        self._wrap = trampoline.wrap_in_trampoline

    def wrap(self, mutants: dict[str, Function], is_classmethod: bool = False) -> Callable[[Function], Function]:  # noqa: FBT001, FBT002 - mutmut's signature
        """Stand for mutmut's decorator."""

        def decorate(function: Function) -> Function:
            asking: Function = self._wrap(mutants, is_classmethod)(function)
            if is_classmethod:
                return asking
            bound = [_noting(mutants)]
            self._all.append((function.__module__, mutants, bound))
            self._asking.append(asking)

            @wraps(function)
            def call(*arguments: object, **named: object) -> object:
                return bound[0](*arguments, **named)

            return call

        return decorate

    def ask(self) -> None:
        """Call mutmut's own functions from now on."""
        for (_, _, bound), asking in zip(self._all, self._asking, strict=True):
            bound[0] = asking

    def bind(self, mutant: str) -> None:
        """Call one mutant from now on, and the original of every other function."""
        module, _, name = mutant.rpartition(".")
        for place, mutants, bound in self._all:
            bound[0] = mutants[name if place == module and name in mutants else "_mutmut_orig"]


def _noting(mutants: Mapping[str, Function]) -> Function:
    reached = state()._stats  # noqa: SLF001 - where mutmut's own function notes it
    name = ""

    def call(*arguments: object, **named: object) -> object:
        nonlocal name
        original = mutants["_mutmut_orig"]
        name = name or f"{original.__module__}.{mangled_name_from_mutant_name(original.__name__)}"
        reached.add(name)
        return original(*arguments, **named)

    return call


class CollectedTests(PytestRunner):  # type: ignore[misc]  # mutmut is not installed where types are checked
    """The tests of a package, collected once. Forks of this process run them."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    def collect(self) -> None:
        """Collect the tests, and keep them with their session, which never ends."""
        arguments = ["--rootdir=.", "-q", "-s", *self._pytest_add_cli_args, *self._pytest_add_cli_args_test_selection]
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the session
        with change_cwd("mutants"), redirect_stdout(nowhere):
            settings = _prepareconfig(arguments)
            settings._do_configure()  # noqa: SLF001 - pytest has no public way to collect now and run later
            self.session = pytest.Session.from_config(settings)
            settings.hook.pytest_sessionstart(session=self.session)
            settings.hook.pytest_collection(session=self.session)
        self.items = {item.nodeid: item for item in self.session.items}

    def run_tests(self, *, mutant_name: str, tests: Iterable[str]) -> int:
        """Run a mutant's tests until one fails; return 0 if none does."""
        seconds = state().duration_by_test

        def run() -> int:
            self.functions.bind(mutant_name)
            return self._run(in_order(tests, mutant_name, seconds), lambda name: _SECONDS + _TIMES * seconds[name])

        return _ended(run)

    def run_failing(self) -> int:
        """Run the tests with functions that raise, until one fails."""
        self.functions.ask()
        return self._run(list(self.items))

    def look(self) -> int:
        """Run all tests without a fault, and note which functions each of them calls, and for how long it computes."""
        seen: dict[str, _Seen] = {}
        state()._stats.clear()  # noqa: SLF001 - what was called while the tests were collected is no test's
        began = process_time()

        def note(name: str) -> None:
            nonlocal began
            reached = state()._stats  # noqa: SLF001 - where the functions note it
            seen[name] = {"calls": sorted(reached), "seconds": process_time() - began}
            reached.clear()
            began = process_time()

        code = self._run(list(self.items), after=note)
        _SEEN.write_text(json.dumps(seen), encoding="utf-8")
        return code

    def _run(
        self,
        names: list[str],
        limit: Callable[[str], float] | None = None,
        after: Callable[[str], None] = lambda _: None,
    ) -> int:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        items = [self.items[name] for name in names]
        for item, following in zip(items, [*items[1:], None], strict=True):
            if limit is not None:
                seconds = ceil(process_time() + limit(item.nodeid))
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            with change_cwd("mutants"):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.session.testsfailed:
                return pytest.ExitCode.TESTS_FAILED
            after(item.nodeid)
        return pytest.ExitCode.OK


class ForkAfterCollection(ForkRunner):  # type: ignore[misc]  # see above
    """mutmut's fork for each mutant, but of a process that has collected the tests."""

    def collect_stats(self, tests: Iterable[str] | None) -> int:  # noqa: ARG002 - mutmut's signature; they are all
        """Collect the tests, and learn which functions each of them calls."""
        self.test_runner.collect()
        code = _in_fork(self.test_runner.look)
        if code == pytest.ExitCode.OK:
            for name, seen in json.loads(_SEEN.read_text(encoding="utf-8")).items():
                state().duration_by_test[name] = seen["seconds"]
                for function in seen["calls"]:
                    state().tests_by_mangled_function_name[function].add(name)
        return code

    def run_clean_tests(self, tests: Iterable[str]) -> int:  # noqa: ARG002 - mutmut's signature
        """Do nothing: `collect_stats` has run them in the way that the mutants' tests are run."""
        return pytest.ExitCode.OK

    def run_forced_fail(self) -> int:
        """Run the tests with functions that raise: some test must fail."""
        return _in_fork(self.test_runner.run_failing)

    def submit(self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float) -> None:
        """Try a mutant; each test has a limit of its own (`CollectedTests`)."""
        super().submit(mutant_name, tests, max(cpu_time_limit, _NO_LIMIT), estimated_time)


def _in_fork(run: Callable[[], int]) -> int:
    pid = os.fork()
    if not pid:
        os._exit(_ended(run))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _ended(run: Callable[[], int]) -> int:
    """Return how a fork's run ends. It must end there; to mutmut too, an error of pytest itself is a kill."""
    try:
        return run()
    except BaseException:  # noqa: BLE001 - see above
        return pytest.ExitCode.INTERNAL_ERROR


def generate(processes: int) -> None:
    """Write the mutants of what has changed, as `mutmut run` does before it tries them."""
    program.set_mutant_under_test("mutant_generation")
    program.copy_src_dir()
    program.copy_also_copy_files()
    program.setup_source_paths()
    program.create_mutants(processes)


def diffs(names: Iterable[str]) -> dict[str, str]:
    """Return what each of the mutants changes."""
    return {name: program.get_diff_for_mutant(name, path=program.find_mutant(name).path) for name in names}


def main() -> None:
    """Generate, or show; what else is asked is for mutmut."""
    if sys.argv[1] == "generate":
        generate(int(sys.argv[2]))
        return
    if sys.argv[1] == "diffs":
        print(json.dumps(diffs(sys.argv[2:])))
        return
    functions = Functions()
    trampoline.wrap_in_trampoline = functions.wrap
    program.get_mutant_runner = lambda processes=1: ForkAfterCollection(processes, CollectedTests(functions))
    program.cli()


if __name__ == "__main__":
    main()
