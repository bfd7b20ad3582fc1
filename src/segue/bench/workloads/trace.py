"""Reads recorded sessions of real agents, in the same form as generated ones.

A trace is a file of JSON lines, one message per line, packed with gzip if its name ends with `.gz`. A request has the
fields `dir` ("client->server"), `transport` ("http"), `seq`, `method`, `path`, `headers` (pairs) and `body` (the JSON
text). An answer has `re` (the `seq` that it answers), `response_id` and `output` (the model's output in the form of
that API). A trace has no streams; the stream of an answer is written anew from its output (`replies`). Other lines are
skipped.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segue.bench.workloads.sessions import ITEMS, news_of
from segue.http.heads import Line, RequestHead
from segue.testing.recorded_session import RecordedSession, RecordedTurn
from segue.testing.replies import Api, Json, ReplyContext, make_reply

_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})
_APIS: Mapping[str, Api] = {"/responses": "responses", "/chat/completions": "chat", "/messages": "messages"}
_NOTHING: Mapping[Api, object] = {"responses": [], "chat": {"content": ""}, "messages": [], "gemini": []}
_CREATED_AT = 1795382357


class TraceError(ValueError):
    """The file is not a trace that can be played."""


def read_trace(path: Path) -> RecordedSession:
    """Read the HTTP requests of a trace and their answers.

    Raises:
        TraceError: there is no request in it, or one of an unknown API, or requests of more than one.
    """
    records = _records(path)
    answers = {record["re"]: record for record in records if "re" in record and "output" in record}
    turns: list[RecordedTurn] = []
    before: list[Json] = []  # bodies so far
    apis: set[Api] = set()
    for record in records:
        if record.get("dir") != "client->server" or record.get("transport") != "http" or not record.get("body"):
            continue
        api = _api(record["path"])
        apis.add(api)
        turns.append(_turn(api, record, answers.get(record.get("seq"), {}), before))
        before.append(json.loads(record["body"]))
    if len(apis) != 1:
        raise TraceError(f"{path} has HTTP requests of {len(apis)} APIs; it must be those of one")
    (api,) = apis
    streamed = bool(before[-1].get("stream")) or (api == "gemini" and b"stream" in turns[-1].head.target)
    return RecordedSession(kind=path.name, api=api, streamed=streamed, transport="http", turns=tuple(turns))


def _records(path: Path) -> list[Json]:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [json.loads(line) for line in raw.splitlines() if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise TraceError(f"{path} is not a file of JSON lines: {error}") from error


def _api(target: str) -> Api:
    path = target.partition("?")[0]
    for end, api in _APIS.items():
        if path.endswith(end):
            return api
    if "enerateContent" in path:
        return "gemini"
    raise TraceError(f"{target!r} is of no known API")


def _turn(api: Api, record: Json, answer: Json, before: list[Json]) -> RecordedTurn:
    body = json.loads(record["body"])
    identity = answer.get("response_id") or f"id_{record.get('seq')}"
    seed = f"trace:{record.get('seq')}"
    asked = ReplyContext(request=body, identity=identity, created_at=_CREATED_AT, seed=seed)
    lines = (Line(name.encode(), value.encode()) for name, value in record["headers"])
    kept = tuple(line for line in lines if line.name.lower() not in _FRAMING)
    same = next((other for other in reversed(before) if _begins_like(api, body, other)), None)
    data = record["body"].encode()
    return RecordedTurn(
        head=RequestHead(record["method"].encode(), record["path"].encode(), kept),
        body=data,
        reply=make_reply(api, answer.get("output") or _NOTHING[api], asked),
        news=data if same is None else news_of(api, body[ITEMS[api]], same[ITEMS[api]]),
    )


def _begins_like(api: Api, body: Json, other: Json) -> bool:
    """Tell whether two requests are of one conversation; an agent may hold several, for titles or sub-agents."""
    ours, theirs = [_unmarked(one.get(ITEMS[api], [])[:1]) for one in (body, other)]
    return bool(ours) and ours == theirs


def _unmarked(item: Any) -> Any:  # noqa: ANN401 - any JSON
    """Drop cache markers and write text content in its long form, since agents change both between requests."""
    if isinstance(item, list):
        return [_unmarked(one) for one in item]
    if not isinstance(item, dict):
        return item
    kept = {key: _unmarked(value) for key, value in item.items() if key != "cache_control"}
    if isinstance(kept.get("content"), str):
        kept["content"] = [{"type": "text", "text": kept["content"]}]
    return kept
