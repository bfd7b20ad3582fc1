"""The terminal that commands print to: what users and peers wrote is shown as it is.

Rich reads `[…]` in a text as a style, and `:smile:` as a picture: an address like `http://[::1]:80` loses its host, a
path like `[/x]` ends the program. A terminal of this module reads neither. Where a style is wanted, write
`rich.text.Text(words, style=…)`. Not here: what is printed, and stdout for scripts.
"""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def verdict(*, met: bool | None) -> Text:
    """Return whether a budget is met, for a column of a table; nothing where there is no budget."""
    if met is None:
        return Text()
    return Text("met", style="green") if met else Text("missed", style="bold red")


def terminal(*, stderr: bool = False, quiet: bool = False, highlight: bool = True) -> Console:
    """Return stdout, or stderr, as a terminal of its width; `quiet` prints nothing."""
    return Console(stderr=stderr, quiet=quiet, highlight=highlight, markup=False, emoji=False)
