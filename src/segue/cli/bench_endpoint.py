"""`segue bench endpoint`: measures somebody else's server, after saying what that will cost."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
from msgspec.structs import replace
from rich.console import Console
from yarl import URL

from segue.bench.endpoint.measure import EndpointError, EndpointTarget, list_models, measure_endpoint
from segue.bench.endpoint.plan import EndpointPlan, planned_cost
from segue.bench.endpoint.view import render_endpoint
from segue.cli.bench_output import option_fault, refuse, show, told_steps
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.config import ConfigError, named_key
from segue.terminal import terminal

_NOTHING_SERVED = 1
_LONGEST_S = 3600
_SHOWN_MODELS = 8


class EndpointCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says."""

    url: str
    model: str | None
    key_env: str | None
    deadline_s: float
    budget: int
    agreed: bool
    files: ReportFiles


def run_bench_endpoint(command: EndpointCommand, settings: dict[str, Any]) -> int:
    """Measure a server. The exit status is 1 if it served no way at all, 2 if nothing was asked."""
    base_url = base_url_of(command.url)
    if base_url is None:
        return refuse("give the server as http://HOST:PORT or https://HOST/v1, without a user, password or query")
    if not 0 < command.deadline_s <= _LONGEST_S:
        return refuse(f"--timeout must be more than 0 and at most {_LONGEST_S} seconds")
    try:
        plan = msgspec.convert({"model": command.model or "", **settings}, EndpointPlan)
        key = None if command.key_env is None else named_key(command.key_env, "--key-env")
    except (msgspec.ValidationError, ConfigError) as error:
        return refuse(option_fault(error))
    console = terminal()
    if problem := _announce(command, plan, base_url, console):
        return refuse(problem)
    target = EndpointTarget(
        base_url=str(base_url), key=key, deadline_s=command.deadline_s, budget_tokens=command.budget
    )
    try:
        plan = replace(plan, model=command.model or _only_model(target))
        with told_steps() as on_step:
            result = run(measure_endpoint(target, plan, on_step))
    except (EndpointError, ValueError) as error:  # a key or URL that cannot be sent
        return refuse(str(error))
    show(result.report, lambda _, at: render_endpoint(result, at), console, files=command.files)
    return 0 if any(verdict.support == "yes" for verdict in result.verdicts) else _NOTHING_SERVED


def _only_model(target: EndpointTarget) -> str:
    models = run(list_models(target))
    if len(models) == 1:
        return models[0]
    named = ", ".join(models[:_SHOWN_MODELS]) + (", …" if len(models) > _SHOWN_MODELS else "")
    raise EndpointError(f"name a model with --model; {f'the server has {named}' if models else 'it lists none'}")


def base_url_of(url: str) -> URL | None:
    """Return the base URL as SDKs have it, with `/v1` where the URL has no path; None if it is no such URL."""
    try:
        parsed = URL(url)
    except ValueError:
        return None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.user or parsed.password:
        return None
    if parsed.query_string or parsed.fragment:
        return None
    return parsed / "v1" if parsed.path in {"", "/"} else URL(str(parsed).rstrip("/"))


def _announce(command: EndpointCommand, plan: EndpointPlan, base_url: URL, console: Console) -> str | None:
    """Say what will be asked; return why it may not be."""
    cost = planned_cost(plan)
    console.print(
        f"At most {cost.requests} requests to {base_url.host}, about {cost.input_tokens:,} tokens in and up to "
        f"{cost.output_tokens:,} out; it stops at {command.budget:,} (--budget).",
        highlight=False,
        soft_wrap=True,
    )
    if cost.input_tokens > command.budget:
        return f"that is more than --budget {command.budget}; raise it, or lower --turns, --rounds or --turn-bytes"
    if not command.agreed and not _is_loopback(base_url.host or ""):
        return "this server is not on this machine, and its owner may bill you: repeat the command with --yes"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
