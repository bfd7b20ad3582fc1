"""An agent knows at every byte of a reply whether it could ask again."""

from __future__ import annotations

import pytest

from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.reply_progress import ReplyProgress
from segue.bench.workloads.sessions import make_session


def stages(kind: AgentKind, turn: int) -> list[tuple[str, bool]]:
    """Return the progress after each event, each value once."""
    session = make_session(kind, turns=2)
    reply, seen = ReplyProgress(session.api), list[tuple[str, bool]]()
    for event in session.turns[turn].reply.events:
        for at in range(0, len(event), 7):  # however it is cut
            reply.feed(event[at : at + 7])
        if not seen or seen[-1] != (reply.progress, reply.finished):
            seen.append((reply.progress, reply.finished))
    return seen


@pytest.mark.parametrize(
    ("kind", "turn"), [("claude-code", 0), ("claude-code", 1)], ids=["up to a tool call", "up to the last text"]
)
def test_a_messages_stream(kind: AgentKind, turn: int) -> None:
    assert stages(kind, turn) == [("nothing", False), ("thought", False), ("answer", False), ("answer", True)]


def test_a_responses_stream_is_finished_by_its_last_event_alone() -> None:
    assert stages("codex", 0) == [("answer", False), ("answer", True)]


def test_without_thinking_a_block_counts_when_it_is_whole() -> None:
    reply = ReplyProgress("messages")
    reply.feed(b': comment\n\ndata: [DONE]\n\ndata: {"type":"content_block_start","content_block":{"type":"text"}}\n\n')
    assert reply.progress == "nothing"
    reply.feed(b'data: {"type":"content_block_stop"}\n\n')
    assert (reply.progress, reply.finished) == ("answer", False)
