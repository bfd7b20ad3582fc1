"""The tables of the documentation that say what benchmarks assume: links, and a fleet, with their sources."""

from __future__ import annotations

from segue.bench.advice import RULES
from segue.bench.arms.computed import COMPUTED_FROM
from segue.bench.arms.table import ARMS, REPLAY, SOCKET_REPLAY
from segue.bench.capacity import ASSUMPTIONS, FleetWorkload
from segue.bench.endpoint.verdicts import HISTORY_RULES
from segue.bench.links.profiles import CITED_AS, LINKS, PUBLICATIONS, NamedLink
from segue.bench.links.transfer_time import transfer_time_s
from segue.bench.peers.catalogue import PEERS
from segue.bench.spectrum import ROWS
from segue.bench.workloads.conversations import CONVERSATION_SOURCES, SHAPES, ConversationShape
from segue.bench.workloads.flight_plan import FLIGHT, TROUBLES
from segue.bench.workloads.retry_rules import PRACTICES
from tools.markdown import code, table

#: The computed arms, each with the measured one that it is computed from.
_COMPUTED = (
    *((REPLAY, name) for name in COMPUTED_FROM["http"]),
    *((SOCKET_REPLAY, name) for name in COMPUTED_FROM["websocket"]),
)
_SIZES = (3_200, 32_000, 480_000)
_SHOWN_IN_MS_S = 0.1


def links() -> str:
    """Write the links, and how long bytes take up on each."""
    heads = (
        "link",
        "what it is",
        "RTT",
        "down",
        "up",
        "loss",
        *(f"{size / 1000:g} KB up" for size in _SIZES),
        "sources",
    )
    return table(heads, [_row(link) for link in LINKS.values()])


def _row(link: NamedLink) -> list[str]:
    profile = link.profile
    assert profile.up_bytes_s is not None, "every named link has a rate"
    times = [transfer_time_s(profile, profile.up_bytes_s, size, age="idle") for size in _SIZES]
    loss = f"{100 * link.loss:g} %" if link.loss else "none"
    return [
        code(link.name),
        link.meaning,
        f"{link.rtt_ms:g} ms",
        f"{link.down_mbit_s:g} Mbit/s",
        f"{link.up_mbit_s:g} Mbit/s",
        loss,
        *map(_time, times),
        ", ".join(str(CITED_AS[name]) for name in link.sources),
    ]


def _time(taken_s: float) -> str:
    return f"{1e3 * taken_s:.2g} ms" if taken_s < _SHOWN_IN_MS_S else f"{taken_s:.2f} s"


def publications() -> str:
    """Write what published the numbers."""
    return "\n".join(f"{CITED_AS[name]}. {text}" for name, text in PUBLICATIONS.items())


def arms() -> str:
    """Write the arms of `segue bench table`."""
    rows = [[code(arm.name), arm.meaning] for arm in ARMS.values()]
    made = [[code(name), f"computed from {code(ARMS[origin].name)}"] for origin, name in _COMPUTED]
    return table(("arm", "what it does"), rows + made)


def workloads() -> str:
    """Write the generated conversations, with their sizes."""
    heads = ("workload", "turns", "instructions", "tools", "prompt", "the model writes", "result", "of", "chosen")
    return table(heads, [_workload(name, shape) for name, shape in SHAPES.items()])


def _workload(name: str, shape: ConversationShape) -> list[str]:
    cited = [str(number) for number, source in enumerate(CONVERSATION_SOURCES, 1) if source in shape.sources]
    return [
        code(name if shape.turns else f"{name}:N"),
        str(shape.turns or "N"),
        *(f"{size:,} B" for size in (shape.instructions_bytes, shape.tools_bytes, shape.prompt_bytes)),
        f"{shape.text_tokens + shape.argument_tokens} tokens",
        f"{shape.result_bytes:,} B",
        ", ".join(cited),
        shape.chosen,
    ]


def workload_sources() -> str:
    """Write what published their numbers."""
    return "\n".join(f"{number}. {text}" for number, text in enumerate(CONVERSATION_SOURCES.values(), 1))


def troubles() -> str:
    """Write what happens on a flight, and when."""
    rows = [[code(event.what), f"{event.at_s:g} s", f"{event.length_s:g} s", TROUBLES[event.what]] for event in FLIGHT]
    return table(("event", "from", "for", "what it is"), rows)


def spectrum() -> str:
    """Write where state can be, and for how long."""
    heads = ("approach", "state", "it lasts", "a later turn sends", "from")
    rows = [
        [
            row.name,
            row.state,
            row.lasts or ", ".join(filter(None, ("tried out", row.at_most))),
            row.sends or "measured",
            row.source or _measured_by(row.arm),
        ]
        for row in ROWS
    ]
    return table(heads, rows)


def _measured_by(arm: str | None) -> str:
    return "`segue bench engine`" if arm is None else f"the [arm](arms.md) {code(arm)}"


def practices() -> str:
    """Write how agents wait, retry and give up."""
    return table(("agent", "it", "published by"), [[code(one.agent), one.rule, one.source] for one in PRACTICES])


def assumptions() -> str:
    """Write what `segue bench capacity` assumes unless it is told otherwise."""
    defaults = FleetWorkload()
    rows = []
    for assumption in ASSUMPTIONS:
        value = getattr(defaults, assumption.field)
        shown = "" if value is None else f"{value:,}"
        rows.append((code(assumption.option), assumption.meaning, shown, assumption.source))
    return table(("option", "what", "default", "where the default comes from"), rows)


def advice() -> str:
    """Write the rules of `segue bench advise`."""
    rows = [(rule.condition, f"**{rule.advice}**", rule.reason, rule.source) for rule in RULES]
    return table(("if", "then", "because", "source"), rows)


def endpoint_verdicts() -> str:
    """Write how `segue bench endpoint` judges an answer."""
    return table(("verdict", "because"), [[rule.verdict, rule.why] for rule in HISTORY_RULES])


def peers() -> str:
    """Write which servers `segue bench peers` knows."""
    over = {"http": "HTTP", "websocket": "WebSocket"}
    rows = [
        (
            code(peer.name),
            peer.tested,
            ", ".join(over[door] for door in peer.doors),
            {"responses": "Responses", "chat": "Chat Completions"}[peer.provider_api],
            peer.keeps_in,
            peer.beside or "—",
            peer.install if peer.ours else f"{code(peer.install)} {peer.needs}".strip(),
        )
        for peer in PEERS
    ]
    heads = ("name", "made for", "measured over", "asks the provider by", "keeps in", "compared with", "install")
    return table(heads, rows)
