"""The player behaves on a bad network as the rules of its agent say, and counts no reply that is not whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from segue.bench.arms.player import WrongReplyError
from segue.bench.arms.retrying_player import RetryingPlayer, TurnFate
from segue.bench.arms.tls import Authority
from segue.bench.workloads.retry_rules import RULES, Budget, RetryRules
from segue.bench.workloads.sessions import make_session
from segue.http.heads import Line
from segue.testing.provider import Answer, ReceivedRequest, answer_with, provided

SESSION = make_session("claude-code", turns=2)
EVENTS = SESSION.turns[0].reply.events
WHOLE = answer_with(SESSION.turns[0].reply, streamed=True)
NEXT = answer_with(SESSION.turns[1].reply, streamed=True)
#: The rules without waits, and with time-outs that a test can afford.
QUICK = replace(
    RULES["claude-code"],
    timeout_s=5.0,
    idle_s=5.0,
    budgets={
        "usual": Budget(retries=2),
        "quick": Budget(retries=2),
        "once": Budget(retries=1),
        "resume": Budget(retries=1),
    },
)


def upto(kind: bytes) -> int:
    """Return how many bytes of the reply come before its first event of a kind, and some of that event."""
    events = list(EVENTS)
    at = next(number for number, event in enumerate(events) if kind in event)
    return sum(map(len, events[:at])) + 5


async def play(answers: Sequence[Answer], rules: RetryRules = QUICK, *, turns: int = 1) -> tuple[list[TurnFate], int]:
    """Play turns against a provider with these answers; return their fates, and how many connections there were."""

    def script(request: ReceivedRequest) -> Answer:
        return answers[request.number]

    async with (
        provided(script) as provider,
        RetryingPlayer(SESSION, rules, provider.host, provider.port) as player,
    ):
        fates = [await player.turn(number) for number in range(turns)]
        assert len(provider.requests) == sum(fate.requests for fate in fates)
        return fates, provider.connections


def told(fate: TurnFate) -> list[tuple[str, str]]:
    return [(one.failure, one.progress) for one in fate.failed]


@pytest.mark.parametrize(("agent", "connections"), [("claude-code", 1), ("codex", 2)])
async def test_without_trouble_each_turn_is_one_request(agent: str, connections: int) -> None:
    rules = replace(QUICK, keeps_connection=agent == "claude-code")
    fates, opened = await play([WHOLE, NEXT], rules, turns=2)
    assert [(fate.requests, fate.failed, fate.given_up) for fate in fates] == [(1, (), None)] * 2
    assert opened == connections
    first = fates[0]
    assert first.first_at is not None
    assert first.begun_at < first.first_at <= first.ended_at <= fates[1].begun_at


@pytest.mark.parametrize(
    ("answers", "failed", "given_up"),
    [
        ([Answer(cut_before_head=True), WHOLE], [("lost", "nothing")], None),
        ([replace(WHOLE, cut_after=upto(b"thinking_delta")), WHOLE], [("lost", "nothing")], None),
        ([replace(WHOLE, cut_after=upto(b"ping")), WHOLE], [("lost", "thought")], None),
        ([replace(WHOLE, cut_after=upto(b"input_json_delta")), WHOLE], [("lost", "answer")], None),
        (
            [replace(WHOLE, cut_after=upto(b"input_json_delta"))] * 2,
            [("lost", "answer")] * 2,
            "retries used up",
        ),
        ([replace(WHOLE, cut_after=upto(b"message_delta"))], [], None),
        ([Answer(status=529, framing="length"), WHOLE], [("server error", "nothing")], None),
        ([Answer(status=503, framing="length")] * 3, [("server error", "nothing")] * 3, "retries used up"),
        (
            [Answer(status=502, lines=(Line(b"x-should-retry", b"false"),), framing="length")],
            [("refused", "nothing")],
            "request refused",
        ),
        ([Answer(status=400, framing="length")], [("refused", "nothing")], "request refused"),
    ],
)
async def test_failures_are_told_by_how_far_the_reply_had_come(
    answers: list[Answer], failed: list[tuple[str, str]], given_up: str | None
) -> None:
    ((fate,), _) = await play(answers)
    assert (told(fate), fate.given_up) == (failed, given_up)
    assert [one.wait_s for one in fate.failed] == [0.0] * (len(failed) - (given_up is not None)) + [None] * bool(
        given_up
    )


async def test_a_lost_connection_is_noticed_before_the_next_turn() -> None:
    fates, opened = await play([replace(WHOLE, keeps_alive=False), NEXT], turns=2)
    assert [fate.failed for fate in fates] == [(), ()]
    assert opened == 2


async def test_nobody_there_is_tried_again_and_given_up() -> None:
    async with provided(lambda _: WHOLE) as provider:
        port = provider.port
    async with RetryingPlayer(SESSION, QUICK, "127.0.0.1", port) as player:
        fate = await player.turn(0)
    assert told(fate) == [("unreachable", "nothing")] * 3
    assert (fate.requests, fate.given_up, fate.first_at) == (0, "retries used up", None)


async def test_an_unknown_certificate_is_not_tried_again() -> None:
    context = Authority().client_context()
    async with (
        provided(lambda _: WHOLE, ssl=Authority().server_context()) as provider,
        RetryingPlayer(SESSION, QUICK, provider.host, provider.port, context=context) as player,
    ):
        fate = await player.turn(0)
        assert provider.requests == []
    assert (told(fate), fate.given_up) == ([("untrusted", "nothing")], "certificate not trusted")


@pytest.mark.parametrize(
    ("hanging", "failed"),
    [
        (replace(WHOLE, before=asyncio.Event()), ("timed out", "nothing")),
        (replace(WHOLE, gates={0: asyncio.Event()}), ("stalled", "nothing")),
    ],
)
async def test_silence_is_waited_for_as_long_as_the_rules_say(hanging: Answer, failed: tuple[str, str]) -> None:
    ((fate,), _) = await play([hanging, WHOLE], replace(QUICK, timeout_s=0.05, idle_s=0.05))
    assert (told(fate), fate.given_up) == ([failed], None)


@pytest.mark.parametrize(
    "wrong", [replace(WHOLE, pieces=(b"data: {}\n\n",)), replace(WHOLE, pieces=EVENTS[:5])], ids=["other", "short"]
)
async def test_a_reply_that_is_not_the_sessions_own_is_an_error(wrong: Answer) -> None:
    with pytest.raises(WrongReplyError):
        await play([wrong])
