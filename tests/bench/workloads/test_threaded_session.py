"""A session with message threads says what the recorded one says, and says it once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.bench.workloads.sessions import make_session
from segue.bench.workloads.threaded_session import threaded

Json = dict[str, Any]

SESSION = make_session("claude-code", turns=4)
BODIES = [json.loads(turn.body) for turn in SESSION.turns]


@pytest.mark.parametrize("again", [False, True])
def test_a_thread_has_each_message_of_the_client_once_and_each_setting(again: bool) -> None:
    bodies = [json.loads(turn.body) for turn in threaded(SESSION, settings_again=again).turns]
    said = [message for body in bodies for message in body["messages"]]
    assert bodies[0]["messages"] == BODIES[0]["messages"]
    of_client = [message for message in BODIES[-1]["messages"] if message["role"] != "assistant"]
    assert [_words(message) for message in said] == [_words(message) for message in of_client]
    assert [body["thread"]["type"] for body in bodies] == ["create", *["continue"] * 3]
    kept = {"system", "tools"}
    for body, whole in zip(bodies[1:], BODIES[1:], strict=True):
        assert body.keys() - {"thread"} == (whole.keys() if again else whole.keys() - kept)
        assert all(body[name] == whole[name] for name in body.keys() - {"thread", "messages"})


def test_each_request_asks_for_the_beta() -> None:
    for turn, threads in zip(SESSION.turns, threaded(SESSION, settings_again=False).turns, strict=True):
        lines = {line.name: line.value for line in threads.head.lines}
        assert lines.pop(b"anthropic-beta").endswith(b",message-threads-2026-08-12")
        assert lines == {line.name: line.value for line in turn.head.lines if line.name != b"anthropic-beta"}


def _words(message: Json) -> list[Json]:
    """The blocks of a message, without the marks of caches, which move from turn to turn; a text is a block too."""
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in blocks]
