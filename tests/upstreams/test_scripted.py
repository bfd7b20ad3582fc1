"""The scripted model: it keeps the contract of an upstream, plays what it was given, and fails loudly otherwise."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from segue.history.chains import History, Turn
from segue.protocol.events import Ended, Event
from segue.protocol.items import calls_of, key_of, parse_input, user_message
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.protocol.responses import Failure, encode_echo, usage
from segue.protocol.turns import Finished, TurnStream
from segue.testing.protocol_checker import StreamChecker, parse_json
from segue.testing.store_conformance import sample_id
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.scripted import (
    MAX_TASK_BYTES,
    CallTool,
    EndItem,
    Fail,
    Refuse,
    Say,
    ScriptedTurn,
    ScriptedUpstream,
    ScriptError,
    Truncate,
    Wait,
    call,
    say,
)

ID = sample_id("turn")
ECHO = encode_echo(Settings(model="scripted"), store=True)
HI = user_message("hi")
CALL = b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}'
ANSWER = b'{"type":"function_call_output","call_id":"c1","output":"done"}'


def request(*items: bytes, parent: Turn | None = None) -> UpstreamRequest:
    return UpstreamRequest("scripted", ID, "alice", History(parent, items or (HI,)), Settings(model="scripted"))


def parent(*items: bytes) -> Turn:
    return Turn(
        id=sample_id("parent"), parent=None, input=items, output=(), calls=calls_of(items), stored=True, expires_at=None
    )


async def batches(upstream: ScriptedUpstream, asked: UpstreamRequest | None = None) -> list[list[Event | Ended]]:
    return [list(batch) async for batch in upstream.stream(asked or request())]


async def play(upstream: ScriptedUpstream, asked: UpstreamRequest | None = None) -> Finished:
    """Run one turn to its end, checking its stream as a client would see it."""
    stream, checker = TurnStream(ID, None, ECHO, 100), StreamChecker("sse")
    *events, ended = [event for batch in await batches(upstream, asked) for event in batch]
    assert isinstance(ended, Ended)
    fed = stream.feed([event for event in events if isinstance(event, Event)])
    finished = stream.close(ended, 101)
    for event in [*stream.open(), *fed, finished.terminal]:
        checker.feed(parse_json(event.whole().decode()))
    checker.finish()
    return finished


def texts(finished: Finished) -> list[Any]:
    """Return the text or the arguments of each output item."""
    items = [json.loads(item) for item in finished.output]
    return [item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"] for item in items]


async def refusal(upstream: ScriptedUpstream, asked: UpstreamRequest | None = None) -> Problem:
    with pytest.raises(Refused) as caught:
        await batches(upstream, asked)
    return caught.value.problem


# -------------------------------------------------------------------------------------------------- without a script


async def test_without_a_script_every_turn_has_the_same_answer() -> None:
    """An answer has the configured number of pieces, each of the configured size, in one batch."""
    upstream = ScriptedUpstream(deltas=3, delta_bytes=40)
    (batch,) = await batches(upstream)
    assert sum(isinstance(event, Event) and event.type == "response.output_text.delta" for event in batch) == 3
    first, second = await play(upstream), await play(upstream)
    assert first.response == second.response
    assert texts(first) == ["scripted words and more of them scripted" * 3]


@pytest.mark.parametrize(("deltas", "delta_bytes"), [(0, 24), (1, 1), (5, 0), (1, 32), (2, 1000)])
async def test_an_answer_has_the_size_that_was_asked_for(deltas: int, delta_bytes: int) -> None:
    """The configured size may be zero."""
    finished = await play(ScriptedUpstream(deltas=deltas, delta_bytes=delta_bytes))
    assert [len(text) for text in texts(finished)] == ([deltas * delta_bytes] if deltas else [])


# ------------------------------------------------------------------------------------------------------------- a task

TASK = user_message("Mend it.\n\nsegue-task: mend-a-failing-build\n")


def output_of(call_id: str, text: str) -> bytes:
    return msgspec.json.encode({"type": "function_call_output", "call_id": call_id, "output": text})


async def test_a_task_is_solved_where_the_first_message_carries_its_marker() -> None:
    """It answers with some words in pieces, and calls of the agent's tools."""
    upstream = ScriptedUpstream(delta_bytes=10)
    finished = await play(upstream, request(TASK))
    said, *arguments = texts(finished)
    assert said.startswith("I run the build to see its first error")
    assert arguments == ['{"command":"python3 build.py","time_limit_s":null}', '{"path":".","depth":null}']
    assert finished.head.usage == usage(len(TASK) // 4, (len(said) + sum(map(len, arguments))) // 4)
    (batch,) = await batches(upstream, request(TASK))
    pieces = [event for event in batch if isinstance(event, Event) and event.type == "response.output_text.delta"]
    assert len(pieces) == -(-len(said) // 10)


async def test_a_task_goes_on_the_same_way_by_id_and_by_replay() -> None:
    """What counts is the conversation: it may come in one request, or lie in the chain."""
    upstream = ScriptedUpstream()
    output = (await play(upstream, request(TASK))).output
    run, listed = (key_of(item).call_id or "" for item in output[1:])
    error = "error: sitegen/markup.py:44: this is no valid Python\n    if all(a)\nthe build failed"
    answers = (output_of(run, f"[exit status 1]\n{error}"), output_of(listed, "build.py\nsitegen/"))
    chain = Turn(
        id=sample_id("parent"), parent=None, input=(TASK,), output=output, calls=calls_of(output), stored=True,
    )  # fmt: skip
    by_id = await play(upstream, request(*answers, parent=chain))
    by_replay = await play(upstream, request(TASK, *output, *answers))
    assert texts(by_id) == texts(by_replay)
    assert (
        texts(by_id)[0] == "Line 44 of sitegen/markup.py is no valid Python: `if all(a)`. I read the lines around it."
    )


async def test_a_task_whose_call_has_no_answer_ends_and_says_so() -> None:
    """A message in place of the answers is no way on."""
    upstream = ScriptedUpstream()
    output = (await play(upstream, request(TASK))).output
    chain = Turn(
        id=sample_id("parent"), parent=None, input=(TASK,), output=output, calls=calls_of(output), stored=True,
    )  # fmt: skip
    (said,) = texts(await play(upstream, request(HI, parent=chain)))
    assert said == "I stop here, and the task is not done. My call of the tool run has no answer."


@pytest.mark.parametrize("items", [(HI, TASK), (user_message("segue-task: nothing"),), (CALL, ANSWER)])
async def test_a_marker_that_names_no_task_or_comes_later_changes_nothing(items: tuple[bytes, ...]) -> None:
    """The answer is the one that every other turn gets."""
    upstream = ScriptedUpstream()
    assert texts(await play(upstream, request(*items))) == texts(await play(upstream, request(HI)))


async def test_a_conversation_that_is_too_long_for_a_task_is_not_read() -> None:
    """A marker makes the model read everything, so it does so only where a task can be."""
    (said,) = texts(await play(ScriptedUpstream(), request(TASK, user_message("x" * MAX_TASK_BYTES))))
    assert said == "The conversation is longer than that of a task can be."


async def test_a_script_is_played_whatever_the_messages_carry() -> None:
    """A test that scripts its turns gets them."""
    assert texts(await play(ScriptedUpstream([say("a")]), request(TASK))) == ["a"]


async def test_a_paced_answer_comes_in_pieces() -> None:
    """The first batch is empty and means that the turn has begun."""
    upstream = ScriptedUpstream(deltas=2, pace_s=1e-6)
    sizes = [len(batch) for batch in await batches(upstream)]
    assert sizes == [0, 3, 5]


async def test_tokens_are_counted_by_length() -> None:
    """A token is four characters; with a script, the whole history is counted."""
    asked = request(HI, parent=parent(CALL))
    assert (await play(ScriptedUpstream(deltas=1, delta_bytes=8), asked)).head.usage == usage(len(HI) // 4, 2)
    whole = usage((len(HI) + len(CALL)) // 4, 2)
    assert (await play(ScriptedUpstream([say("12345678")]), asked)).head.usage == whole


async def test_a_prefill_counts_what_it_was_sent_and_makes_no_turn() -> None:
    """Without a script it counts the new items; with one it counts the whole history and records the request."""
    asked = request(HI, parent=parent(CALL))
    plain, strict = ScriptedUpstream(), ScriptedUpstream([say("a")])
    assert await plain.prefill(asked) == usage(len(HI) // 4, 0)
    assert await strict.prefill(asked) == usage((len(HI) + len(CALL)) // 4, 0)
    assert (plain.prefilled, strict.prefilled, strict.requests, strict.started) == ([], [asked], [], 0)
    assert texts(await play(strict, asked)) == ["a"]


# ----------------------------------------------------------------------------------------------------- with a script


@pytest.mark.parametrize(
    ("turn", "status", "expected"),
    [
        (say("a", "b"), "completed", ["ab"]),
        (call("c1", "f", '{"x":1}'), "completed", ['{"x":1}']),
        (
            ScriptedTurn((Say(("a",)), CallTool("c1", "f"), CallTool("c2", "g"), Say(("b",)))),
            "completed",
            ["a", "{}", "{}", "b"],
        ),
        (ScriptedTurn((Say(("a",)), EndItem(), EndItem(), Say(("b",)))), "completed", ["a", "b"]),
        (ScriptedTurn(()), "completed", []),
        (ScriptedTurn((Say(("half",)), Truncate())), "incomplete", ["half"]),
        (ScriptedTurn((Say(("half",)), Fail())), "failed", ["half"]),
        (ScriptedTurn((Fail(),)), "failed", []),
    ],
)
async def test_a_scripted_turn_is_played(turn: ScriptedTurn, status: str, expected: list[str]) -> None:
    """The steps are played in order, and the stream breaks no rule of the protocol."""
    upstream = ScriptedUpstream([turn])
    finished = await play(upstream)
    assert (finished.status, texts(finished)) == (status, expected)
    upstream.assert_done()


async def test_an_end_says_what_the_script_says() -> None:
    """A failure has its code and message, a truncation its reason."""
    upstream = ScriptedUpstream(
        [ScriptedTurn((Fail("rate_limit_exceeded", "Slow down."),)), ScriptedTurn((Truncate("content_filter"),))]
    )
    assert (await play(upstream)).head.error == Failure("rate_limit_exceeded", "Slow down.")
    details = (await play(upstream)).head.incomplete_details
    assert details is not None
    assert details.reason == "content_filter"


async def test_turns_are_played_in_order_and_requests_kept() -> None:
    """A test can inspect the requests."""
    upstream = ScriptedUpstream([say("a"), say("b")])
    first, second = request(HI), request(user_message("ho"))
    assert [texts(await play(upstream, asked)) for asked in (first, second)] == [["a"], ["b"]]
    assert upstream.requests == [first, second]
    assert (upstream.started, upstream.cancelled) == (2, 0)


async def test_a_refusal_comes_before_anything_began() -> None:
    """A provider does the same with an HTTP error."""
    problem = Problem("server_overloaded", "Too many requests.")
    upstream = ScriptedUpstream([ScriptedTurn((Refuse(problem),)), say("b")])
    assert await refusal(upstream) == problem
    assert (upstream.started, upstream.requests) == (0, [])
    assert texts(await play(upstream)) == ["b"]
    upstream.assert_done()


async def test_a_turn_waits_where_it_is_told_to() -> None:
    """The events before the wait have already left."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(gate), Say(("b",))))])
    stream = upstream.stream(request())
    assert len(await anext(stream)) == 3
    rest = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not rest.done()
    gate.set()
    assert isinstance((await rest)[-1], Ended)
    assert [batch async for batch in stream] == []
    assert upstream.cancelled == 0


async def test_a_turn_that_is_closed_early_counts_as_cancelled() -> None:
    """The turn stops at once, and the next one is played from its beginning."""
    upstream = ScriptedUpstream([ScriptedTurn((Say(("a",)), Wait(asyncio.Event()))), say("b")])
    stream = upstream.stream(request())
    await anext(stream)
    await stream.aclose()
    assert (upstream.started, upstream.cancelled) == (1, 1)
    assert texts(await play(upstream)) == ["b"]


async def test_a_turn_whose_end_was_taken_is_not_cancelled() -> None:
    """No consumer asks for more after the `Ended`."""
    upstream = ScriptedUpstream([say("a")])
    stream = upstream.stream(request())
    await anext(stream)
    await stream.aclose()
    assert (upstream.started, upstream.cancelled) == (1, 0)


# -------------------------------------------------------------------------------------------------------- strictness


async def test_more_turns_than_scripted_are_refused_and_remembered() -> None:
    """A client may ignore the error; `assert_done` does not."""
    upstream = ScriptedUpstream([])
    problem = await refusal(upstream)
    assert problem == Problem("upstream_error", "The scripted model did not expect this request: the script is over")
    with pytest.raises(ScriptError, match="the script is over"):
        upstream.assert_done()


async def test_fewer_turns_than_scripted_are_noticed() -> None:
    """`assert_done` says how many are left."""
    upstream = ScriptedUpstream([say("a"), say("b")])
    await play(upstream)
    with pytest.raises(ScriptError, match="1 scripted turns were never asked for"):
        upstream.assert_done()


async def test_a_script_may_check_what_it_is_asked() -> None:
    """The message of a failed check reaches the client and the test."""

    def check(asked: UpstreamRequest) -> None:
        assert asked.settings.tools, "tools were lost"

    upstream = ScriptedUpstream([ScriptedTurn((Say(("a",)),), check)])
    assert "tools were lost" in (await refusal(upstream)).message
    with pytest.raises(ScriptError, match="tools were lost"):
        upstream.assert_done()


async def test_a_refusal_in_the_middle_is_a_mistake_in_the_script() -> None:
    """A turn that has begun can only fail."""
    upstream = ScriptedUpstream([ScriptedTurn((Say(("a",)), Refuse(Problem("server_error", "x"))))])
    with pytest.raises(ScriptError, match="can only be the first step"):
        await batches(upstream)


async def test_an_output_without_its_call_is_refused_as_by_every_provider() -> None:
    """The call may be in an earlier turn."""
    upstream = ScriptedUpstream([say("a"), say("b"), say("c")])
    for orphan in (request(ANSWER), request(ANSWER, CALL), request(HI, parent=parent(ANSWER))):
        assert "answers the call 'c1', which no item before it makes" in (await refusal(upstream, orphan)).message
    for paired in (request(CALL, ANSWER), request(ANSWER, parent=parent(CALL)), request(CALL, HI, ANSWER)):
        assert (await play(upstream, paired)).status == "completed"


@pytest.mark.parametrize(
    "item",
    [b'{"type":null,"role":"user","content":"x"}', b'{"role":"user","content":"x"}', b'{"type":"x","call_id":null}'],
)
async def test_every_item_that_is_accepted_is_understood(item: bytes) -> None:
    """An item may leave out its type or call_id."""
    assert not isinstance(parse_input(b"[" + item + b"]"), Problem)
    assert (await play(ScriptedUpstream([say("a")]), request(item))).status == "completed"


@pytest.mark.parametrize("steps", [(Say(("hi",)),), (Say(("hi",)), Truncate()), (Say(("hi",)), Fail())])
async def test_a_field_that_no_api_has_is_named_in_a_warning(steps: tuple[Say | Truncate | Fail, ...]) -> None:
    """It may be misspelt. One that some API has is simply of no use here."""
    extra = {"temperatur": msgspec.Raw(b"0.5"), "seed": msgspec.Raw(b"1"), "user": msgspec.Raw(b'"ann"')}
    asked = msgspec.structs.replace(request(), settings=Settings(model="scripted", temperature=0.5, extra=extra))
    batches = [batch async for batch in ScriptedUpstream([ScriptedTurn(steps)]).stream(asked)]
    ended = batches[-1][-1]
    assert isinstance(ended, Ended)
    assert ended.warnings == ("'temperatur' was left out: this API has nothing like it.",)


@pytest.mark.parametrize("script", [None, [say("hi")]])
async def test_it_counts_what_its_usage_says(script: list[ScriptedTurn] | None) -> None:
    """And plays nothing for it."""
    one = ScriptedUpstream(script)
    count = await one.count_input(request(HI, HI))
    assert one.started == 0
    ended = [batch async for batch in one.stream(request(HI, HI))][-1][-1]
    assert isinstance(ended, Ended)
    assert ended.usage is not None
    assert ended.usage.input_tokens == count > 0
