"""What every option of every command has in common: how its help tells its default, and which other names it gets.

Not here: the options.
"""

from __future__ import annotations

from cyclopts import Parameter


def shown_default(value: object) -> str | None:
    """Return a default as help tells it; an option that is off, or empty, needs no word."""
    if value is True:
        return "yes"
    if value is None or value is False or value == ():
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


#: A list gets no `--empty-NAME`: that would look like "none", and mean the default, which may be "all".
PARAMETER_DEFAULTS = Parameter(negative_iterable="", show_default=shown_default)
