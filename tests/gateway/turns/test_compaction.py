"""Compaction in the gateway: when it happens, what a model sees then and later, and what of it fails harmlessly."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from threading import get_ident
from typing import Any

import msgspec
import pytest

from segue.gateway.services import Services
from segue.gateway.turns import compaction
from segue.gateway.turns.compaction import without_entries
from segue.history.chains import History, Turn
from segue.history.sealed_summaries import MAX_SUMMARY_BYTES
from segue.protocol.conversations import NewConversation
from segue.protocol.items import Input, Item, parse_input
from segue.protocol.problems import Problem, Refused, unreadable_compaction
from segue.stores.memory import MemoryStore
from segue.stores.store_url import open_store
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import (
    CallTool,
    Fail,
    Refuse,
    Say,
    ScriptedTurn,
    ScriptedUpstream,
    Step,
    Truncate,
    call,
    say,
)
from tests.faults.doubles import Model
from tests.gateway.parts import caller, collect, create, ident, parts, respond, response

Json = dict[str, Any]

SLOT = ("connection", "")
TRIGGER = {"type": "compaction_trigger"}
MANAGED: Json = {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}
#: About 1,500 tokens.
LONG = "word " * 1200


def parse_items(items: list[Json]) -> Input:
    parsed = parse_input(msgspec.json.encode(items))
    assert isinstance(parsed, Input)
    return parsed


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def shown(request: UpstreamRequest) -> list[str]:
    """What a model sees, in short: who speaks and how it begins; calls and outputs by their type."""
    told = []
    for item in map(msgspec.json.decode, request.history.items()):
        content = item.get("content", "")
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        told.append(f"{item.get('role', item.get('type'))}: {_short(text)}" if text else item["type"])
    return told


def _short(text: str) -> str:
    if text.startswith("This is a summary of the conversation so far"):
        return f"SUMMARY {text.rpartition(chr(10))[2]}"
    return "PROMPT" if text.startswith("Stop here and write a summary") else text[:12].strip()


async def problem_of(services: Services, **fields: object) -> Problem:
    with pytest.raises(Refused) as caught:
        await respond(services, create(**fields))  # type: ignore[arg-type]  # the text too may be given as input
    return caught.value.problem


# --- asked for, and nothing else -------------------------------------------------------------------------------------


async def test_a_trigger_turns_the_history_into_one_item_and_the_conversation_goes_on_behind_it() -> None:
    upstream = ScriptedUpstream([say("one"), say("what ", "was said"), say("two"), say("three")])
    async with parts(upstream) as services:
        first = await respond(services, create("task", instructions="Be brief."))
        compacted = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"]))
        assert (compacted["status"], compacted["previous_response_id"]) == ("completed", first["id"])
        (item,) = compacted["output"]
        assert (item["type"], item["id"][:4]) == ("compaction", "cmp_")
        assert item["encrypted_content"].startswith("segue.c1.")
        second = await respond(services, create("go", previous_response_id=compacted["id"]))
        await respond(services, create("on", previous_response_id=second["id"]))
    _, question, answer, third = upstream.requests
    assert shown(question) == ["user: task", "assistant: one", "user: PROMPT"]
    assert (question.store, question.held, question.settings.max_output_tokens) == (False, False, 8192)
    assert shown(answer) == ["user: task", "user: SUMMARY what was said", "user: go"]
    assert shown(third) == [*shown(answer), "assistant: two", "user: on"]
    assert answer.history.parent is not None
    assert answer.history.parent.id == compacted["id"], "an upstream that keeps state finds it by this id"


async def test_the_events_of_a_compaction_say_that_it_is_written_and_then_what_it_is() -> None:
    async with parts(ScriptedUpstream([say("a", "b")], pace_s=0.0001)) as services:
        run = services.executor.run(create(input=[user("x"), TRIGGER], store=False), caller(services))
        events = [msgspec.json.decode(event.whole()) for event in await collect(run.events())]
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "in_progress", "output_item.added"]
    assert set(kinds[3:-2]) == {"compaction.compacting"}
    assert kinds[-2:] == ["output_item.done", "completed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added, done = events[2]["item"], events[-2]["item"]
    assert added == {**done, "encrypted_content": ""}
    assert events[-1]["response"]["output"] == [done]
    assert {event.get("item_id", done["id"]) for event in events} == {done["id"]}


async def test_what_the_summary_cost_is_what_the_turn_cost() -> None:
    async with parts(ScriptedUpstream([say("12345678")])) as services:
        made = await respond(services, create(input=[user(LONG), TRIGGER]))
        (scope,) = services.rules.quotas.scopes(caller(services).principal)
        assert made["usage"]["output_tokens"] == 2
        assert made["usage"]["input_tokens"] > 1500
        assert (scope.counts.input_tokens, scope.counts.output_tokens) == (made["usage"]["input_tokens"], 2)


async def test_tools_are_shown_to_the_model_that_writes_the_summary_but_not_to_be_called() -> None:
    """Some providers take no history with calls in it without its tools; and the prefix stays that of the cache."""
    tools = [{"type": "function", "name": "f"}]
    upstream = ScriptedUpstream([call("c", "f"), say("sum")])
    async with parts(upstream) as services:
        first = await respond(services, create("x", tools=tools))
        output = {"type": "function_call_output", "call_id": "c", "output": "1"}
        wanted = create(
            input=[output, TRIGGER],
            previous_response_id=first["id"],
            tools=tools,
            metadata={"a": "b"},
            include=["reasoning.encrypted_content"],
            user="u",
            stop=["."],
        )
        shaped = msgspec.structs.replace(wanted.settings, text={"format": {"type": "json_object"}})
        await respond(services, msgspec.structs.replace(wanted, settings=shaped))
    asked = upstream.requests[1].settings
    assert (asked.tools, asked.tool_choice, asked.text, asked.metadata, asked.include) == (tools, "none", {}, {}, ())
    assert list(asked.extra) == ["user"]


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((Fail("bored", "No."),), "bored"),
        ((Say(("half",)), Truncate()), "upstream_error"),
        ((Say((" ",)),), "upstream_error"),
        ((CallTool("c", "f"),), "upstream_error"),
        ((Say(("x" * MAX_SUMMARY_BYTES, "y")),), "upstream_error"),
    ],
)
async def test_a_compaction_that_comes_to_nothing_has_failed_and_leaves_the_history_as_it_was(
    steps: tuple[Step, ...], code: str
) -> None:
    upstream = ScriptedUpstream([say("one"), ScriptedTurn(steps), say("two")])
    async with parts(upstream) as services:
        first = await respond(services, create("task"))
        made = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"]))
        assert (made["status"], made["output"], made["error"]["code"]) == ("failed", [], code)
        await respond(services, create("go", previous_response_id=first["id"]))
    assert shown(upstream.requests[2]) == ["user: task", "assistant: one", "user: go"]


async def test_a_model_that_refuses_refuses_the_compaction() -> None:
    refusal = Problem("context_length_exceeded", "too long")
    async with parts(ScriptedUpstream([ScriptedTurn((Refuse(refusal),))])) as services:
        assert await problem_of(services, input=[user("x"), TRIGGER]) == refusal


async def stop_short(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    del request
    yield ()


async def test_a_stream_that_stops_before_its_end_is_no_summary() -> None:
    async with parts(Model(stop_short)) as services:
        made = await respond(services, create(input=[user("x"), TRIGGER]))
    assert made["error"]["code"] == "upstream_protocol_error"


async def test_closing_a_turn_stops_the_summary() -> None:
    upstream = ScriptedUpstream([say("a", "b")], pace_s=0.0001)
    async with parts(upstream) as services:
        events = services.executor.run(create(input=[user("x"), TRIGGER]), caller(services)).events()
        await anext(events)
        await events.aclose()
    assert upstream.cancelled == 1


# --- from a threshold on ---------------------------------------------------------------------------------------------


async def test_a_history_from_the_threshold_on_is_compacted_before_its_turn() -> None:
    answering = ScriptedTurn((Say(("t", "wo")), CallTool("c", "f")))
    upstream = ScriptedUpstream([say("one " * 300), say("sum"), answering, say("3")])
    async with parts(upstream) as services:
        first = await respond(services, create("task", **MANAGED))
        assert [item["type"] for item in first["output"]] == ["message"], "it is short"
        events = await collect(
            services.executor.run(create(LONG, previous_response_id=first["id"], **MANAGED), caller(services)).events()
        )
        told = [msgspec.json.decode(event.whole()) for event in events]
        second = response(events[-1])
        assert [item["type"] for item in second["output"]] == ["compaction", "message", "function_call"]
        assert [one["sequence_number"] for one in told] == list(range(len(told)))
        places = {one["item_id"]: one["output_index"] for one in told if "item_id" in one}
        assert places == {item["id"]: place for place, item in enumerate(second["output"]) if place}
        assert second["usage"]["output_tokens"] == sum(len(text) // 4 for text in ("sum", "two{}"))
        output = {"type": "function_call_output", "call_id": "c", "output": "1"}
        await respond(services, create(input=[output], previous_response_id=second["id"], **MANAGED))
    one, question, answer, third = upstream.requests
    assert "context_management" not in one.settings.extra
    assert shown(question) == ["user: task", "assistant: one one one", "user: word word wo", "user: PROMPT"]
    assert shown(answer) == ["user: task", "user: word word wo", "user: SUMMARY sum"]
    assert shown(third) == [*shown(answer), "assistant: two", "function_call", "function_call_output"]


async def test_a_history_that_would_not_be_shorter_is_not_compacted() -> None:
    """Or not by much, or it would be compacted in every turn that its user says much in."""
    upstream = ScriptedUpstream([say("one"), say("two"), say("three")])
    async with parts(upstream) as services:
        made = await respond(services, create(LONG, **MANAGED))
        await respond(services, create("go", previous_response_id=made["id"], **MANAGED))
        await respond(services, create(input=[user("a"), user(LONG)], **MANAGED))
    assert [len(list(request.history.items())) for request in upstream.requests] == [1, 3, 2]


async def test_instructions_and_tools_count_and_a_threshold_may_be_the_gateways() -> None:
    upstream = ScriptedUpstream([say("sum"), say("one"), say("two")])
    history = [user("x"), {"role": "assistant", "content": "y" * 1000}, user("z")]
    async with parts(upstream) as services:
        made = await respond(services, create(input=history, instructions=LONG, **MANAGED))
        assert len(made["output"]) == 2
        entry: Json = {"type": "compaction", "compact_threshold": None}
        made = await respond(services, create(input=history, instructions=LONG, context_management=[entry]))
        assert len(made["output"]) == 1


@pytest.mark.parametrize(
    "summary",
    [
        ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),)),
        ScriptedTurn((Say(("half",)), Truncate())),
        ScriptedTurn((Fail(),)),
    ],
)
async def test_a_turn_goes_on_with_the_whole_history_if_that_cannot_be_compacted(summary: ScriptedTurn) -> None:
    upstream = ScriptedUpstream([summary, say("one"), say("two")])
    history = [user("x"), {"role": "assistant", "content": LONG}, user("z")]
    async with parts(upstream) as services:
        made = await respond(services, create(input=history, **MANAGED))
        assert [item["type"] for item in made["output"]] == ["message"]
        (warning,) = made["warnings"]
        assert warning.startswith("The history was not compacted: ")
        await respond(services, create("go", previous_response_id=made["id"]))
    assert len(list(upstream.requests[-1].history.items())) == 5


async def test_a_turn_that_is_refused_with_its_summary_never_was() -> None:
    """So its client can send it again."""
    refused = Problem("rate_limit_exceeded", "not now")
    upstream = ScriptedUpstream([ScriptedTurn((Refuse(refused),))] * 2)
    history = [user("x"), {"role": "assistant", "content": LONG}, user("z")]
    async with parts(upstream) as services:
        assert await problem_of(services, input=history, **MANAGED) == refused


class _Breaking(ScriptedUpstream):
    """Writes a summary, or a bad one, and then breaks off without an end."""

    def __init__(self, summary: ScriptedTurn, error: Exception | None) -> None:
        super().__init__([summary])
        self._error = error

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        if not self.requests:
            async with aclosing(super().stream(request)) as batches:
                async for batch in batches:
                    yield batch
        elif self._error is not None:
            raise self._error


@pytest.mark.parametrize("summary", [say("12345678"), ScriptedTurn((Say(("1234", "5678")), Truncate()))])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(Problem("rate_limit_exceeded", "no")), "rate_limit_exceeded"),
        (RuntimeError("broken"), "server_error"),
        (None, "upstream_protocol_error"),
    ],
)
async def test_an_answer_that_fails_after_a_summary_has_cost_that(
    summary: ScriptedTurn, error: Exception | None, code: str
) -> None:
    history = [user("x"), {"role": "assistant", "content": LONG}, user("z")]
    async with parts(_Breaking(summary, error)) as services:
        made = await respond(services, create(input=history, **MANAGED))
        assert (made["status"], made["error"]["code"]) == ("failed", code)
        assert made["usage"]["output_tokens"] == 2
        (scope,) = services.rules.quotas.scopes(caller(services).principal)
        assert scope.counts.output_tokens == 2


# --- what clients send back ------------------------------------------------------------------------------------------


async def window(services: Services) -> list[Json]:
    """A history as a client has it that keeps it itself, up to its compaction."""
    made = await respond(services, create(input=[user("task"), user("more"), TRIGGER], store=False))
    return [user("task"), user("more"), *made["output"]]


async def test_a_client_that_keeps_the_history_may_send_all_of_it_or_what_is_left() -> None:
    upstream = ScriptedUpstream([say("sum"), say("a"), say("b"), say("c")])
    async with parts(upstream) as services:
        kept = await window(services)
        said = {"role": "assistant", "content": "said before"}
        whole = await respond(services, create(input=[*kept[:1], said, *kept[1:], user("go")]))
        await respond(services, create(input=[kept[-1], user("go")]))
        await respond(services, create("on", previous_response_id=whole["id"]))
    _, whole_seen, pruned, later = map(shown, upstream.requests)
    assert whole_seen == ["user: task", "user: more", "user: SUMMARY sum", "user: go"]
    assert pruned == ["user: SUMMARY sum", "user: go"]
    assert later == [*whole_seen, "assistant: a", "user: on"]


async def test_what_was_compacted_before_does_not_count() -> None:
    """Of a client that sends all of its history again, with the item in it."""
    upstream = ScriptedUpstream([say("sum"), say("a")])
    async with parts(upstream) as services:
        kept = await window(services)
        said = {"role": "assistant", "content": LONG}
        made = await respond(services, create(input=[user("x"), said, *kept, user(LONG)], **MANAGED))
        assert [item["type"] for item in made["output"]] == ["message"]


async def test_a_compacted_history_is_compacted_again() -> None:
    upstream = ScriptedUpstream([say("sum"), say("sum 2"), say("a")])
    async with parts(upstream) as services:
        kept = await window(services)
        made = await respond(services, create(input=[*kept, user("go"), TRIGGER]))
        await respond(services, create("on", previous_response_id=made["id"]))
    assert shown(upstream.requests[1]) == ["user: task", "user: more", "user: SUMMARY sum", "user: go", "user: PROMPT"]
    assert shown(upstream.requests[2]) == ["user: task", "user: more", "user: go", "user: SUMMARY sum 2", "user: on"]


async def test_a_repeat_of_the_item_changes_nothing() -> None:
    """Of a client that names the response and sends what it got from it, too."""
    upstream = ScriptedUpstream([say("sum"), say("a")])
    async with parts(upstream) as services:
        made = await respond(services, create(input=[user("task"), TRIGGER]))
        await respond(services, create(input=[*made["output"], user("go")], previous_response_id=made["id"]))
    assert shown(upstream.requests[1]) == ["user: task", "user: SUMMARY sum", "user: go"]


async def test_an_answer_to_a_call_that_became_part_of_the_summary_is_refused() -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    made_call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    async with parts(ScriptedUpstream([say("sum"), call("c", "f"), say("sum")])) as services:
        kept = await window(services)
        problem = await problem_of(services, input=[made_call, *kept, output])
        assert (problem.code, problem.param) == ("tool_call_not_found", "input[4].call_id")
        first = await respond(services, create("x"))
        made = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"]))
        problem = await problem_of(services, input=[output], previous_response_id=made["id"])
        assert problem.code == "tool_call_not_found"


async def test_what_cannot_be_read_is_refused_in_the_same_words_whatever_the_cause() -> None:
    async with parts(ScriptedUpstream([say("sum"), say("sum")])) as services, parts() as other:
        (*_, item) = await window(services)
        run = services.executor.run(create(input=[user("x"), TRIGGER], store=False), caller(services, "bob"))
        (theirs,) = response((await collect(run.events()))[-1])["output"]
        tampered = {**item, "encrypted_content": f"{item['encrypted_content'][:-2]}AA"}
        foreign = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
        for bad in (theirs, tampered, foreign, {**foreign, "type": "compaction_summary"}):
            assert await problem_of(services, input=[bad, user("x")]) == unreadable_compaction()
        assert await problem_of(other, input=[item, user("x")]) == unreadable_compaction()


async def test_a_stored_history_is_read_by_every_gateway_that_has_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here by one that was started again, and has nothing in memory."""
    monkeypatch.setenv("SEAL", "s" * 44)
    store = MemoryStore()
    upstream = ScriptedUpstream([say("one"), say("sum"), say("two"), say("three"), say("four")])
    sealed = {"compaction": {"secrets_env": ["SEAL"]}}
    async with parts(upstream, store=store, tables=sealed) as services:
        first = await respond(services, create("task"))
        made = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"]))
        second = await respond(services, create("go", previous_response_id=made["id"]))
    async with parts(upstream, store=store, tables=sealed) as services:
        await respond(services, create("on", previous_response_id=second["id"]))
        await respond(services, create("fork", previous_response_id=first["id"]))
    assert shown(upstream.requests[3]) == [
        "user: task",
        "user: SUMMARY sum",
        "user: go",
        "assistant: two",
        "user: on",
    ]
    assert shown(upstream.requests[4]) == ["user: task", "assistant: one", "user: fork"]


async def test_a_gateway_that_was_started_again_reads_what_it_had_sealed(tmp_path: Path) -> None:
    """Without a secret in its configuration: there is one beside its store."""
    upstream, url = ScriptedUpstream([say("one"), say("sum"), say("two"), say("three")]), f"sqlite:///{tmp_path}/a.db"
    stored = {"server": {"store": url}}
    async with aclosing(await open_store(url)) as store, parts(upstream, store=store, tables=stored) as services:
        first = await respond(services, create("task"))
        made = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"]))
    async with aclosing(await open_store(url)) as store, parts(upstream, store=store, tables=stored) as services:
        await respond(services, create("go", previous_response_id=made["id"]))
        await respond(services, create(input=[*made["output"], user("x")]))
    assert shown(upstream.requests[2]) == ["user: task", "user: SUMMARY sum", "user: go"]


async def test_an_unstored_compaction_lives_in_its_lane() -> None:
    upstream = ScriptedUpstream([say("one"), say("sum"), say("two")])
    async with parts(upstream) as services:
        by = caller(services, slot=SLOT, places=[SLOT])
        first = await respond(services, create("task", store=False), by)
        made = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"], store=False), by)
        await respond(services, create("go", previous_response_id=made["id"], store=False), by)
        assert shown(upstream.requests[2]) == ["user: task", "user: SUMMARY sum", "user: go"]
        services.cache.drop_slot(SLOT)
        assert services.cache.size_bytes == 0


async def test_tokens_of_a_compacted_history_are_counted() -> None:
    async with parts(ScriptedUpstream([say("sum")])) as services:
        kept = await window(services)
        counted = await services.executor.count_input(create(input=[*kept, user(LONG)]), caller(services))
        assert 1500 < counted < 2000


# --- upstreams that compact histories themselves ---------------------------------------------------------------------


class Own(ScriptedUpstream):
    """A model server that speaks the Responses API, and is configured to compact histories itself."""

    dialect_name = "responses"
    compacts = True


class Speaking(Own):
    compacts = False


async def test_an_upstream_of_its_own_gets_what_its_client_sent() -> None:
    upstream = Own([say("one"), say("two"), say("three")])
    foreign = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
    of_another_gateway = {**foreign, "id": "cmp_2", "encrypted_content": "segue.c1.0.AAAA"}
    async with parts(upstream) as services:
        made = await respond(services, create(input=[user(LONG), user("x"), TRIGGER], **MANAGED))
        await respond(services, create(input=[foreign, user("x")], previous_response_id=made["id"]))
        await respond(services, create(input=[user("a"), of_another_gateway, user("x")]))
    one, two, three = upstream.requests
    assert shown(one)[-1] == "compaction_trigger"
    assert "context_management" in one.settings.extra
    assert shown(two)[-2:] == ["compaction", "user: x"]
    assert shown(three) == ["user: a", "compaction", "user: x"]


async def test_a_server_of_the_api_is_left_the_items_that_are_not_ours() -> None:
    """Of OpenAI's, for example; ours are opened."""
    upstream = Speaking([say("sum"), say("one"), say("two")])
    async with parts(upstream) as services:
        kept = await window(services)
        foreign = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}
        await respond(services, create(input=[foreign, user("x")]))
        await respond(services, create(input=[*kept, user("x")]))
        unknown = {**foreign, "encrypted_content": "segue.c1.0.AAAA"}
        assert await problem_of(services, input=[unknown, user("x")]) == unreadable_compaction()
    assert shown(upstream.requests[1]) == ["compaction", "user: x"]
    assert shown(upstream.requests[2])[-2:] == ["user: SUMMARY sum", "user: x"]


# --- items that change settings --------------------------------------------------------------------------------------

TOOLS = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]}
EFFORT = {"type": "configuration_update", "reasoning": {"effort": "high"}}


async def test_items_that_change_settings_hold_for_all_turns_behind_them() -> None:
    """Also after a compaction, and in a chain that was read from the store."""
    upstream = ScriptedUpstream([say("one"), say("two"), say("sum"), say("three"), say("four")])
    store = MemoryStore()
    async with parts(upstream, store=store) as services:
        first = await respond(services, create(input=[TOOLS, user("task")]))
        second = await respond(services, create(input=[EFFORT, user("go")], previous_response_id=first["id"]))
        assert (second["tools"], second["reasoning"]) == ([], None), "what its request said"
        third = await respond(services, create(input=[TRIGGER], previous_response_id=second["id"]))
        await respond(services, create("on", previous_response_id=third["id"]))
    async with parts(upstream, store=store) as services:
        await respond(services, create("and on", previous_response_id=second["id"]))
    told = [(len(one.settings.tools), one.settings.reasoning) for one in upstream.requests]
    high = {"effort": "high"}
    assert told == [(1, None), (1, high), (1, high), (1, high), (1, high)]
    assert upstream.requests[2].settings.tool_choice == "none"


async def test_a_server_of_the_api_reads_such_items_itself() -> None:
    upstream = Speaking([say("one"), say("sum"), say("two")])
    async with parts(upstream) as services:
        first = await respond(services, create(input=[TOOLS, user("task")]))
        made = await respond(services, create(input=[TRIGGER], previous_response_id=first["id"]))
        await respond(services, create("go", previous_response_id=made["id"]))
    assert [one.settings.tools for one in upstream.requests] == [[], [], []]
    assert shown(upstream.requests[2]) == ["additional_tools", "user: task", "user: SUMMARY sum", "user: go"]


async def test_what_is_no_tool_is_refused() -> None:
    async with parts() as services:
        problem = await problem_of(services, input=[{**TOOLS, "tools": [{"type": "function"}]}, user("x")])
    assert problem.code == "missing_required_parameter"


async def test_a_long_history_is_looked_through_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 MB of small items take half a second, in which nobody else would get an event."""
    names = ("estimate_saving", "updates_in", "compact", "stand_in_of", "retained_messages")
    looked: dict[str, set[int]] = {name: set() for name in names}

    def watch(name: str, at: set[int]) -> None:
        look = getattr(compaction, name)

        def watched(*given: object, **named: object) -> object:
            at.add(get_ident())
            return look(*given, **named)

        monkeypatch.setattr(compaction, name, watched)

    for watching in looked.items():
        watch(*watching)
    store, here, said = MemoryStore(), {get_ident()}, [user("word " * 100)] * 600
    async with parts(ScriptedUpstream([say("one"), say("two"), say("sum"), say("three")]), store=store) as services:
        short = await respond(services, create("x"))
        long = await respond(services, create(input=said, **MANAGED))
        made = await respond(services, create(input=[*said, TRIGGER]))
        await respond(services, create(input=made["output"], previous_response_id=long["id"]))
        await services.executor.compactions.retained(History(None, parse_items(said).items))
        conversation = await services.executor.conversations.create("alice", NewConversation(parse_items(said)))
    for name, threads in looked.items():
        assert threads or name == "updates_in", f"it was long enough for {name}"
        assert threads.isdisjoint(here)
    async with parts(ScriptedUpstream([say("three")] * 3), store=store) as services:
        await respond(services, create("go", previous_response_id=short["id"]))
        assert looked["updates_in"] == here, "a short one is not worth a thread"
        looked["updates_in"].clear()
        await respond(services, create("go", previous_response_id=long["id"]))
        await respond(services, create("go", conversation=conversation.id))
    assert looked["updates_in"]
    assert looked["updates_in"].isdisjoint(here)


# --- details ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "left"),
    [
        ([{"type": "compaction"}], None),
        ([{"type": "compaction"}, {"type": "later", "a": 1}], [{"type": "later", "a": 1}]),
        ([], None),
    ],
)
def test_what_the_gateway_does_itself_is_not_passed_on(entries: list[Json], left: list[Json] | None) -> None:
    extra: Mapping[str, msgspec.Raw] = {
        "user": msgspec.Raw(b'"u"'),
        "context_management": msgspec.Raw(msgspec.json.encode(entries)),
    }
    got = {name: msgspec.json.decode(raw) for name, raw in without_entries(extra).items()}
    assert got == {"user": "u", **({} if left is None else {"context_management": left})}
    assert without_entries({}) == {}


async def test_an_item_that_cannot_be_read_stays_where_it_is() -> None:
    """In a stored turn: whoever runs a turn that continues it refuses it then."""
    async with parts() as services:
        compactions = services.executor.compactions
    sealed = compactions.seal("alice", "x")
    item: Item = b'{"type":"compaction","encrypted_content":"%s"}' % sealed.encode()
    turn = Turn(id=_IDENT, parent=None, input=(item,), output=(), calls=frozenset(), stored=True)
    compactions.stand_in("bob", turn)
    assert turn.compacted is None
    compactions.stand_in("alice", turn)
    assert turn.compacted is not None


_IDENT = ident({"id": f"resp_{'0' * 40}"})
