"""A session is played as its agent would, and a reply that is not that of the session is an error."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.arms.player import PlayedTurn, WrongReplyError, play
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.testing.provider import (
    ACCEPTED,
    Answer,
    MessageScript,
    Script,
    SocketAnswer,
    answer_with,
    provided,
    replying,
    replying_to_messages,
)


@pytest.mark.parametrize("kind", ["pi", "openai-agents", "codex-ws"])
async def test_each_turn_is_told_before_the_next_is_sent(kind: AgentKind) -> None:
    session = make_session(kind, turns=3)
    told: list[tuple[int, PlayedTurn, int]] = []
    async with provided(replying(session), replying_to_messages(session)) as provider:

        async def on_turn(number: int, turn: PlayedTurn) -> None:
            told.append((number, turn, len(provider.messages if kind == "codex-ws" else provider.requests)))

        played = await play(session, provider.host, provider.port, on_turn=on_turn)
        assert provider.connections == 1
    assert told == [(number, turn, number + 1) for number, turn in enumerate(played)]
    assert len(played) == 3
    assert all(0 < turn.ttft_s <= turn.time_s for turn in played)


async def test_a_reply_of_another_session_is_noticed() -> None:
    session, other = make_session("pi", turns=2), make_session("pi", turns=2, seed=2)
    async with provided(replying(other)) as provider:
        with pytest.raises(WrongReplyError, match="400"):
            await play(session, provider.host, provider.port)


@pytest.mark.parametrize("kind", ["pi", "mini-swe-agent"])
async def test_a_reply_with_one_wrong_byte_is_noticed(kind: AgentKind) -> None:
    session = make_session(kind, turns=1)
    right = answer_with(session.turns[0].reply, streamed=session.streamed)
    wrong = replace(right, pieces=(*right.pieces[:-1], right.pieces[-1].replace(b"}", b"]", 1)))
    async with provided(lambda _: wrong) as provider:
        with pytest.raises(WrongReplyError, match="bytes came that are not"):
            await play(session, provider.host, provider.port)


@pytest.mark.parametrize(
    ("script", "messages", "said"),
    [
        (lambda _: Answer(status=401, reason=b"No", pieces=(b"{}",)), None, "401 No"),
        (lambda _: ACCEPTED, lambda _: SocketAnswer(messages=(b"{}",), cut_after=0), "closed within a reply"),
        (lambda _: ACCEPTED, lambda _: SocketAnswer(messages=(b'{"wrong":1}',) * 500), "not those expected"),
    ],
)
async def test_a_socket_that_goes_wrong_is_noticed(script: Script, messages: MessageScript | None, said: str) -> None:
    session = make_session("codex-ws", turns=1)
    async with provided(script, messages) as provider:
        with pytest.raises((WrongReplyError, ConnectionResetError), match=f"{said}|reset"):
            await play(session, provider.host, provider.port)
