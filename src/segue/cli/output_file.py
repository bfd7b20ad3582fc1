"""Options that name a file which a command writes at its end: one that cannot be written is refused before the work.

Not here: what is written.
"""

from __future__ import annotations

import os
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
        raise ValueError(f"{file} is a folder")
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ValueError(f"you may not write {file}")


JsonFile: TypeAlias = Annotated[
    Path | None, Parameter(help="Also write the figures to this file.", validator=check_writable)
]
PlotFile: TypeAlias = Annotated[Path | None, Parameter(help="Also draw them, as an SVG.", validator=check_writable)]
