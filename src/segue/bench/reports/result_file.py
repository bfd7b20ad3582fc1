"""Reads the result files that `segue bench … --json` and `segue demo --json` write. Not here: writing (`report`)."""

from __future__ import annotations

from pathlib import Path

import msgspec

from segue.bench.reports.report import BenchReport

_MAX_BYTES = 256 * 1024 * 1024


class ResultFileError(ValueError):
    """The file cannot be read as results; the message is for the user, in one line."""


def read_results(path: Path) -> BenchReport:
    """Read a result file."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ResultFileError(f"{path} is too large for a result file: more than {_MAX_BYTES >> 20} MiB")
        return msgspec.json.decode(path.read_bytes(), type=BenchReport)
    except OSError as error:
        raise ResultFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultFileError(f"{path} is no result file of `segue bench … --json`: {error}") from error
