"""A recorded session is played like a generated one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from segue.bench.arms.player import play
from segue.bench.workloads.sessions import make_session
from segue.bench.workloads.trace import TraceError, read_trace
from segue.testing.provider import provided, replying
from segue.testing.recorded_session import RecordedSession


def record(session: RecordedSession, path: Path) -> None:
    """Write a session as a trace, in the way that recorders do."""
    lines: list[object] = [{"dir": "client->server", "transport": "ws-upgrade", "seq": 0, "headers": []}]
    for number, turn in enumerate(session.turns):
        headers = [[line.name.decode(), line.value.decode()] for line in turn.head.lines]
        request = {"seq": 2 * number + 1, "dir": "client->server", "transport": "http", "method": "POST"}
        more = {"path": turn.head.target.decode(), "headers": [["host", "h"], *headers, ["content-length", "1"]]}
        whole = json.loads(turn.reply.whole)
        output = whole["choices"][0]["message"] if session.api == "chat" else whole.get("output", whole.get("content"))
        answer = {"dir": "server->client", "re": 2 * number + 1, "response_id": whole["id"], "output": output}
        lines += [{**request, **more, "body": turn.body.decode()}, answer]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.mark.parametrize(
    ("kind", "name"), [("codex", "a.jsonl"), ("claude-code", "b.jsonl.gz"), ("qwen-code", "c.jsonl")]
)
async def test_a_recorded_session_is_the_generated_one(kind: str, name: str, tmp_path: Path) -> None:
    made = make_session(kind, turns=4)  # type: ignore[arg-type]  # the parameters are kinds
    record(made, tmp_path / name)
    read = read_trace(tmp_path / name)
    assert (read.kind, read.api, read.streamed, read.transport) == (name, made.api, True, "http")
    assert [turn.body for turn in read.turns] == [turn.body for turn in made.turns]
    assert [turn.news for turn in read.turns] == [turn.news for turn in made.turns]
    assert read.bound == made.bound
    assert all(b"host" not in [line.name for line in turn.head.lines] for turn in read.turns)
    for ours, theirs in zip(read.turns, made.turns, strict=True):
        assert len(b"".join(ours.reply.events)) == pytest.approx(len(b"".join(theirs.reply.events)), rel=0.2)
    async with provided(replying(read)) as provider:
        await play(read, provider.host, provider.port)


def test_a_second_conversation_is_all_news(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    record(make_session("pi", turns=2), path)
    title = {"model": "m", "messages": [{"role": "user", "content": "Give this a title."}]}
    line = {"seq": 99, "dir": "client->server", "transport": "http", "method": "POST", "path": "/v1/messages"}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "headers": [], "body": json.dumps(title)}) + "\n")
    read = read_trace(path)
    assert read.turns[-1].news == read.turns[-1].body
    assert json.loads(read.turns[-1].reply.whole)["content"] == []


@pytest.mark.parametrize("text", [b"", b"not json\n", b'{"dir":"client->server"}\n', b"\xff\n"])
def test_says_what_is_no_trace(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(text)
    with pytest.raises(TraceError):
        read_trace(path)
    with pytest.raises(TraceError):
        read_trace(tmp_path / "missing.jsonl.gz")
