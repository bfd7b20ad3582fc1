"""`segue demo`: holds one real conversation twice, and shows the figures of every turn as it ends.

The gateway runs in this process with the model in the box, or a GGUF file of yours. The conversation is about a text
that is always the same, so that figures can be compared. First the client resends it in full over HTTP, then it
continues it over WebSocket. A forwarder between client and gateway counts the bytes on the wire. If no local model can
run, the demo prints why, and the scripted model answers. At the end a slow link shows what that is worth
(`demo_slow_link`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
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
    total,
)
from segue.bench.arms.server import address_of
from segue.bench.meters.tcp import metered
from segue.bench.reports.report import TurnFigures, write_report
from segue.cli.demo_slow_link import LINK, show_slow_link
from segue.cli.loop import run
from segue.cli.output_file import writing
from segue.config import Config, ServerConfig, UpstreamConfig
from segue.engine import MODEL_NAME as LOCAL_MODEL
from segue.gateway.app import serving
from segue.gateway.bootstrap import why_no_local_model
from segue.terminal import print_table, terminal
from segue.upstreams.scripted import MODEL as SCRIPTED

#: Replies are short, because the demo is about continuation, not about how fast a machine generates.
MAX_OUTPUT_TOKENS = 48

_INSTRUCTIONS = "You answer questions about a text in one short sentence."
#: What the first question carries: about 500 tokens. Whoever changes it changes every figure of the demo.
_ABOUT = """\
The night train from Lisbon

An engineer is on a night train and asks a coding agent to mend a test. The agent works in a loop. It sends the model
the task, and the model asks for a file. The agent reads the file, and sends the model the task, the question and the
file. The model asks for another file. The agent sends the task, both questions and both files. After forty rounds the
agent has sent the first file forty times. Nothing in the first thirty-nine copies was wrong. The model's server
simply forgets everything between two requests, so the client has to remember for both.

On a fast line nobody notices. On the train the line has a round trip of most of a second, and carries a hundred
kilobits a second. The requests grow with every round. The first takes a moment, the tenth takes a quarter of a minute,
and the thirtieth does not arrive: the train enters a tunnel, the connection is gone, and the agent begins that
request again from its first byte.

The cure is old. Two people who talk do not repeat the whole conversation before each sentence. They remember it, and
say what is new. A server that keeps the conversation under a name lets the client do the same: the name of what was
said before, and the new sentence. The request of the fortieth round is then as small as that of the first. If the
line is cut, there is little to send again.

It has a price. Whoever remembers can forget, so the memory must be on a disk before the answer is called complete.
Two clients may continue the same sentence in two ways, and both must be right. And a name that is not known must be
refused, because an answer without the history looks like an answer, and is none. The engineer wants none of this to
be her concern. She wants the test to pass before the train reaches Madrid."""
_QUESTIONS = (
    "What is this text about?",
    "Why does the agent send the same file again and again?",
    "What does a server have to keep, so that a client need not send it again?",
    "Name one thing that a client sends in the fortieth round.",
    "What has to be on a disk, and when?",
    "Sum up what you told me in one sentence.",
)


class DemoScreen:
    """What the screen shows: the finished turns of both transports, and the reply that is being written."""

    def __init__(self, names: tuple[str, str]) -> None:
        self.names = names
        self.turns: dict[str, list[MeasuredTurn]] = {name: [] for name in names}
        self.writing = ""
        self.status = ""

    def begin(self, name: str, questions: Sequence[Question], index: int) -> None:
        """Show which question is asked now, before anything of the reply is there; none after the last."""
        self.writing = ""
        self.status = (
            f"{name}: turn {index + 1} of {len(questions)}  {questions[index].text}" if questions[index:] else ""
        )

    def __rich__(self) -> Group:
        return Group(*self.tables(), Text(self.status, style="bold"), Text(self.writing, style="italic"))

    def tables(self) -> tuple[RenderableType, ...]:
        """Both transports side by side (they fit into 80 columns), and a legend of the columns."""
        first, second = self.names
        sides = Columns([self._table(first, numbered=True), self._table(second, numbered=False)])
        return sides, Text("bytes sent: payload and wire · seconds: to the first token and in total", style="dim")

    def show(self, console: Console) -> None:
        """Print both, one below the other if they do not fit side by side."""
        sides, legend = self.tables()
        if console.measure(self._table(self.names[0], numbered=True)).minimum * len(self.names) <= console.width:
            console.print(sides)
        else:
            for name in self.names:
                print_table(console, self._table(name, numbered=True))
        console.print(legend)

    def _table(self, name: str, *, numbered: bool) -> Table:
        table = Table(title=name, box=box.SIMPLE, show_footer=True, padding=(0, 1, 0, 0))
        done = self.turns[name]
        sums = _cells(total(done)) if done else [""] * 4
        if numbered:
            table.add_column("turn", "sum", justify="right")
        for header, footer in zip(("payload", "wire", "first", "total"), sums, strict=True):
            table.add_column(header, footer, justify="right")
        for index in range(len(_QUESTIONS)):
            cells = _cells(done[index]) if index < len(done) else []
            table.add_row(*[str(index + 1)] * numbered, *cells)
        return table


def run_demo(model: Path | None, json_file: Path | None, *, slow_link: bool = True) -> int:
    """Hold the conversation over both transports and show what each turn took; then another one on a `slow_link`."""
    logging.disable(logging.WARNING)  # what is to be known of the gateways is on the screen
    return run(_demo(terminal(), model, json_file, slow_link=slow_link))


async def _demo(console: Console, model: Path | None, json_file: Path | None, *, slow_link: bool) -> int:
    name, config = choose_model(console, model)
    shown = DemoScreen(("HTTP, resent", "WebSocket, continued"))
    for transport_name, opened in zip(shown.names, (resending, continuing), strict=True):
        # a gateway each: otherwise the second conversation would find its prefix in the model's KV cache
        async with AsyncExitStack() as stack:
            with console.status("loading the model"):
                _, url = await stack.enter_async_context(serving(config))
            with Live(shown, console=console, refresh_per_second=8, transient=True):
                async for turn in _hold(_plan(name), url, opened, shown, transport_name):
                    shown.turns[transport_name].append(turn)
                    if not console.is_terminal:  # a log has no live display, so print one line per turn
                        console.print(transport_name, len(shown.turns[transport_name]), *_cells(turn), sep="  ")
    shown.show(console)
    _conclude(console, shown)
    measured = dict(shown.turns)
    if slow_link:
        measured |= {f"{arm.name}, {LINK.name}": arm.turns for arm in await show_slow_link(console)}
    if json_file is not None:
        with writing(json_file):
            write_report(json_file, {name: _figures(turns) for name, turns in measured.items()}, {"model": name})
        console.print(f"written to {json_file}", style="dim")
    return 0


async def _hold(
    plan: ConversationPlan,
    url: str,
    opened: Callable[[str], AbstractAsyncContextManager[ConversationTransport]],
    shown: DemoScreen,
    name: str,
) -> AsyncIterator[MeasuredTurn]:
    """Hold the conversation through a forwarder that counts the bytes on the wire."""

    def on_text(delta: str) -> None:
        shown.writing += delta

    async with metered(*address_of(url)) as meter, opened(meter.url) as transport:
        shown.begin(name, plan.questions, 0)
        async for turn in hold(plan, transport, meter, on_text):
            yield turn
            shown.begin(name, plan.questions, len(shown.turns[name]))


def choose_model(console: Console, model: Path | None) -> tuple[str, Config]:
    """Return the name of the model that answers, and the gateway's configuration; print why if it is not a real one."""
    server = ServerConfig(port=0, store="memory:")
    if model is not None:
        up = UpstreamConfig(name="demo", dialect="local", models=[model.stem], model_file=str(model))
        return model.stem, Config(server=server, upstream=[up])
    missing = why_no_local_model()
    if missing is not None:
        console.print(f"No local model: {missing}. The scripted model answers instead.", style="yellow")
        return SCRIPTED, Config(server=server)
    return LOCAL_MODEL, Config(server=server)


def _plan(model: str) -> ConversationPlan:
    first, *others = _QUESTIONS
    about = f"{_ABOUT}\n\n---\n\n"
    questions = (Question(first, about), *(Question(text) for text in others))
    return ConversationPlan(model, _INSTRUCTIONS, questions, MAX_OUTPUT_TOKENS)


def _cells(turn: MeasuredTurn) -> list[str]:
    return [f"{turn.bytes_up_payload:,}", f"{turn.bytes_up_wire:,}", f"{turn.ttft_s:.2f}", f"{turn.time_s:.2f}"]


def _conclude(console: Console, shown: DemoScreen) -> None:
    resent, continued = (shown.turns[name] for name in shown.names)
    before, after = total(resent), total(continued)
    saved = 1 - after.bytes_up_wire / before.bytes_up_wire
    same = [one.reply for one in resent] == [one.reply for one in continued]
    console.print(
        f"Continued, the client sent {after.bytes_up_wire:,} bytes instead of {before.bytes_up_wire:,} on the wire: "
        f"{saved:.0%} less. Context at the end: {resent[-1].input_tokens:,} tokens. "
        f"The replies of both ways are {'the same' if same else 'not all the same'}."
    )
    console.print(
        "The model's time is all that you see here: there is no network in between, and either way the model in this "
        "process knows what it has read before.",
        style="dim",
    )


def _figures(turns: Sequence[MeasuredTurn]) -> list[TurnFigures]:
    return [
        TurnFigures(
            bytes_up_payload=turn.bytes_up_payload,
            bytes_up_wire=turn.bytes_up_wire,
            bytes_down_wire=turn.bytes_down_wire,
            ttft_s=turn.ttft_s,
            time_s=turn.time_s,
            tokens_processed=turn.input_tokens,
        )
        for turn in turns
    ]
