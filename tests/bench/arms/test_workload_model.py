"""The model of a workload says the same whatever is sent to it, token by token, at its speed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from segue.agent.tasks import task_prompt
from segue.bench.arms.workload_model import WorkloadModel
from segue.bench.workloads.conversations import make_conversation
from segue.bench.workloads.workload import Workload, read_workload
from segue.history.chains import History
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import user_message
from segue.protocol.requests import Settings
from segue.upstreams.interface import Batch, UpstreamRequest

ARTICLE = read_workload("article")


def request(*items: bytes) -> UpstreamRequest:
    identity = new_response_id(bytes(ENTROPY_BYTES))
    return UpstreamRequest("scripted", identity, "local", History(None, items), Settings(model="scripted"))


async def answered(workload: Workload, *items: bytes, tokens_s: float | None = None) -> list[Batch]:
    model = WorkloadModel(workload, tokens_s)
    await model.start()
    batches = [batch async for batch in model.stream(request(*items))]
    await model.aclose()
    assert list(model.models) == ["scripted"]
    return batches


def events(batches: Sequence[Batch]) -> list[Event]:
    return [one for batch in batches for one in batch if isinstance(one, Event)]


def end(batches: Sequence[Batch]) -> Ended:
    last = batches[-1][-1]
    assert isinstance(last, Ended)
    return last


async def test_says_text_and_calls_in_pieces_of_a_token_and_counts_them() -> None:
    conversation = make_conversation("article")
    prompt = user_message(conversation.prompt)
    batches = await answered(ARTICLE, prompt)
    assert [len(batch) > 0 for batch in batches] == [False, True, True]
    deltas = [one for one in events(batches) if one.type.endswith(".delta")]
    used = end(batches).usage
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (len(prompt) // 4, len(deltas))
    kinds = [one.type for one in events(batches) if not one.type.endswith(".delta")]
    assert kinds.count("response.output_item.done") == 2
    assert [one.sequence_number for one in events(batches)] == list(range(2, 2 + len(events(batches))))


async def test_a_result_is_answered_by_the_next_turn_and_the_last_turn_calls_nothing() -> None:
    conversation = make_conversation("article", task=1)
    (call,) = conversation.turns[8].calls
    result = b'{"type":"function_call_output","call_id":"%b","output":""}' % call.call_id.encode()
    done = [one.item for one in events(await answered(ARTICLE, result)) if one.item]
    assert len(done) == 1
    assert conversation.turns[9].text[:20].encode() in done[0]


async def test_solves_a_task_of_the_agent() -> None:
    task = read_workload("fix-a-failing-test")
    items = [one.item for one in events(await answered(task, user_message(task_prompt(task.name)))) if one.item]
    assert any(b'"function_call"' in item for item in items)


@pytest.mark.parametrize("workload", ["article", "fix-a-failing-test"])
async def test_a_conversation_that_is_none_of_its_own_fails(workload: str) -> None:
    assert end(await answered(read_workload(workload), user_message("Hello."))).status == "failed"


async def test_a_turn_after_the_last_fails() -> None:
    late = b'{"type":"function_call_output","call_id":"call_0_9_0","output":""}'
    other = b'{"type":"function_call_output","call_id":"call_7_0_0","output":""}'
    for item in (late, other):
        assert end(await answered(ARTICLE, item)).status == "failed"


async def test_each_token_comes_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of its own: ten tokens a second, and one sleep that takes half a second too long."""
    loop, now, slept = asyncio.get_running_loop(), [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds + (0.5 if len(slept) == 3 else 0.0)

    monkeypatch.setattr(loop, "time", lambda: now[0])
    monkeypatch.setattr("segue.bench.arms.workload_model.sleep", sleep)
    conversation = make_conversation("article")
    (call,) = conversation.turns[8].calls
    result = b'{"type":"function_call_output","call_id":"%b","output":""}' % call.call_id.encode()
    batches = await answered(ARTICLE, result, tokens_s=10.0)
    sizes = [sum(one.type.endswith(".delta") for one in batch if isinstance(one, Event)) for batch in batches[1:]]
    assert sizes[:5] == [1, 1, 6, 1, 1]  # what became due in the meantime leaves together
    used = end(batches).usage
    assert used is not None
    assert sum(sizes) == used.output_tokens
    assert now[0] == pytest.approx(used.output_tokens / 10)
    assert all(later <= 0.1 + 1e-9 for _, later in pairwise(slept))
