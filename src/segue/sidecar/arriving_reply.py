"""The reply of one exchange as it arrives: its head, its body as it travels, and how it ended.

Who waits for it either waits for `changed`, or passes on what has come in the very call that got it (`pass_on`). Not
here: what carries the exchange (`segue.sidecar.session`), and writing to an agent (`segue.sidecar.response_writer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from segue.http.heads import ReplyHead
from segue.sidecar.link_status import LinkUnavailable
from segue.sidecar.reply_log import ReplyLog
from segue.tunnel.events import ExchangeReset, OutcomeUnknown, ReplyEnded

#: How an exchange ended: in good order, or why not. `LinkUnavailable`: it was given up before it could be forwarded.
Ending: TypeAlias = ReplyEnded | ExchangeReset | OutcomeUnknown | LinkUnavailable


class ArrivingReply:
    """A reply, as data. Only sessions write to it."""

    def __init__(self, *, keep_bytes: int) -> None:
        self.head: ReplyHead | None = None
        self.prefix = b""
        """What the stream of the reply's body builds on."""
        self.log = ReplyLog(keep_bytes)
        """The reply's body, as it travelled."""
        self.ending: Ending | None = None
        self.changed = asyncio.Event()
        """Set whenever `head`, `log` or `ending` has changed, unless `pass_on` has seen to it."""
        self.pass_on: Callable[[], bool] | None = None
        """Passes on what has come, before any task is woken; False: a task has to."""

    def tell_change(self) -> None:
        """Have what has come passed on, or wake who waits for it."""
        if self.pass_on is None or not self.pass_on():
            self.changed.set()
