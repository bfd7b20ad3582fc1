"""What becomes of a command when nobody reads its output any more, as in `segue … | head`: it ends, and says nothing.

Not here: sockets that break, which commands look after themselves.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

#: 128 + SIGPIPE: how shells tell of a program that the signal has ended. Python ignores the signal.
PIPE_CLOSED_STATUS = 141


def is_pipe_closed(error: BaseException) -> bool:
    """Return whether this is what ends a command then; rich makes an exit of its own out of it."""
    return isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)


def drop_output() -> None:
    """Let what is still to be printed go nowhere, so that the interpreter does not complain at its end."""
    with suppress(OSError):
        stdout = sys.stdout.fileno()  # a stream that is no file has none
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout)
