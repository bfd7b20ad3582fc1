"""Runs mutmut so that it takes less time, and judges no mutant in another way.

    python -m tools.mutant_trials generate 2        write the mutants, try none
    python -m tools.mutant_trials diffs NAME...     show what they change, as JSON
    python -m tools.mutant_trials run               as `mutmut run`

mutmut starts pytest and collects the tests again for each mutant. Here pytest collects them once, before the process
forks for a mutant; most mutants take less time than that did. And the tests of the mutant's own module run earlier than
others of the same length, since they mostly are the ones that notice. Which tests a mutant has, and what counts as
noticed, is mutmut's. `mutants` calls it in `build/mutants/PACKAGE`. Not here: which mutants are tried, and the report.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path

import mutmut.__main__ as program
import pytest
from _pytest.config import _prepareconfig
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.utils.file_utils import change_cwd
from mutmut.workers.isolation import ForkRunner

from tools.mutants import in_order

#: A mutant that never ends is stopped by the time that it computes, which a busy machine does not lengthen: so many
#: times what its tests need, and some seconds. One that only waits is stopped by the clock (`timeout_multiplier`).
_CPU_TIMES, _CPU_SECONDS = 4, 5
_MEMORY_BYTES = 8 * 2**30


class CollectedTests(PytestRunner):  # type: ignore[misc]  # mutmut is not installed where types are checked
    """mutmut's pytest, which collects the tests of the mutants once."""

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
        try:
            return self._run_collected(in_order(tests, mutant_name, state().duration_by_test))
        except BaseException:  # noqa: BLE001 - the fork must end here; to mutmut too, pytest's own error is a kill
            return pytest.ExitCode.INTERNAL_ERROR

    def _run_collected(self, names: list[str]) -> int:
        items = [self.items[name] for name in names]
        with change_cwd("mutants"):
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.session.testsfailed:
                    return pytest.ExitCode.TESTS_FAILED
        return pytest.ExitCode.OK


class ForkAfterCollection(ForkRunner):  # type: ignore[misc]  # mutmut is not installed where types are checked
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
            os._exit(self.test_runner.run_tests(mutant_name="none", tests=state().duration_by_test))
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != pytest.ExitCode.OK:
            sys.exit("a test fails without any fault: its failure with one would tell nothing")

    def submit(self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float) -> None:
        """Try a mutant, with a limit of our own if that is closer."""
        limit = min(cpu_time_limit, _CPU_SECONDS + int(_CPU_TIMES * estimated_time))
        super().submit(mutant_name, tests, limit, estimated_time)


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
    program.get_mutant_runner = lambda processes=1: ForkAfterCollection(processes, CollectedTests())
    program.cli()


if __name__ == "__main__":
    main()
