"""Runs the tests of some folders of a workspace and writes what came of them to a file, as JSON.

    python -I check_program.py WORKSPACE REPORT FOLDER...

It runs as a program of its own, without the rest of segue, since what it imports is the workspace's. Not here: who
reads the report (`checking`).
"""

from __future__ import annotations

import json
import sys
import unittest
from collections.abc import Sequence
from pathlib import Path

MAX_MESSAGE = 300


def run_tests(workspace: Path, folders: Sequence[str]) -> dict[str, object]:
    """Run the tests of those folders that are there; return how many ran, and each that failed with its message."""
    sys.path.insert(0, str(workspace))
    suite = unittest.TestSuite()
    for folder in folders:
        if (workspace / folder).is_dir():
            loader = unittest.TestLoader()
            # A folder that is a package is loaded as one, so that its tests can import from it.
            top = workspace if (workspace / folder / "__init__.py").is_file() else workspace / folder
            suite.addTests(loader.discover(str(workspace / folder), top_level_dir=str(top)))
    result = unittest.TestResult()
    suite.run(result)
    failed = [(test.id(), _message(trace)) for test, trace in (*result.failures, *result.errors)]
    return {"ran": result.testsRun, "failed": failed}


def _message(trace: str) -> str:
    """Return the line that names the error: the first one after the last traceback that is not indented."""
    after = trace.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    return next((line for line in after if line and not line.startswith(" ")), "failed")[:MAX_MESSAGE]


def main(arguments: Sequence[str]) -> None:
    """Run the tests and write the report."""
    workspace, report, *folders = arguments
    written = run_tests(Path(workspace), folders)
    Path(report).write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
