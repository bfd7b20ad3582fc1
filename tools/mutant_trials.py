"""Runs mutmut so that it takes less time, and judges no mutant in another way.

    python -m tools.mutant_trials generate 2        write the mutants, try none
    python -m tools.mutant_trials diffs NAME...     show what they change, as JSON
    python -m tools.mutant_trials run               as `mutmut run`

mutmut starts pytest and collects the tests again for each mutant. Here pytest collects them once, before the process
forks for a mutant; most mutants take less time than that did. mutmut asks in each call of a function which mutant is
tried; here the fork binds each function once. And the tests of the mutant's own module run earlier than others of the
same length, since they mostly are the ones that notice. Which tests a mutant has, and what counts as noticed, is
mutmut's. `mutants` calls this module in `build/mutants/PACKAGE`. Not here: which mutants are tried, and the report.
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
from typing import Any

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
#: Where the fork that runs all tests without a fault notes for how many seconds each of them computes.
_TEST_SECONDS = Path("test-seconds.json")

Function = Callable[..., Any]


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
    """mutmut's pytest, which collects the tests of the mutants once."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions

    def run_forced_fail(self) -> int:
        """Run the tests with functions that fail; some test must see it."""
        self.functions.ask()
        return int(super().run_forced_fail())

    def collect(self) -> None:
        """Collect the tests, and keep them with their session, which never ends: a fork of this process runs them."""
        arguments = ["--rootdir=.", "-q", "-s", *self._pytest_add_cli_args, *self._pytest_add_cli_args_test_selection]
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the session
        with change_cwd("mutants"), redirect_stdout(nowhere):
            settings = _prepareconfig(arguments)
            settings._do_configure()  # noqa: SLF001 - pytest has no public way to collect now and run later
            self.session = pytest.Session.from_config(settings)
            settings.hook.pytest_sessionstart(session=self.session)
            settings.hook.pytest_collection(session=self.session)
        self.items = {item.nodeid: item for item in self.session.items}

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        """Run tests until one fails; return 0 if none does. With a mutant's name, this is the fork for the mutant."""
        if mutant_name is None:
            return int(super().run_tests(mutant_name=None, tests=tests))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        seconds = state().duration_by_test
        try:
            self.functions.bind(mutant_name)
            return self._run_collected({name: seconds[name] for name in in_order(tests, mutant_name, seconds)})
        except BaseException:  # noqa: BLE001 - the fork must end here; to mutmut too, pytest's own error is a kill
            return pytest.ExitCode.INTERNAL_ERROR

    def measure(self) -> int:
        """Run all tests without a fault, and note for how long each of them computes. This is a fork, too."""
        self.functions.bind("none")
        seconds: dict[str, float] = {}
        code = self._run_collected(state().duration_by_test, seconds)
        _TEST_SECONDS.write_text(json.dumps(seconds), encoding="utf-8")
        return code

    def _run_collected(self, limits: Mapping[str, float], seconds: dict[str, float] | None = None) -> int:
        items = [self.items[name] for name in limits]
        for item, following in zip(items, [*items[1:], None], strict=True):
            began = process_time()
            limit = ceil(began + _SECONDS + _TIMES * limits[item.nodeid])
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            with change_cwd("mutants"):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.session.testsfailed:
                return pytest.ExitCode.TESTS_FAILED
            if seconds is not None:
                seconds[item.nodeid] = process_time() - began
        return pytest.ExitCode.OK


class ForkAfterCollection(ForkRunner):  # type: ignore[misc]  # see above
    """mutmut's fork for each mutant, but of a process that has collected the tests."""

    def run_clean_tests(self, tests: Iterable[str]) -> int:  # noqa: ARG002 - mutmut's signature
        """Leave it to `startup`, which runs them in the way that the mutants' tests are run."""
        return pytest.ExitCode.OK

    def startup(self) -> None:
        """Collect just before the first mutant is tried, and see that no test fails without one."""
        self.test_runner.collect()
        super().startup()
        pid = os.fork()
        if not pid:
            os._exit(self.test_runner.measure())
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != pytest.ExitCode.OK:
            sys.exit("a test fails without any fault: its failure with one would tell nothing")
        state().duration_by_test.update(json.loads(_TEST_SECONDS.read_text(encoding="utf-8")))

    def submit(self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float) -> None:
        """Try a mutant; each test has a limit of its own (`CollectedTests`)."""
        super().submit(mutant_name, tests, max(cpu_time_limit, _NO_LIMIT), estimated_time)


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
