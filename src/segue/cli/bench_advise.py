"""`segue bench advise`: says which way to send a conversation, for a workload that the options describe."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from segue.bench.advice import RULES, AdviceRule, AgentWorkload, advice_figures, advise, problem_of_agent, task_times
from segue.bench.capacity import arms, problem_of
from segue.bench.reports.report import BenchReport, make_report
from segue.cli.bench_output import show
from segue.cli.output_file import ReportFiles
from segue.terminal import print_table, terminal


def run_bench_advise(workload: AgentWorkload, *, files: ReportFiles) -> int:
    """Advise, show why, and write it if there is a file for it."""
    if problem := problem_of(workload.sizes) or problem_of_agent(workload):
        print(f"segue: {problem}", file=sys.stderr)
        return 2
    times = task_times(workload)
    rule = advise(workload, times)
    settings = {
        "link": workload.link.name,
        "turns": workload.sizes.turns,
        "first_bytes": workload.sizes.first_bytes,
        "growth_bytes": workload.sizes.growth_bytes,
        "delta_bytes": workload.sizes.delta_bytes,
        "tokens_s": workload.tokens_s,
        "output_tokens": workload.output_tokens,
        "api": workload.api,
        "short_lived": workload.short_lived,
        "advice": rule.advice,
        "condition": rule.condition,
    }
    report = make_report(arms(workload.sizes), settings, advice_figures(workload, times))
    show(report, lambda made, console: _render(made, rule, console), terminal(), files=files)
    return 0


def _render(report: BenchReport, rule: AdviceRule, console: Console) -> None:
    console.print(rule.advice, style="bold", highlight=False)
    console.print(f"{rule.reason}\nSource: {rule.source}.\n", highlight=False)
    table = Table("figure", box=None, pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("unit")
    for one in report.figures:
        assert one.value is not None, "every figure is computed"
        table.add_row(one.name, f"{one.value:,.1f}", one.unit)
    print_table(console, table)
    rules = Table("\nthe first rule that fits", "\nadvises", box=None, pad_edge=False)
    for known in RULES:
        rules.add_row(("> " if known is rule else "  ") + known.condition, known.advice)
    print_table(console, rules)
    console.print(
        "\nComputed, without loss, queues, tools and prefill. No way changes which tokens are billed.",
        style="dim",
        highlight=False,
    )
