"""Generates the tables of the README and the documentation from the code, between `<!-- generated: name -->` marks.

With `--check` it writes nothing and exits with 1 if a page is stale. The text around the marks is written by hand; a
mark that names no part below, and a part that no page shows, are mistakes too.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import get_args

import msgspec
from cyclopts import App

from segue.cli.main import app as command_line
from segue.cli.parameter_defaults import PARAMETER_DEFAULTS
from segue.config import (
    AgentConfig,
    CertificateConfig,
    CompactionConfig,
    KeyConfig,
    LimitsConfig,
    ListenerConfig,
    RouteConfig,
    ServerConfig,
    SidecarConfig,
    SshConfig,
    TenantConfig,
    TunnelConfig,
    UpstreamConfig,
)
from segue.dialects.output_writer import InterleavedOutputWriter
from segue.gateway.admin.metrics import Metrics
from segue.gateway.error_mapping import socket_reply
from segue.gateway.listener_profile import listener_profile
from segue.gateway.services import EPOCH_BYTES
from segue.protocol import lanes, session, steering
from segue.protocol.capabilities import HEADER, encode_capabilities
from segue.protocol.compact_events import CompactReader, CompactWriter
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.lean_stream import LeanStream
from segue.protocol.problems import previous_response_not_found
from segue.protocol.requests import Settings
from segue.protocol.responses import Failure, encode_echo, usage
from segue.protocol.turns import TurnStream
from tools import (
    architecture,
    bench_tables,
    client_fault_table,
    coding_tables,
    configuration_tables,
    dialect_tables,
    engine_tables,
    error_tables,
    glossary,
    measured_tables,
    peer_tables,
    provider_tables,
    recovery_tables,
    result_files,
    route_table,
    sidecar_tables,
    task_tables,
    tunnel_tables,
)
from tools.markdown import Row, code, table

ROOT = Path(__file__).resolve().parents[1]
MARKED = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


class Stale(Exception):
    """The marks in the pages and the parts made here do not agree."""


def regenerate(text: str, parts: Mapping[str, str]) -> str:
    """Return a page with every marked part made anew."""

    def part(found: re.Match[str]) -> str:
        if found["name"] not in parts:
            raise Stale(f"no part is called {found['name']!r}; known are {', '.join(parts)}")
        return f"{found[1]}\n{parts[found['name']]}\n\n{found[3]}"

    return MARKED.sub(part, text)


def pages(root: Path) -> list[Path]:
    """Return the pages of the documentation, the README first."""
    return [*root.glob("README.md"), *root.glob("CONTRIBUTING.md"), *sorted((root / "docs").rglob("*.md"))]


def stale_pages(root: Path) -> dict[Path, str]:
    """Return the pages that are stale, with the text they should have."""
    parts = {name: make() for name, make in PARTS.items()}
    texts = {page: page.read_text(encoding="utf-8") for page in pages(root)}
    shown = {found["name"] for text in texts.values() for found in MARKED.finditer(text)}
    if forgotten := sorted(set(parts) - shown):
        raise Stale(f"no page shows {', '.join(forgotten)}")
    made = {page: regenerate(text, parts) for page, text in texts.items()}
    pictures = {name: draw for drawn in (PICTURES, *(find() for find in PICTURE_SETS)) for name, draw in drawn.items()}
    for name, draw in pictures.items():
        picture = root / name
        made[picture], texts[picture] = draw(), picture.read_text(encoding="utf-8") if picture.exists() else ""
    return {page: text for page, text in made.items() if text != texts[page]}


# --- metrics ---------------------------------------------------------------------------------------------------------


def metrics() -> str:
    """Write the table of metrics, as `GET /metrics` names them."""
    rows = []
    for family in Metrics().registry.collect():
        if not family.name.startswith("segue_"):
            continue  # those of the process depend on the system
        values: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, {})[value] = None
        values.pop("le", None)
        labels = "; ".join(f"`{label}`: {', '.join(map(code, shown))}" for label, shown in values.items())
        labels = labels or ", ".join(map(code, getattr(family, "_labelnames", ())))  # no sample yet: the names alone
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append((code(name), family.type, labels, family.documentation))
    return table(("metric", "type", "labels", "meaning"), rows)


# --- events ----------------------------------------------------------------------------------------------------------

#: When each event is sent. Which events there are, and what is in them, is found by running the writers.
_WHEN = {
    "response.created": "The turn has begun: the parent is found and the upstream has taken the request.",
    "response.in_progress": "Right after `response.created`.",
    "response.output_item.added": "An output item begins: a message, reasoning or a call.",
    "response.content_part.added": "The text of a message begins.",
    "response.output_text.delta": "A piece of text.",
    "response.output_text.done": "The text is complete; it is here once more in full.",
    "response.content_part.done": "The text part is complete.",
    "response.output_item.done": "The item is complete.",
    "response.function_call_arguments.delta": "A piece of a call's arguments.",
    "response.function_call_arguments.done": "The arguments are complete.",
    "response.refusal.delta": "A piece of a refusal, which stands in a message like a text.",
    "response.refusal.done": "The refusal is complete.",
    "response.reasoning_summary_part.added": "The words of reasoning begin.",
    "response.reasoning_summary_text.delta": "A piece of reasoning.",
    "response.reasoning_summary_text.done": "The words of reasoning are complete.",
    "response.reasoning_summary_part.done": "The part with them is complete.",
    "response.custom_tool_call_input.delta": "The input of a custom tool, in pieces or as a whole.",
    "response.custom_tool_call_input.done": "The input is complete.",
    "response.completed": "Terminal: the turn is over. With `store: true` the response is on the disk by now.",
    "response.incomplete": "Terminal: the turn ended early; `response.incomplete_details` says why.",
    "response.failed": "Terminal: the turn failed after it had begun; `response.error` says why.",
}


def _sample_stream() -> tuple[TurnStream, OutputWriter]:
    ident = new_response_id(bytes(ENTROPY_BYTES))
    stream = TurnStream(ident, None, encode_echo(Settings(model="scripted"), store=True), now=0.0)
    return stream, OutputWriter(ident)


def _sample_turn(ended: Ended, *, text: str = "", name: str = "") -> list[Event]:
    stream, writer = _sample_stream()
    output = writer.text(text) + writer.end_item() if text else []
    output += writer.call("call_1", name, "{}") if name else []
    return [*stream.open(), *stream.feed(output), stream.close(ended, now=0.0).terminal]


def _translated_turn(tell: Callable[[InterleavedOutputWriter], list[Event]]) -> list[Event]:
    """Write a turn of an upstream that speaks another API."""
    stream, _ = _sample_stream()
    writer = InterleavedOutputWriter(new_response_id(bytes(ENTROPY_BYTES)), custom=frozenset({"patch"}))
    output = [*tell(writer), *writer.end()]
    return [*stream.open(), *stream.feed(output), stream.close(Ended("completed", usage(1, 1)), now=0.0).terminal]


def _call_custom(writer: InterleavedOutputWriter) -> list[Event]:
    return [*writer.start_call(0, "call_1", "patch"), *writer.arguments(0, '{"input":"Hi"}')]


def _sample_turns() -> dict[str, list[Event]]:
    counted = usage(1, 1)
    completed, failed = Ended("completed", counted), Ended("failed", error=Failure("server_error", "…"))
    incomplete = Ended("incomplete", counted, incomplete_reason="max_output_tokens")
    return {
        "a text": _sample_turn(completed, text="Hi"),
        "a function call": _sample_turn(completed, name="search"),
        "a call of a custom tool": _translated_turn(_call_custom),
        "reasoning": _translated_turn(lambda writer: writer.reasoning("Hm")),
        "a refusal": _translated_turn(lambda writer: writer.refusal("No")),
        "nothing (`generate: false`)": _sample_turn(completed),
        "cut short": _sample_turn(incomplete, text="Hi"),
        "failed": _sample_turn(failed),
    }


def events() -> str:
    """Write the table of events and their fields."""
    fields: dict[str, list[str]] = {}
    for turn in _sample_turns().values():
        for event in turn:
            fields[event.type] = list(msgspec.json.decode(event.whole(), type=dict[str, object]))
    assert set(fields) == set(_WHEN), f"say in _WHEN when these are sent: {set(fields) ^ set(_WHEN)}"
    rows = [(code(kind), when, ", ".join(map(code, fields[kind][1:]))) for kind, when in _WHEN.items()]
    return table(("event", "when", "fields beside `type`"), rows)


def event_order(shown: Callable[[list[Event]], list[Event]] = list) -> str:
    """Write the order of events of the kinds of turns that there are."""
    rows = [(name, " → ".join(code(event.type.removeprefix("response.")) for event in shown(turn)))
            for name, turn in _sample_turns().items()]  # fmt: skip
    return table(("turn", "its events, each with `response.` before it"), rows)


def lean_order() -> str:
    """Write the order of events of the same turns in a lean stream."""
    return event_order(lambda turn: LeanStream().feed(turn))


def compact_example() -> str:
    """Write a turn in compact events, and the events that they stand for."""
    turn = _sample_turn(Ended("completed", usage(9, 5)), text="The answer is in the file.")
    arrays = [event.data for event in LeanStream(CompactWriter()).feed(turn)]
    reader = CompactReader()
    events = [reader.event(data) or b"" for data in arrays]
    return "\n\n".join("```text\n" + b"\n".join(lines).decode() + "\n```" for lines in (arrays, events)).replace(
        "\n\n", "\n\nstands for\n\n"
    )


def response_object() -> str:
    """Write a response object as it is while its turn runs."""
    stream, _ = _sample_stream()
    created = msgspec.json.decode(stream.open()[0].whole())
    return _json(created["response"])


def socket_error() -> str:
    """Write an `error` frame of WebSocket mode."""
    return _json(msgspec.json.decode(socket_reply(previous_response_not_found("resp_…"))))


def _json(value: object) -> str:
    return f"```json\n{msgspec.json.format(msgspec.json.encode(value), indent=2).decode()}\n```"


# --- services --------------------------------------------------------------------------------------------------------


def service_file(name: str) -> str:
    """Write a file of a service as it is."""
    text = (ROOT / "docs" / "how-to" / "services" / name).read_text(encoding="utf-8")
    return f"```text\n{text}```"


# --- command line ----------------------------------------------------------------------------------------------------


def commands() -> str:
    """Write every command with its options."""
    return "\n\n".join(_commands(command_line, ("segue",)))


def _commands(app: App, path: tuple[str, ...]) -> Iterator[str]:
    for name in app:
        command = app[name]
        if name.startswith("-") or not command.show:  # --help and --version are commands too
            continue
        if command.default_command is not None:
            rows = [
                (", ".join(map(code, argument.names)), _option(argument.hint), str(argument.parameter.help))
                for argument in command.assemble_argument_collection(default_parameter=PARAMETER_DEFAULTS)
                if not argument.children  # a group of options, which follow it
            ]
            parts = [
                f"## {' '.join((*path, name))}",
                inspect.cleandoc(command.help),
                table(("option", "value", "meaning"), rows),
            ]
            yield "\n\n".join(part for part in parts if part)
        yield from _commands(command, (*path, name))


def _option(hint: object) -> str:
    if hint is bool or bool in get_args(hint):
        return ""
    given = [value for kind in get_args(hint) for value in (kind, *get_args(kind))]  # it may be an optional `Literal`
    if choices := [value for value in given if isinstance(value, str)]:
        return ", ".join(map(code, choices))
    names = {"str": "text", "int": "number", "float": "number", "Path": "file"}
    return names[
        next(name for name in re.findall(r"\w+", str(hint if get_args(hint) else _name(hint))) if name in names)
    ]


def _name(hint: object) -> str:
    assert isinstance(hint, type)
    return hint.__name__


# --- session ---------------------------------------------------------------------------------------------------------


def lane_table() -> str:
    """Write the transitions of a lane."""
    rows = []
    for (state, event), (after, actions) in session.LANE.items():
        rows.append(
            (code(state.value), code(event.value), code(after.value), ", ".join(code(a.value) for a in actions))
        )
    return table(("a lane that is", "gets", "becomes", "and does"), rows)


def phase_table() -> str:
    """Write the transitions of a connection."""
    rows = [
        (code(state.value), code(event.value), code(after.value)) for (state, event), after in session.PHASE.items()
    ]
    return table(("a connection that is", "gets", "becomes"), rows)


def steering_table() -> str:
    """Write what becomes of the steers of a lane."""
    rows = [
        (code(state.value), code(event.value), code(after.value), "" if action is None else code(action.value))
        for (state, event), (after, action) in steering.STEERING.items()
    ]
    return table(("steers that wait for", "when", "then wait for", "and are asked to"), rows)


def session_words() -> str:
    """Write what the inputs and actions mean: the comments behind them in the code."""
    rows: list[Row] = []
    for what, enum in (
        ("lane, state", session.LaneState),
        ("lane", session.LaneInput),
        ("lane, action", session.Action),
        ("connection", session.PhaseInput),
        ("steers", steering.SteeringState),
        ("steers", steering.SteeringInput),
        ("steers, action", steering.SteeringAction),
    ):
        rows += [(what, code(value), meaning) for value, meaning in _members(enum) if meaning]
    return table(("of a", "word", "meaning"), rows)


def _members(enum: type[Enum]) -> Iterator[tuple[str, str]]:
    for line in inspect.getsource(enum).splitlines():
        found = re.fullmatch(r'\s+[A-Z]+ = "(?P<value>\w+)"(?:\s+# (?P<meaning>.*))?', line)
        if found is not None:
            yield found["value"], found["meaning"] or ""


def lane_diagram() -> str:
    """Draw a lane. What `next` leads to is not in its table, since it depends on the queue and on other lanes."""
    arrows = [(state.value, event.value, after.value) for (state, event), (after, _) in session.LANE.items()]
    following = [
        ("idle", "next, if a turn waits and may run", "running"),
        ("idle", "next, if a turn waits and may not", "ready"),
    ]
    return _diagram("idle", [*arrows, *following])


def capabilities() -> str:
    """Write the object that a gateway without a configuration answers."""
    profile = listener_profile(ServerConfig(), "openai", bytes(EPOCH_BYTES))
    shown = msgspec.json.format(encode_capabilities(profile.capabilities)).decode()
    return f"```json\n{shown}\n```\n\n```text\n{HEADER}: {profile.header}\n```"


def profiles() -> str:
    """Write what the profiles of WebSocket connections allow."""
    rows = [
        (code(name), str(bounds.names or "none"), str(bounds.in_flight), _KEPT[name])
        for name, bounds in lanes.BOUNDS.items()
    ]
    return table(("profile", "lanes with a name", "turns at once", "responses kept"), rows)


_KEPT: Mapping[lanes.Profile, str] = {
    "openai": "the latest of each lane, and the parent of each fork that waits",
    "serial": "the latest of the connection",
}


def phase_diagram() -> str:
    """Draw a connection; what changes nothing is left out."""
    arrows = [(state.value, event.value, after.value) for (state, event), after in session.PHASE.items()]
    return _diagram("open", [arrow for arrow in arrows if arrow[0] != arrow[2]])


def _diagram(first: str, arrows: Sequence[tuple[str, str, str]]) -> str:
    words: dict[tuple[str, str], list[str]] = {}
    for state, event, after in arrows:
        words.setdefault((state, after), []).append(event)
    lines = [f"    {state} --> {after}: {', '.join(events)}" for (state, after), events in words.items()]
    assert all(one != other for one, other in pairwise(lines))
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, "```"])


# --- all of it -------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[], str]] = {
    "agent-tasks": task_tables.tasks,
    "bench-advice": bench_tables.advice,
    "bench-arms": bench_tables.arms,
    "bench-workloads": bench_tables.workloads,
    "bench-workload-sources": bench_tables.workload_sources,
    "bench-assumptions": bench_tables.assumptions,
    "peers": bench_tables.peers,
    "peer-figures": peer_tables.measured,
    "endpoint-verdicts": bench_tables.endpoint_verdicts,
    "bench-links": bench_tables.links,
    "bench-publications": bench_tables.publications,
    "flight-troubles": bench_tables.troubles,
    "spectrum-rows": bench_tables.spectrum,
    "retry-practices": bench_tables.practices,
    "agent-task-bytes": task_tables.bytes_by_arm,
    "real-agents": task_tables.real_agents,
    "dialect-fates": dialect_tables.fates,
    "dialect-settings": dialect_tables.settings,
    "dialect-items": dialect_tables.items,
    "dialect-stops": dialect_tables.stops,
    "chat-fields": dialect_tables.chat_door,
    "demo": measured_tables.demo,
    "gateway-budgets": measured_tables.budgets,
    "gateway-figures": measured_tables.gateway,
    "cluster-checks": lambda: measured_tables.cluster("check, "),
    "cluster-plan": lambda: measured_tables.cluster("plan: "),
    "dialect-figures": measured_tables.dialects,
    "engine-real": lambda: measured_tables.engine("smollm2"),
    "engine-tiny": lambda: measured_tables.engine("tiny"),
    "engine-comparison": engine_tables.comparison,
    "sessions": measured_tables.sessions,
    "headlines": measured_tables.headlines,
    "session-codex": lambda: measured_tables.session("codex"),
    "session-claude-code": lambda: measured_tables.session("claude-code"),
    "session-figures": measured_tables.session_figures,
    "result-files": result_files.listing,
    "result-sections": result_files.sections,
    "lean-figures": measured_tables.lean_streams,
    "configuration-server": lambda: configuration_tables.settings(ServerConfig, "SEGUE_SERVER"),
    "configuration-upstream": lambda: configuration_tables.settings(UpstreamConfig, "SEGUE_UPSTREAM_0"),
    "configuration-key": lambda: configuration_tables.settings(KeyConfig, "SEGUE_KEY_0"),
    "configuration-certificate": lambda: configuration_tables.settings(CertificateConfig, "SEGUE_CERTIFICATE_0"),
    "configuration-limits": lambda: configuration_tables.settings(LimitsConfig, "SEGUE_LIMITS"),
    "configuration-tenant": lambda: configuration_tables.settings(TenantConfig, "SEGUE_TENANT_0"),
    "configuration-listener": lambda: configuration_tables.settings(ListenerConfig, "SEGUE_LISTENER_0"),
    "configuration-route": lambda: configuration_tables.settings(RouteConfig, "SEGUE_ROUTE_0"),
    "configuration-tunnel": lambda: configuration_tables.settings(TunnelConfig, "SEGUE_TUNNEL"),
    "configuration-sidecar": lambda: configuration_tables.settings(SidecarConfig, "SEGUE_SIDECAR"),
    "configuration-ssh": lambda: configuration_tables.settings(SshConfig, "SEGUE_SSH"),
    "client-faults": client_fault_table.fault_matrix,
    "configuration-compaction": lambda: configuration_tables.settings(CompactionConfig, "SEGUE_COMPACTION"),
    "configuration-agent": lambda: configuration_tables.settings(AgentConfig, "SEGUE_AGENT"),
    "failures": sidecar_tables.failures,
    "service-systemd": lambda: service_file("segue-sidecar.service"),
    "service-launchd": lambda: service_file("segue.sidecar.plist"),
    "sidecar-counts": sidecar_tables.counted,
    "doctor-faults": sidecar_tables.doctor_faults,
    "glossary": glossary.glossary,
    "errors": error_tables.errors,
    "recovery-rules": recovery_tables.rules,
    "recovery-conditions": recovery_tables.conditions,
    "client-errors": recovery_tables.client_errors,
    "provider-errors": error_tables.provider_errors,
    "provider-fields": provider_tables.fields,
    "provider-families": provider_tables.families,
    "socket-error": socket_error,
    "metrics": metrics,
    "events": events,
    "event-order": event_order,
    "lean-order": lean_order,
    "compact-example": compact_example,
    "event-dictionary": coding_tables.event_dictionary,
    "response-object": response_object,
    "routes": route_table.routes,
    "commands": commands,
    "session-words": session_words,
    "profiles": profiles,
    "capabilities": capabilities,
    "lane-table": lane_table,
    "lane-diagram": lane_diagram,
    "phase-table": phase_table,
    "steering-table": steering_table,
    "phase-diagram": phase_diagram,
    **tunnel_tables.TABLES,
}

#: Files that are drawn from the code, whole.
PICTURES: dict[str, Callable[[], str]] = {
    "docs/explanation/architecture.svg": architecture.picture,
}
#: The same, where it depends on files which there are.
PICTURE_SETS: list[Callable[[], Mapping[str, Callable[[], str]]]] = [result_files.pictures]


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the stale pages, or with `--check` only name them; returns the exit status."""
    checking = list(arguments) == ["--check"]
    if arguments and not checking:
        print("usage: generate_docs.py [--check]")
        return 2
    try:
        stale = stale_pages(root)
    except Stale as error:
        print(f"generate_docs: {error}")
        return 1
    for page, text in stale.items():
        print(f"{page.relative_to(root)}: {'stale; run `make docs`' if checking else 'written'}")
        if not checking:
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text, encoding="utf-8")
    print(f"generate_docs: {len(stale)} page(s) stale" if stale else "generate_docs: all pages up to date")
    return 1 if stale and checking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
