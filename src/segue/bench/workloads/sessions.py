"""Generated agent sessions: the requests and replies of one task, in the shape and size of real agents' traffic.

    session = make_session("codex", turns=11, seed=1)
    for turn in session.turns:
        turn.head, turn.body    the request (the transport adds Host and the framing)
        turn.reply              the provider's reply, as a stream and as one object
        turn.news               what is new in this request, as JSON
    session.bound               a lower bound in bytes for any encoding that sends each thing once

In every turn the model says something and calls a tool, and the agent adds what the tool returned; in the last turn the
model only answers. A session depends on kind, turns, seed and task alone. The model's own words are not news in the
next request, since they came over the same path; `news` is what the agent adds. In a WebSocket session the body of a
turn is one message. Recorded sessions have the same form (`trace`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from segue.bench.workloads.clients import AgentClient, AgentKind, ModelOutput, ToolResult, ToolUse, make_client
from segue.bench.workloads.prose import ProseWriter
from segue.http.heads import RequestHead
from segue.testing.recorded_session import RecordedSession, RecordedTurn
from segue.testing.replies import Api, Json, ReplyContext, compact, make_reply

KINDS: tuple[AgentKind, ...] = get_args(AgentKind)

_MARKER = b',"cache_control":{"type":"ephemeral"}'
_CREATED_AT = 1795382357

#: The field of a request that holds the conversation, per API.
ITEMS: Mapping[Api, str] = {"responses": "input", "chat": "messages", "messages": "messages", "gemini": "contents"}


def make_session(
    kind: AgentKind,
    *,
    turns: int = 11,
    seed: int = 1,
    task: int = 0,
    after_bytes: int = 0,
    resumed_at: int | None = None,
) -> RecordedSession:
    """Generate a session. Sessions with the same seed are of the same agent and share its prompts and tools.

    `after_bytes`: leave out the turns before the first whose body is that large. `resumed_at`: the number of the turn
    at which a new WebSocket begins, with a message that has the whole conversation.
    """
    assert turns > 0, "a session has at least one turn"
    writer = ProseWriter(f"{kind}:{seed}:{task}")
    client = make_client(kind, ProseWriter(f"{kind}:{seed}"), writer)
    items, before = client.begin(), list[Json]()
    made: list[RecordedTurn] = []
    for number in itertools.count():
        socket = client.transport == "websocket"
        if number == resumed_at:
            client.replied = None
        body = client.body(items[len(before) :] if socket and number != resumed_at else items)
        said = _say(client, last=len(made) == turns - 1)
        output, echoed, call_id = client.said(said)
        identity = f"resp_{writer.hexadecimal(48)}"
        seed_of_reply = f"{kind}:{seed}:{task}:{number}"
        asked = ReplyContext(request=body, identity=identity, created_at=_CREATED_AT + 7 * number, seed=seed_of_reply)
        data = compact(body).encode()
        if made or len(data) >= after_bytes:
            head = RequestHead(b"GET" if socket else b"POST", client.target, client.lines())
            reply = make_reply(client.api, output, asked)
            news = data if not made else news_of(client.api, items, before)
            made.append(RecordedTurn(head=head, body=data, reply=reply, news=news))
        if len(made) == turns:
            break
        before, client.replied = [*items, *echoed], identity
        items = list(before)
        if said.call is not None:
            output = writer.tool_output(_output_size(writer))
            items.append(client.returned(ToolResult(call_id=call_id, name=said.call.name, output=output)))
    return RecordedSession(
        kind=kind, api=client.api, streamed=client.streamed, transport=client.transport, turns=tuple(made)
    )


def news_of(api: Api, items: Iterable[Json], before: Iterable[Json]) -> bytes:
    """Return the items that were added, as JSON, without those that the model said and without cache markers."""
    added = [item for item in list(items)[len(list(before)) :] if not _of_model(api, item)]
    return compact(added).encode().replace(_MARKER, b"") if added else b""


def _of_model(api: Api, item: Mapping[str, Any]) -> bool:
    if api == "responses" and item.get("type") in {"reasoning", "function_call"}:
        return True
    return item.get("role") in {"assistant", "model"}


def _say(client: AgentClient, *, last: bool) -> ModelOutput:
    writer = client.writer
    sealed = writer.secret(writer.random.randint(1200, 2400)) if client.seals else ""
    if last:
        return ModelOutput(text=writer.prompt(700), thought=writer.sentence(), sealed=sealed, call=None)
    talks = writer.random.random() < 0.6  # noqa: PLR2004 - not every use of a tool is announced
    text = writer.saying() if talks else ""
    return ModelOutput(text=text, thought=writer.saying(), sealed=sealed, call=_call(writer))


def _call(writer: ProseWriter) -> ToolUse:
    chosen = writer.random.random()
    if chosen < 0.45:  # noqa: PLR2004 - the mix of tools in a session
        command = f"python -m pytest -q {writer.path()} 2>&1 | tail -{writer.random.randint(20, 90)}"
        return ToolUse("bash", {"command": command})
    if chosen < 0.75:  # noqa: PLR2004 - as above
        return ToolUse("read", {"path": f"{writer.folder}/{writer.path()}"})
    if chosen < 0.85:  # noqa: PLR2004 - as above
        return ToolUse("grep", {"pattern": writer.name(), "path": writer.folder})
    old, new = writer.source(160), writer.source(writer.random.randint(150, 600))
    return ToolUse("edit", {"path": f"{writer.folder}/{writer.path()}", "old_text": old, "new_text": new})


def _output_size(writer: ProseWriter) -> int:
    return int(writer.random.triangular(250, 2600, 700))
