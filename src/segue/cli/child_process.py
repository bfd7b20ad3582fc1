"""A program that has the terminal of this process, and is stopped, continued and ended as if this process were it.

It is in our process group, so that the shell takes both for one job. What the terminal sends, as for Ctrl-C, it sends
to the whole group, and the program has it already. What another process sends, it sends to us alone, and we pass it on.
`sigwaitinfo` says who has sent a signal. Not here: what is run (`segue.cli.run`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

#: The keys of the terminal.
_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
#: Python ignores these, and a program that it starts would too.
_DEFAULT_AGAIN = (signal.SIGPIPE, signal.SIGXFSZ)
#: `si_code` of a signal that the kernel has sent, as it does for a key of the terminal (sigaction(2)).
_SI_KERNEL = 0x80
_POLL_S = 0.05


class ChildProcess:
    """The program, before, while and after it runs. `interrupt`: what ends us when a signal comes before it runs."""

    def __init__(self, interrupt: Callable[[], object]) -> None:
        self._interrupt = interrupt
        self._stage: Literal["none", "running", "ended"] = "none"
        self._pid = 0
        self._mask: set[signal.Signals | int] = set()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Receive the signals for the program. Enter this before there are other threads, which inherit the mask."""
        if not hasattr(signal, "sigwaitinfo"):  # macOS
            handlers = [signal.signal(number, self._receive_without_sender) for number in _OF_THE_TERMINAL]
            try:
                yield
            finally:
                for number, handler in zip(_OF_THE_TERMINAL, handlers, strict=True):
                    signal.signal(number, handler)
            return
        self._mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TERMINAL))
        done = threading.Event()
        thread = threading.Thread(target=self._receive_until, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            assert thread.ident is not None, "it was started"
            signal.pthread_kill(thread.ident, signal.SIGINT)
            thread.join()
            while self._stage == "ended" and signal.sigtimedwait(_OF_THE_TERMINAL, 0) is not None:
                pass  # the program had this from the terminal, and we had not come to it yet
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    async def run(self, command: list[str], environ: Mapping[str, str]) -> int:
        """Run the program; return its exit status, or the negative number of the signal that ended it.

        Raises:
            OSError: it cannot be run.
        """
        self._start(command, environ)
        loop = asyncio.get_running_loop()
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._pass_on, number)
        status = None
        while status is None:
            await asyncio.to_thread(_wait_for_change, self._pid)
            status = self._look()
        return status

    def _start(self, command: list[str], environ: Mapping[str, str]) -> None:
        self._pid = os.posix_spawnp(
            command[0], command, environ, setsigmask=tuple(self._mask), setsigdef=_DEFAULT_AGAIN
        )
        self._stage = "running"

    def _look(self) -> int | None:
        """Return how the program has ended; None: it has not. If it has stopped, stop too."""
        changed, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
        if not changed:
            return None
        if os.WIFSTOPPED(status):
            self._stop_too()
            return None
        self._stage = "ended"
        return os.waitstatus_to_exitcode(status)

    def _receive_until(self, done: threading.Event) -> None:
        while True:
            received = signal.sigwaitinfo(_OF_THE_TERMINAL)
            if done.is_set():
                return
            self._receive(received.si_signo, from_terminal=received.si_code == _SI_KERNEL)

    def _receive_without_sender(self, number: int, _: object) -> None:
        self._receive(number, from_terminal=_has_foreground())

    def _receive(self, number: int, *, from_terminal: bool) -> None:
        if self._stage == "none":
            self._interrupt()
        elif not from_terminal:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._stage == "running":
            os.kill(self._pid, number)

    def _stop_too(self) -> None:
        """Stop as the program has, so that the shell gives a prompt; go on with it. Without a shell there is none."""
        terminal = _terminal()
        if terminal is None:
            return
        os.close(terminal)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(self._pid, signal.SIGCONT)


def _wait_for_change(pid: int) -> None:
    """Wait until a child has ended or stopped, and leave it to `waitpid` to say which."""
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    else:  # macOS before Python 3.13
        time.sleep(_POLL_S)


def _terminal() -> int | None:
    """Open the terminal that controls this process; None: there is none."""
    try:
        return os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return None


def _has_foreground() -> bool:
    """Tell whether the keys of the terminal come to our process group."""
    terminal = _terminal()
    if terminal is None:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
