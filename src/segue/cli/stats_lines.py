"""What a sidecar has counted, as lines of text that fit a screen: link, queue, saving, latest errors and requests.

Pure: the same report and width give the same lines. A narrow screen gets fewer columns, and never a figure that is cut.
Not here: asking a sidecar, and drawing anew (`stats_view`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from segue.sidecar.diagnosis.check_results import one_line
from segue.sidecar.stats import ExchangeSummary, SidecarReport, saved_share

_COLOURS: Mapping[str, str] = MappingProxyType(
    {"up": "green", "connecting": "yellow", "away": "yellow", "refused": "red"}
)
_LATEST_ERRORS = 3
_REASON_LENGTH = 200
_GAP = 2
_NO_BREAK = "\N{NO-BREAK SPACE}"
#: A path with less room says nothing.
_LEAST_PATH = 16


class _RecentColumn(NamedTuple):
    title: str
    width: int
    cell: Callable[[ExchangeSummary], str]


_STATUS = _RecentColumn("status", 6, lambda one: "" if one.status is None else str(one.status))
_OUTCOME = _RecentColumn("outcome", 9, lambda one: one.outcome)
_BODY = _RecentColumn("body", 9, lambda one: size_of(one.body_bytes))
_SENT = _RecentColumn("sent", 9, lambda one: size_of(one.document_bytes))
_REPLY = _RecentColumn("reply", 9, lambda one: size_of(one.reply_bytes))
_SECONDS = _RecentColumn("seconds", 8, lambda one: f"{one.time_s:.2f}")
_COLUMNS = (_STATUS, _OUTCOME, _BODY, _SENT, _REPLY, _SECONDS)
#: What a narrow screen does without, first to last.
_DISPENSABLE = (_REPLY, _SECONDS, _STATUS)


def render(report: SidecarReport, width: int | None) -> list[Text]:
    """Return the lines of a report, none of them wider than `width`; None: as wide as they are."""
    lines = [_link(report, width)]
    saved = saving(msgspec.structs.replace(report, reason="")).removeprefix("segue: ")  # the reason is above
    for text in (one_line(report.reason), _queue(report), one_line(saved), _bases(report)):
        style = "bold" if text.endswith("saved)") else ""
        lines += [Text(line, style=style) for line in _wrapped(text, width)]
    lines += map(Text, _bytes(report))
    lines += [Text(line, style="red") for line in _errors(report, width)]
    lines += _recent(report.recent, width)
    return lines


def saving(report: SidecarReport) -> str:
    """Return one line that says how much a sidecar saved, and what did not go through it."""
    if not report.exchanges:
        return "segue: no request came through here"
    carried = report.tunnel_bytes_up + report.tunnel_bytes_down
    plain = report.agent_bytes_in + report.agent_bytes_out
    line = f"segue: {report.exchanges} {'request' if report.exchanges == 1 else 'requests'}"
    failed = sum(report.failed.values())
    if failed:
        why = ", ".join(f"{count} {code}" if count < failed else code for code, count in report.failed.items())
        line += f", {failed} failed ({why}{_no_link(report.reason)})"
    if report.direct:
        line += f", {report.direct} went straight to the provider"
    if not plain:
        return f"{line}; none was carried"
    share = saved_share(report)
    told = f"{share:.1%} saved" if share >= 0 else f"{-share:.1%} more"
    return f"{line}: {size_of(carried)} on the link instead of {size_of(plain)} ({told})"


def size_of(count: int) -> str:
    """Return a number of bytes as people read it."""
    kilo, mega = 1000, 1_000_000
    if count < kilo:
        return f"{count} B"
    return f"{count / kilo:,.1f} KB" if count < mega else f"{count / mega:,.1f} MB"


def _no_link(reason: str) -> str:
    """Say why there is no link, in one short line: the words may be a gateway's."""
    line = one_line(reason, _REASON_LENGTH).rstrip(" .")
    return f"; no link: {line}" if line else ""


def _link(report: SidecarReport, width: int | None) -> Text:
    rtt = "" if report.rtt_s is None else f", round trip {1000 * report.rtt_s:.0f} ms"
    state = one_line(report.link)
    room = None if width is None else width - cell_len(f"link {state} to {rtt}")
    return Text.assemble(
        "link ", (state, _COLOURS.get(state, "white")), f" to {_fitted(one_line(report.gateway), room)}{rtt}"
    )


def _queue(report: SidecarReport) -> str:
    counts = (
        (report.active, "under way"),
        (report.queued, "waiting to be sent"),
        (report.parked, "parked"),
        (report.attached, "attached"),
        (report.resumes, "resumes"),
    )
    return ", ".join(f"{count} {what}".replace(" ", _NO_BREAK) for count, what in counts)


def _bases(report: SidecarReport) -> str:
    return f"bases: {report.base_hits} used, {report.base_misses} missed, {report.without_base} bodies without one"


def _bytes(report: SidecarReport) -> Iterator[str]:
    yield f"{'':8}{'up':>12}{'down':>12}"
    yield f"{'agents':8}{size_of(report.agent_bytes_in):>12}{size_of(report.agent_bytes_out):>12}"
    yield f"{'tunnel':8}{size_of(report.tunnel_bytes_up):>12}{size_of(report.tunnel_bytes_down):>12}"


def _errors(report: SidecarReport, width: int | None) -> Iterator[str]:
    """Yield the latest failures, the newest first."""
    failed = [one for one in reversed(report.recent) if one.error][:_LATEST_ERRORS]
    if failed:
        yield "latest errors"
    for one in failed:
        code = one_line(one.error)
        yield f"  {code}  {_fitted(one_line(one.path), None if width is None else width - cell_len(code) - 4)}"


def _recent(recent: Sequence[ExchangeSummary], width: int | None) -> Iterator[Text]:
    """Yield the latest requests as a table, the newest first."""
    if not recent:
        return
    columns = _columns(width)
    taken = sum(column.width + _GAP for column in columns)
    longest = max(cell_len(one_line(one.path)) for one in recent)
    room = max(longest, len("path")) if width is None else min(longest, width - taken)
    yield Text(_row("path", [column.title for column in columns], columns, room), style="bold")
    for one in reversed(recent):
        path = _fitted(one_line(one.path), room)
        style = "red" if one.outcome in {"failed", "cut"} else ""
        yield Text(_row(path, [column.cell(one) for column in columns], columns, room), style=style)


def _columns(width: int | None) -> Sequence[_RecentColumn]:
    """Return the columns for which there is room beside a path."""
    columns = list(_COLUMNS)
    for column in _DISPENSABLE:
        if width is None or sum(one.width + _GAP for one in columns) + _LEAST_PATH <= width:
            break
        columns.remove(column)
    return columns


def _row(path: str, cells: Sequence[str], columns: Sequence[_RecentColumn], room: int) -> str:
    rest = (f"{one_line(cell):>{column.width + _GAP}}" for cell, column in zip(cells, columns, strict=True))
    return set_cell_size(path, room) + "".join(rest)


def _wrapped(text: str, width: int | None) -> list[str]:
    whole = [text] if text else []
    lines = whole if width is None else textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _fitted(text: str, room: int | None) -> str:
    """Return a text that takes no more room: its end, which says most of a path."""
    if room is None or cell_len(text) <= room:
        return text
    while text and cell_len(text) > room - 1:
        text = text[1:]
    return f"…{text}" if room > 0 else ""
