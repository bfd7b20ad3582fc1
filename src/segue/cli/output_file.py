"""Options that name a file which a command writes at its end: one that cannot be written is refused before the work.

Not here: what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter


def check_writable(_: object, file: Path | None) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ValueError: it cannot; why.
    """
    if file is None:
        return
    if file.is_dir():
        raise ValueError(f"This is a folder: {file}.")
    if not file.parent.is_dir():
        raise ValueError(f"There is no folder {file.parent}.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"You may not write {file}.")


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Say in a line why a file cannot be written, around what writes it: a disk may fill up during the work.

    Raises:
        ConfigError: it cannot.
    """
    from segue.config import ConfigError

    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {(error.strerror or str(error)).lower()}") from None


JsonFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Also write the figures to this file.", validator=check_writable)
]
PlotFile: TypeAlias = Annotated[Path | None, Parameter(help="Also draw them, as an SVG.", validator=check_writable)]
MarkdownFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Also write the tables to this file, as Markdown.", validator=check_writable)
]
HtmlFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Also write a page with tables and plots to this file.", validator=check_writable)
]


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """The files that a benchmark's report is written to. A dataclass, since cyclopts makes options of its fields."""

    json: JsonFile = None
    markdown: MarkdownFile = None
    html: HtmlFile = None


NO_FILES = ReportFiles()
#: One parameter of a command that gives it all of these options.
ReportFileOptions: TypeAlias = Annotated[ReportFiles, Parameter(name="*")]
