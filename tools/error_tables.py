"""The tables of errors in the documentation: every code with all its messages, and what providers' refusals become.

Messages are found where they are written, in the source; what a refusal becomes is found by reading one. Not here: the
parts that come from other code (`generate_docs`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from segue.gateway.api.client_api import MESSAGES
from segue.gateway.error_mapping import RESPONSES, reply_of
from segue.protocol.problems import Code, Problem
from segue.upstreams.failures import read_refusal
from tools.markdown import code, table

SOURCE = Path(__file__).resolve().parents[1] / "src" / "segue"

#: Statuses of providers that become a code each; what the provider says is in the message.
_REFUSALS = (400, 401, 402, 404, 429, 500, 503, 504)
_REFUSAL = '{"error":{"message":"…"}}'.encode()


def errors() -> str:
    """Write the table of problems: what each is told as, and every message that the code gives it."""
    messages = problem_messages(SOURCE)
    for status in _REFUSALS:
        problem = read_refusal("…", status, {}, _REFUSAL, clients_key=True, now=0.0).problem
        messages.setdefault(problem.code, []).append(problem.message.replace(f" {status}", " …"))
    rows = []
    for name in get_args(Code):
        reply = reply_of(Problem(name, ""), RESPONSES)
        closes, retry = "yes" if reply.closes else "", "" if reply.repeat == "free" else "`false`"
        told = "<br>".join(sorted(messages.get(name, ())))
        rows.append((code(name), _statuses(Problem(name, "")), code(reply.kind), closes, retry, told))
    return table(("code", "status", "type", "closes", "`x-should-retry`", "messages"), rows)


def _statuses(problem: Problem) -> str:
    """Write the status of a problem of a turn: in the Responses API, and at the other doors where it differs."""
    at_responses, elsewhere = reply_of(problem, RESPONSES).status, reply_of(problem, MESSAGES).status
    return f"{at_responses}" if at_responses == elsewhere else f"{at_responses} or {elsewhere}"


#: What providers refuse with, in the words of some: a label, the status and the body.
_REFUSED: tuple[tuple[str, int, bytes], ...] = (
    ("400, 413, 422, or another 4xx", 400, b""),
    ("the same, because the conversation is too long", 400, b'{"error":{"code":"context_length_exceeded"}}'),
    ("401, 403", 401, b""),
    ("402, or 429 because a quota is used up", 429, b'{"error":{"code":"insufficient_quota"}}'),
    ("404", 404, b""),
    ("429", 429, b""),
    ("503, or 529", 529, b'{"type":"error","error":{"type":"overloaded_error"}}'),
    ("408", 408, b""),
    ("504", 504, b""),
    ("500, 502, or another 5xx", 500, b""),
    ("a success that is no stream", 200, b"{}"),
)


def provider_errors() -> str:
    """Write the table of what becomes of a provider's refusals."""
    rows = []
    for said, status, body in _REFUSED:
        told = [read_refusal("…", status, {}, body, clients_key=passed, now=0.0) for passed in (False, True)]
        cells = [f"{_statuses(one.problem)} {code(one.problem.code)}" for one in told]
        cell = cells[0] if cells[0] == cells[1] else f"{cells[0]}; with `pass_key` {cells[1]}"
        rows.append((said, cell, "yes" if told[0].transient else ""))
    return table(("the provider says", "the client gets", "tried again"), rows)


def problem_messages(source: Path) -> dict[str, list[str]]:
    """Find the messages of each problem where they are written; `…` stands for what varies."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not re.search(r"\b(?:Problem|Failure)\(", text):
            continue
        tree = ast.parse(text)
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        constants = [node for node in tree.body if isinstance(node, ast.Assign)]
        for scope in (*functions, *constants):
            for name, message in _problems(scope):
                found.setdefault(name, {})[message] = None
    return {name: list(messages) for name, messages in found.items()}


def _problems(scope: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield the code and message of each `Problem(…)` and `Failure(…)` that is written in `scope`."""
    names: dict[str, ast.expr] = {}
    for node in sorted(_nodes(scope), key=lambda node: node.lineno):  # so that a name is what it was set to last
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = value
            case ast.Call(func=ast.Name(id="Problem" | "Failure"), args=[ast.Constant(value=str(name)), message, *_]):
                yield from ((name, text) for text in _texts(message, names) if re.search(r"[a-z]{2}", text))
            case _:
                pass


def _nodes(scope: ast.stmt) -> Iterator[ast.stmt | ast.expr]:
    return (node for node in ast.walk(scope) if isinstance(node, ast.stmt | ast.expr))


def _texts(node: ast.expr, names: Mapping[str, ast.expr]) -> list[str]:
    """Return what a string expression can say."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return ["".join(map(_piece, values))]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, names), *_texts(orelse, names)]
        case ast.Name(id=name) if name in names:
            return _texts(names[name], {})
        case _:
            return []


def _piece(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=ast.Call(func=ast.Name(id="quoted"))):
            return "'…'"
        case _:
            return "…"
