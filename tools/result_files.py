"""The result files of the documentation: which command wrote each, and the section of docs/results/index.md about it.

A file that is not there has no section and is not listed, so a new one only needs its line below. Some files are shown
by parts of their own (`measured_tables`), the others by the tables and plots that every report has. Not here: running
the commands (`run_benchmarks`), and the marks in the pages (`generate_docs`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from segue.agent.tasks.workspaces import TASKS
from segue.bench.reports.chart_selection import charts_of
from segue.bench.reports.charts import Chart
from segue.bench.reports.markdown_report import markdown_table
from segue.bench.reports.report import BenchReport
from segue.bench.reports.report_tables import link_sources, tables_of
from segue.bench.reports.shown_values import shown_text
from segue.bench.reports.svg import stand_alone
from tools.markdown import code, table

#: Files whose command writes nowhere else.
_WITHOUT_OPTION = frozenset({"agent-tasks.json", "real-agents.json"})

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


class ResultFile(msgspec.Struct, frozen=True, kw_only=True):
    """A result file, and how it is made and shown."""

    name: str
    command: str
    """What wrote it, without `--json FILE`."""
    about: str
    heading: str = ""
    """Of the section that is made of it; empty if the parts of other pages show it."""
    words: str = ""
    """What one must know to read the section."""
    subject: str = ""
    """What the titles of its plots begin with."""
    charts: tuple[str, ...] = ()
    """The beginnings of the titles of the plots that the documentation shows."""
    tables: tuple[str, ...] = ("",)
    """The same of the tables."""
    shown_by: tuple[str, ...] = ()
    """The generated parts that show it, if it has no section."""
    about_s: float | None = None
    """How long `make bench` takes for it, about; null if it is not part of that."""
    without_turns: bool = False
    """Whether the file is kept without single turns, of which there are thousands that no table shows."""
    has_quick: bool = True
    """Whether the command has a short form, with `--quick`."""
    resumes: bool = False
    """Whether the command can go on where it was stopped, with `--resume FILE`."""


RESULT_FILES = (
    ResultFile(
        name="gateway.json",
        subject="The gateway",
        command="segue bench gateway",
        about="CPU, latency and memory of the gateway, beside a bare server",
        shown_by=("gateway-budgets", "gateway-figures"),
        charts=("CPU per turn by depth",),
        without_turns=True,
        about_s=72,
    ),
    ResultFile(
        name="cluster.json",
        command="segue bench cluster --rounds 5",
        about="several gateways over PostgreSQL and Redis: how workers add up, and what a million sessions take",
        heading="Several gateways",
        words="One worker and two, each over a database of its own, and a gateway over SQLite. First all are busy, and "
        "each may use a quarter of a core, so that load and databases fit beside them. Then turns come at random to "
        "one worker that is not limited. Three paces make the curve of a turn's cost. Two loads that did not make it "
        "are predicted. [Capacity](../reference/capacity.md#several-gateways) says how, and what the plan is.",
        tables=("Figures",),
        has_quick=False,
    ),
    ResultFile(
        name="dialects.json",
        subject="A provider behind the gateway",
        command="segue bench dialects",
        about="what it costs to go on with a conversation at a provider",
        shown_by=("dialect-figures",),
        charts=("CPU per turn by depth",),
        without_turns=True,
        about_s=48,
    ),
    ResultFile(
        name="tunnel.json",
        command="segue bench tunnel",
        about="CPU of sidecar and gateway for large bodies, and the delay of a reply's first event",
        heading="Through sidecar and gateway",
        words="Agents late in a task, with bodies of about so many bytes. The provider answers at once where CPU time "
        "is measured; the delay is that of an event which comes a moment later, beside the same straight from the "
        "provider. Two relays are processes that only copy bytes. After the request: with its way up, which takes "
        "longer than straight over a link as fast as this one. Budgets hold on the machine that they were set on: the "
        "fixed piece of work compares machines. A first event comes after a rest, and on a machine that shares its "
        "processors with others the caches are cold then: the last figure tells how much slower any code is.",
        tables=("Figures",),
        without_turns=True,
        about_s=59,
    ),
    ResultFile(
        name="table-codex.json",
        subject="Codex, a task of 41 requests",
        command="segue bench table --session codex --turns 41 --rounds 3",
        about="bytes of a session of Codex, on each path",
        shown_by=("sessions", "session-codex", "session-figures"),
        charts=("Bytes sent per turn",),
        about_s=37,
    ),
    ResultFile(
        name="table-claude-code.json",
        subject="Claude Code, a task of 41 requests",
        command="segue bench table --session claude-code --turns 41 --rounds 3",
        about="the same of Claude Code",
        shown_by=("sessions", "session-claude-code"),
        charts=("Bytes sent so far", "Bytes sent per turn"),
        about_s=35,
    ),
    ResultFile(
        name="table-codex-ws.json",
        command="segue bench table --session codex-ws --turns 41 --rounds 3",
        about="the same of Codex over a WebSocket",
        heading="Codex over a WebSocket",
        words="Codex sends what is new itself, as long as it keeps its socket. A warm sidecar has the messages of an "
        "earlier session, which the first message of this one is sent against.",
        tables=("Arms", "Bytes", "Figures"),
        about_s=35,
    ),
    ResultFile(
        name="arms-article.json",
        command="segue bench table --rounds 3",
        about="ten turns of 3.2 KB on each arm, as in the article that this benchmark began with",
        heading="Ways to carry a conversation",
        words="One task on each arm, over TLS, on one machine: the same turns and tokens, in alternating order. Each "
        "of ten turns adds 3.2 KB. That is what the 176 KB and 32 KB of [an article]"
        "(https://www.infoq.com/articles/ai-agent-transport-layer/) come to.",
        subject="Ten turns of 3.2 KB",
        charts=("Bytes sent so far",),
        about_s=64,
    ),
    ResultFile(
        name="arms-loop-12.json",
        command="segue bench table --workload loop-12 --rounds 1",
        about="twelve rounds of tools on each arm",
        heading="A loop of tools",
        words="Twelve rounds with results of 2 KB, on the same arms. [Arms](../reference/arms.md) says what each is.",
        tables=("Arms", "Bytes", "Figures"),
        about_s=25,
    ),
    *(
        ResultFile(
            name=f"arms-{task}.json",
            command=f"segue bench table --workload {task} --rounds 1",
            about=f"the agent's task `{task}` on each arm",
            heading=f"The agent at work: {task}",
            words=f"{TASKS[task].capitalize()}: segue's own agent, with real tools, on the same arms.",
            tables=("Arms", "Bytes", "Times"),
            about_s=30,
        )
        for task in TASKS
    ),
    ResultFile(
        name="links.json",
        command="segue bench times --rounds 2 --computed conversation:20 --computed conversation:84",
        about="task times over links and at two speeds of the model",
        heading="Task times over links",
        words="Ten turns of 3.2 KB, and conversations of 20 and 84 turns with 31 KB at first: on each arm, with a "
        "model that writes 65 tokens a second and with one that writes 1,000. Behind a time is how much less or more "
        "it is than that of `http replay`. The [article](https://www.infoq.com/articles/ai-agent-transport-layer/) "
        "that this benchmark began with measured 15 % and 29 % less for WebSocket with an id. Here all arms write the "
        "same tokens. A WebSocket's first token of all comes a round trip later than HTTP's, since the upgrade needs "
        "one; a sidecar has its link before. [Task times](../reference/times.md) says what is measured, and how the "
        "rest is computed.",
        subject="Task times",
        charts=("Time of the whole task by link: article",),
        tables=("Time of the whole task", "First token of the first turn: article", "Figures"),
        about_s=243,
        without_turns=True,
        resumes=True,
    ),
    ResultFile(
        name="airplane.json",
        command="segue bench airplane",
        about="a task of Claude Code on a flight, plain and through a sidecar",
        heading="On a flight",
        words="A task of Claude Code over a geostationary satellite, with a hand-over, an outage and a captive portal, "
        "in real time. [Airplane](../reference/airplane.md) has the plan, and the rules by which the agent waits, "
        "retries and gives up.",
        subject="On a flight",
        charts=("Time lines of turns",),
        tables=("Arms", "Failed requests", "Figures"),
        about_s=115,
    ),
    ResultFile(
        name="spectrum.json",
        command="segue bench spectrum",
        about="where a conversation's state can be, and what that costs",
        heading="Where the state is",
        words="The article's task of 10 turns on a landline. [Spectrum](../reference/spectrum.md) says where each way "
        "keeps the conversation. `settings.lasts` of the file says how long an id could be continued: until its "
        "connection closed, until the process ended, or as long as the store. The sidecar has its link before the "
        "first turn.",
        subject="Where the state is",
        tables=("Arms", "Bytes", "Times", "Figures"),
        about_s=41,
    ),
    ResultFile(
        name="capacity.json",
        command="segue bench capacity --results gateway.json",
        about="what a fleet of agents sends, and what its state costs",
        heading="A fleet of agents",
        words="Computed, not measured: [every assumption](../reference/capacity.md) is an option. CPU and memory are "
        "those of `gateway.json`.",
        tables=("Figures",),
        about_s=1,
        has_quick=False,
    ),
    ResultFile(
        name="peers.json",
        subject="Servers that keep histories",
        command="segue bench peers --programs peers --seconds 60",
        about="other servers that keep histories, beside segue",
        shown_by=("peer-figures",),
        charts=("CPU per turn by depth",),
        without_turns=True,
    ),
    ResultFile(name="demo.json", command="segue demo", about="one conversation, twice", shown_by=("demo",)),
    ResultFile(
        name="engine-smollm2.json",
        command="segue bench engine",
        about="first tokens of the local model, by length of the context",
        shown_by=("engine-real",),
        charts=("",),
    ),
    ResultFile(
        name="engine-tiny.json",
        command="segue bench engine --model tiny",
        about="the same of a tiny model",
        shown_by=("engine-tiny",),
        charts=("",),
    ),
    ResultFile(
        name="engine-llama-server.json",
        command="segue bench engine --against llama-server --rounds 2",
        about="the local model beside llama.cpp's own server",
        shown_by=("engine-comparison",),
    ),
    ResultFile(
        name="agent-tasks.json",
        command="python -m tools.measure_agent_tasks",
        about="bytes of the agent's tasks",
        shown_by=("agent-task-bytes",),
    ),
    ResultFile(
        name="real-agents.json",
        command="python -m tools.measure_real_agents AGENT=PROGRAM …",
        about="real agents at work on a bad network",
        shown_by=("real-agents",),
    ),
    ResultFile(
        name="lean-streams.json",
        command="python -m tools.measure_lean_stream",
        about="what clients receive for each byte that a model says",
        shown_by=("lean-figures",),
    ),
)


def read_result(name: str, results: Path = RESULTS) -> BenchReport:
    """Read a result file that `segue bench` or `segue demo` wrote."""
    return msgspec.json.decode((results / name).read_bytes(), type=BenchReport)


def listing(results: Path = RESULTS) -> str:
    """Write the list of the result files that are there."""
    rows = []
    for file in RESULT_FILES:
        if (results / file.name).exists():
            option = "" if file.name in _WITHOUT_OPTION else " --json FILE"
            rows.append((f"[{file.name}]({file.name})", file.about, code(file.command + option)))
    return table(("file", "what was measured", "written by"), rows)


def sections(results: Path = RESULTS) -> str:
    """Write the section of each file that is there and has one."""
    made = [_section(file, results) for file in RESULT_FILES if file.heading and (results / file.name).exists()]
    return "\n\n".join(made)


def _section(file: ResultFile, results: Path) -> str:
    report = read_result(file.name, results)
    parts = [f"## {file.heading}", file.words]
    parts += [f"![{_plain(chart.title)}]({name})" for name, chart in _chosen(file, report)]
    shown = [one for one in tables_of(report) if one.title.startswith(file.tables)]
    for one in shown:
        parts += [f"### {_plain(one.title)}" if len(shown) > 1 else "", markdown_table(one), one.note]
    if link_sources(report):
        parts.append("[Links](../reference/links.md) says where the numbers of each link come from.")
    machine = f"{report.machine.cpu}, {report.machine.cores} cores, Python {report.machine.python}"
    parts.append(f"`{file.command}`, on {machine}; segue {report.version}.")
    return "\n\n".join(part for part in parts if part)


def _plain(text: str) -> str:
    return shown_text(text).replace("[", "(").replace("]", ")")


def pictures(results: Path = RESULTS) -> dict[str, Callable[[], str]]:
    """Return the plots that the documentation shows of the files that are there, by their file names."""
    return {
        f"docs/results/{name}": partial(stand_alone, chart, file.subject)
        for file in RESULT_FILES
        if file.charts and (results / file.name).exists()
        for name, chart in _chosen(file, read_result(file.name, results))
    }


def _chosen(file: ResultFile, report: BenchReport) -> Iterator[tuple[str, Chart]]:
    """Return the plots to show with their file names: what the title says before the conditions, and a number if that
    is not enough.
    """
    seen: Counter[str] = Counter()
    for chart in charts_of(report):
        if chart.title.startswith(file.charts):
            slug = re.sub(r"[^a-z0-9]+", "-", chart.title.partition(":")[0].lower())
            seen[slug] += 1
            number = f"-{seen[slug]}" if seen[slug] > 1 else ""
            yield f"{file.name.removesuffix('.json')}-{slug}{number}.svg", chart
