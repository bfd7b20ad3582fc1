"""The second part of `segue demo`: a conversation on a slow link, held both ways at the same time.

The first question carries files, as the requests of a coding agent do. The scripted model answers at once, so that the
time is that of the link. The link delays the bytes of real sockets by published figures
(`segue.bench.links.profiles`), with TCP's slow start. Nothing leaves this machine. For other links the time is computed
by the same model, from the bytes that were counted. Not here: the first part (`demo`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

import msgspec
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segue.bench.arms.conversation import (
    ConversationPlan,
    ConversationTransport,
    MeasuredTurn,
    Question,
    continuing,
    hold,
    resending,
)
from segue.bench.arms.server import address_of
from segue.bench.links.conversation_time import TurnLoad, compute_task
from segue.bench.links.profiles import LINKS, NamedLink
from segue.bench.workloads.prose import ProseWriter
from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.terminal import print_table
from segue.testing.link import linked
from segue.upstreams.scripted import MODEL as SCRIPTED

LINK: Final = LINKS["slow-4g"]
#: What an agent has read before its first turn here. Claude Code's requests begin at about as much.
FILES_BYTES: Final = 60_000
#: Links for which the time is computed: nobody wants to wait for the last one.
COMPUTED: Final = ("fibre", "2g", "geo-in-flight", "geo-in-flight-bad")
_QUESTIONS: Final = (
    *("Look for the mistake.", "Which file has it?", "Mend it.", "Run the tests."),
    *("Why does one fail?", "Mend that too.", "Run them again.", "Say what you did."),
)

Opened = Callable[[str], AbstractAsyncContextManager[ConversationTransport]]


class LinkArm(msgspec.Struct):
    """One way to hold the conversation, and what came of it so far; `time_s` has the set-up of the connection in it.

    `setup_rtts`: round trips before the first turn. TCP and TLS take two, and the upgrade of a WebSocket one.
    """

    name: str
    opened: Opened
    setup_rtts: float
    turns: list[MeasuredTurn] = []
    time_s: float = 0.0

    @property
    def sent_bytes(self) -> int:
        """What the link carried up."""
        return sum(turn.bytes_up_wire for turn in self.turns)

    def computed_s(self, link: NamedLink) -> float:
        """Return how long these turns take on another link."""
        loads = [TurnLoad(turn.bytes_up_wire, turn.bytes_down_wire, 0) for turn in self.turns]
        return compute_task(loads, link.profile, setup_rtts=self.setup_rtts, tokens_s=None).task_s


class LinkScreen:
    """The table of both ways, as far as they are."""

    def __init__(self, arms: Sequence[LinkArm]) -> None:
        self._arms = arms

    def __rich__(self) -> Table:
        return self.table()

    def table(self) -> Table:
        """Return the table as it is now."""
        table = Table(box=box.SIMPLE, show_footer=True, padding=(0, 1, 0, 0))
        table.add_column("turn", "all", justify="right")
        for arm in self._arms:
            table.add_column(f"{arm.name}\nbytes", f"{arm.sent_bytes:,}", justify="right")
            table.add_column("\nseconds", f"{arm.time_s:.1f}" if arm.time_s else "", justify="right")
        for index in range(len(_QUESTIONS)):
            table.add_row(str(index + 1), *(cell for arm in self._arms for cell in _cells(arm, index)))
        return table


async def show_slow_link(console: Console, link: NamedLink = LINK) -> Sequence[LinkArm]:
    """Hold the conversation both ways over a link each, and show the figures as they come."""
    arms = (LinkArm("resent", resending, 2.0), LinkArm("continued", continuing, 3.0))
    console.print(
        Text("\nOn a slow link", style="bold"),
        f"{len(_QUESTIONS)} turns of an agent that has read {FILES_BYTES // 1000} KB of files, on {link.meaning}. "
        f"The link is emulated: {link.rtt_ms:g} ms round trip and {link.up_mbit_s:g} Mbit/s up, as published "
        "(segue bench links). A scripted model answers at once, so that the time is the link's.",
        sep="\n",
    )
    with Live(screen := LinkScreen(arms), console=console, refresh_per_second=8, transient=True):
        await asyncio.gather(*(_hold(arm, link) for arm in arms))
    resent, continued = arms
    print_table(console, screen.table())
    console.print(
        f"There, the continued conversation took {continued.time_s:.1f} s instead of {resent.time_s:.1f} s, with the "
        "set-up of its connection. For other links this is computed from the same bytes:"
    )
    print_table(console, _computed(arms))
    return arms


def _computed(arms: Sequence[LinkArm]) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("seconds on")
    for arm in arms:
        table.add_column(arm.name, justify="right")
    for name in COMPUTED:
        times = (f"{arm.computed_s(LINKS[name]):.1f}" for arm in arms)
        table.add_row(f"{name}: {LINKS[name].meaning}", *times)
    return table


async def _hold(arm: LinkArm, link: NamedLink) -> None:
    config = Config(server=ServerConfig(port=0, store="memory:"))
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(config))
        path = await stack.enter_async_context(linked(*address_of(url), link.profile))
        begun = time.perf_counter()
        transport = await stack.enter_async_context(arm.opened(path.url))
        async for turn in hold(_plan(), transport, path, lambda _: None):
            arm.turns.append(turn)
        arm.time_s = time.perf_counter() - begun


def _plan() -> ConversationPlan:
    files = ProseWriter(1).source(FILES_BYTES)
    first, *others = _QUESTIONS
    questions = (Question(first, f"{files}\n\n"), *map(Question, others))
    return ConversationPlan(SCRIPTED, "You are a coding agent.", questions, max_output_tokens=64)


def _cells(arm: LinkArm, index: int) -> tuple[str, str]:
    if index >= len(arm.turns):
        return "", ""
    return f"{arm.turns[index].bytes_up_wire:,}", f"{arm.turns[index].time_s:.1f}"
