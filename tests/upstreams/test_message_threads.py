"""Turns at an upstream that keeps message threads: it is sent only what is new, and its model reads everything."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from segue.dialects.messages.request import MessagesRenderer
from segue.history.chains import Turn
from segue.protocol.events import Event
from segue.protocol.items import Item
from segue.protocol.requests import json_text
from segue.upstreams.group import GroupState, Member, UpstreamGroup
from segue.upstreams.interface import Secret
from segue.upstreams.message_threads import LIFETIME_S
from tests.thread_service import BETA, ThreadService, read, said
from tests.upstreams.threaded_turns import (
    INSTRUCTIONS,
    Bench,
    assistant,
    bench,
    encode_item,
    result,
    speak,
    told_by_item,
    turn_of,
    user,
)

Json = dict[str, Any]

# ---------------------------------------------------------------------------------------------------- only what is new


async def test_a_chain_is_sent_as_what_is_new_and_read_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred turns: the same bytes in each, the same items rendered, and the whole conversation at the model."""
    rendered = 0
    add = MessagesRenderer.add

    def count(renderer: MessagesRenderer, item: Item) -> None:
        nonlocal rendered
        rendered += 1
        add(renderer, item)

    monkeypatch.setattr(MessagesRenderer, "add", count)
    async with bench() as one:
        turn, sizes, work = None, list[int](), list[int]()
        for number in range(100):
            before = rendered
            turn = await one.go_on(turn, user(f"u{number:03d} " + "x" * 100))
            sizes.append(one.service.requests[-1][1])
            work.append(rendered - before)
        assert one.kinds == ["create"] + ["continue"] * 99
        assert max(sizes[1:]) == min(sizes[1:]) < 400
        assert set(work[1:]) == {3}, "what the last turn said and heard, and what is new"
        told = said(one.service.prompts[-1])
        assert [text[:4] for role, text in told if role == "user"] == [f"u{number:03d}" for number in range(100)]
        assert [text for role, text in told if role == "assistant"] == [f"r{number}" for number in range(1, 100)]
        assert read(one.service.prompts[-1]) == INSTRUCTIONS
        assert (one.counts.hits, one.counts.replays) == (99, {})
        whole = sum(100 * number for number in range(1, 100))
        assert whole < one.counts.saved_bytes < 3 * whole


async def test_a_continuation_has_every_setting_again_but_not_what_the_thread_keeps() -> None:
    async with bench(headers=(("anthropic-beta", "other-2026-01-01"),)) as one:
        first = await one.go_on(None, user("u1"), max_output_tokens=100)
        await one.go_on(first, user("u2"), max_output_tokens=200, safety_identifier="me")
        body = one.service.bodies[-1]
        assert body.keys() == {"model", "max_tokens", "metadata", "stream", "thread", "messages", "cache_control"}
        assert body["thread"] == {"type": "continue", "previous_message_id": "msg_000000000000000000000001"}
        assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "u2"}]}]
        assert body["max_tokens"] == 200
        assert one.service.headers[-1]["anthropic-beta"] == f"other-2026-01-01,{BETA}"


async def test_calls_and_thoughts_go_on() -> None:
    async with bench(ThreadService(speak)) as one:
        call = await one.go_on(None, user("call"))
        call_id = json.loads(call.output[-1])["call_id"]
        last = await one.go_on(call, result(call_id), user("think"))
        await one.go_on(last, user("u3"))
        assert one.kinds == ["create", "continue", "continue"]
        assert [text for _, text in said(one.service.prompts[-1])] == [
            "call",
            "r1",
            call_id,
            call_id,
            "think",
            "hm2",
            "r2",
            "u3",
        ]


async def test_a_turn_that_nobody_can_continue_begins_no_thread() -> None:
    async with bench() as one:
        await one.go_on(None, user("u1"), held=False)
        assert one.kinds == ["stateless"]
        turn = await one.go_on(await one.go_on(None, user("u1")), user("u2"), held=False)
        assert one.kinds == ["stateless", "create", "continue"]
        await one.go_on(turn, user("u3"), held=False)
        one.service.faults += ["500", "500"]
        assert await one.fails(turn, user("u3"), held=False) == "upstream_error"
        assert one.kinds[3:] == ["stateless"] * 3
        await one.go_on(turn, user("u3"))
        assert one.kinds[-1] == "create"


async def test_what_cannot_be_said_leaves_the_thread_as_it_was() -> None:
    async with bench() as one:
        turn = await one.two()
        odd = encode_item({"type": "compaction", "encrypted_content": "x"})
        assert await one.fails(turn, odd) == "invalid_encrypted_content"
        await one.go_on(turn, user("u3"))
        assert one.kinds[2:] == ["continue"]


async def test_zero_retention_and_no_threads_at_all() -> None:
    async with bench(zero_retention=frozenset({"ann"})) as one:
        turn = await one.go_on(await one.go_on(None, user("u1")), user("u2"))
        assert one.kinds == ["stateless", "stateless"]
        assert "anthropic-beta" not in one.service.headers[-1]
        await one.go_on(turn, user("u3"), tenant="bob")
        assert one.kinds[-1] == "create"


# ----------------------------------------------------------------------------------------- clients that send everything


async def again(one: Bench, items: list[Item], *new: Item, **changed: Any) -> list[Item]:  # noqa: ANN401 - any setting
    """Send a whole history with something new, and return it with what the model says."""
    turn = await one.go_on(None, *items, *new, **{"held": False, **changed})
    return [*turn.input, *turn.output]


@pytest.mark.parametrize("trusted", [True, False])
async def test_what_the_upstream_has_of_a_history_that_is_sent_whole_is_left_out(*, trusted: bool) -> None:
    """A thread begins with the second request: not everybody who asks once asks again."""
    async with bench(trusted=trusted) as one:
        items: list[Item] = []
        for number in range(6):
            items = await again(one, items, user(f"u{number} " + "x" * 500))
        trial = [] if trusted else ["continue"]
        assert one.kinds == ["stateless", "create", *trial, *["continue"] * 4]
        assert len({size for _, size in one.service.requests[-4:]}) == 1
        assert [text[:2] for _, text in said(one.service.prompts[-1])] == [
            *("u0", "r1", "u1", "r2", "u2", "r3", "u3", "r4", "u4", "r5", "u5")
        ]
        assert (one.counts.hits, one.counts.replays) == (4, {"unknown": 1})


async def test_calls_and_thoughts_of_a_history_that_is_sent_whole() -> None:
    async with bench(ThreadService(speak)) as one:
        items = await again(one, await again(one, [], user("call")), result("toolu_1"), user("call"))
        items = await again(one, items, result("toolu_2"), user("think"))
        await again(one, items, user("u"))
        assert one.kinds == ["stateless", "create", "continue", "continue"]


@pytest.mark.parametrize("change", ["settings", "reply", "before", "end", "twice", "expired", "tenant"])
async def test_a_history_that_is_not_what_the_upstream_has(change: str) -> None:
    async with bench() as one:
        items = await again(one, [user("u0"), assistant("r0")], user("u1"))
        asked: dict[str, Any] = {}
        match change:
            case "settings":
                asked = {"temperature": 0.5}
            case "reply":
                items = [*items[:-1], assistant("other words")]
            case "before":
                items = [user("other"), *items[1:]]
            case "end":
                items = [*items, assistant("and more")]
            case "twice":
                await again(one, items, user("u2"))
            case "expired":
                one.service.now += LIFETIME_S
            case _:
                asked = {"tenant": "bob"}
        await again(one, items, user("u2"), **asked)
        assert one.kinds[-1] == "create"
        assert not one.counts.replays["history"], "what was found there was the right one"
        expected = [text for item in items for _, text in told_by_item(item)]
        assert [text for _, text in said(one.service.prompts[-1])] == [*expected, "u2"]


@pytest.mark.parametrize("fault", ["lost", "unsupported", "500", "ignored", "plain 400"])
async def test_a_history_that_is_sent_whole_has_whatever_happens_what_it_says(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent whole after all, it is what was rendered at first."""
    rendered: list[Item] = []
    add = MessagesRenderer.add

    def note(renderer: MessagesRenderer, item: Item) -> None:
        rendered.append(item)
        add(renderer, item)

    monkeypatch.setattr(MessagesRenderer, "add", note)
    async with bench() as one:
        items = await again(one, [user("u0"), assistant("r0")], user("u1"))
        one.service.faults.append(fault)
        rendered.clear()
        await again(one, items, user("u2"))
        assert [text for _, text in said(one.service.prompts[-1])] == ["u0", "r0", "u1", "r1", "u2"]
        gave_up = fault in ("unsupported", "ignored")
        assert one.kinds == ["create", "continue", "stateless" if gave_up else "create"]
        assert len(rendered) == (10 if gave_up else 5)


async def test_one_reply_is_gone_on_from_by_its_name_or_by_its_history() -> None:
    """And not by both, since it has one successor."""
    async with bench() as one:
        turn = await one.go_on(None, user("u0"), assistant("r0"), user("u1"))
        items = [*turn.input, *turn.output]
        await one.go_on(turn, user("by name"))
        await one.go_on(None, *items, user("by history"))
        assert one.kinds == ["create", "continue", "create"]
    async with bench() as one:
        turn = await one.go_on(None, user("u0"), assistant("r0"), user("u1"))
        await one.go_on(None, *turn.input, *turn.output, user("by history"))
        await one.go_on(turn, user("by name"))
        assert one.kinds == ["create", "continue", "create"]


# ------------------------------------------------------------------------------------------------------------ in doubt


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"instructions": json_text("Be long.")}, "settings"),
        ({"tools": []}, "settings"),
        ({"tool_choice": "required"}, "settings"),
        ({"temperature": 0.5}, "settings"),
        ({"reasoning": {"effort": "low"}}, "settings"),
        ({"model": "n"}, "settings"),
        ({"tenant": "bob"}, "unknown"),
    ],
)
async def test_what_the_thread_is_bound_to_has_changed(changed: Json, reason: str) -> None:
    async with bench() as one:
        turn = await one.two()
        await one.go_on(turn, user("u3"), **changed)
        assert (one.kinds[2:], one.counts.replays) == (["create"], {reason: 1})


async def test_another_key_is_another_account() -> None:
    async with bench(pass_key=True, key=None) as one:
        turn = await one.go_on(None, user("u1"), credential=Secret("a"))
        turn = await one.go_on(turn, user("u2"), credential=Secret("a"))
        await one.go_on(turn, user("u3"), credential=Secret("b"))
        assert one.kinds == ["create", "continue", "create"]


async def test_a_reply_that_is_too_old_is_not_asked_for() -> None:
    async with bench() as one:
        turn = await one.two()
        one.service.now += LIFETIME_S - 1
        turn = await one.go_on(turn, user("u3"))
        one.service.now += LIFETIME_S
        await one.go_on(turn, user("u4"))
        assert (one.kinds[2:], one.counts.replays) == (["continue", "create"], {"expired": 1})


async def test_a_fork_is_a_thread_of_its_own() -> None:
    async with bench() as one:
        turn = await one.two()
        for text in ("a", "b"):
            await one.go_on(turn, user(text))
        assert (one.kinds[2:], one.counts.replays) == (["continue", "create"], {"unknown": 1})


async def test_two_at_once_are_a_fork() -> None:
    async with bench() as one:
        turn = await one.two()
        await asyncio.gather(*(one.go_on(turn, user(text)) for text in "ab"))
        assert sorted(one.kinds[2:]) == ["continue", "create"]


@pytest.mark.parametrize(
    "reply",
    [
        [{"type": "text", "text": "r"}, {"type": "text", "text": " "}],  # left out of a history
        [{"type": "text", "text": "r", "citations": [{"n": 1}]}],
        [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, {"type": "text", "text": "r"}],
        [{"type": "text", "text": "r"}, {"type": "thinking", "thinking": "hm", "signature": "c2ln"}],
        [{"type": "text", "text": "r"}, {"type": "tool_use", "id": "odd id", "name": "look", "input": {}}],
    ],
)
async def test_a_reply_that_a_history_says_otherwise_is_not_gone_on_from(reply: list[Json]) -> None:
    async with bench(ThreadService(lambda _: reply)) as one:
        turn = await one.go_on(None, user("u1"))
        answers = [result(json.loads(item)["call_id"]) for item in turn.output if b"function_call" in item]
        await one.go_on(turn, *answers, user("u2"))
        assert one.kinds == ["create", "create"]


@pytest.mark.parametrize(
    "given",
    [(), (assistant("I mean:"), user("u")), (user("u"), assistant("r"), user("v")), (user("u"), assistant("prefill"))],
)
async def test_only_words_of_the_users_are_added(given: tuple[Item, ...]) -> None:
    async with bench() as one:
        turn = await one.two()
        await one.go_on(turn, *given)
        assert (one.kinds[2:], one.counts.replays) == (["create"], {"history": 1})


@pytest.mark.parametrize("how", ["refusal", "max_tokens", "fallback", "odd id"])
async def test_which_replies_the_upstream_has(how: str) -> None:
    service = ThreadService()
    async with bench(service) as one:
        if how in ("refusal", "max_tokens"):
            service.stop_reason = how
        elif how == "fallback":
            service.usage = {"iterations": [{"type": "message"}, {"type": "fallback_message"}]}
        else:
            service.prefix = "chatcmpl-"
        turn = await one.go_on(None, user("u1"))
        await one.go_on(turn, user("u2"))
        assert one.kinds == ["create", "continue" if how == "max_tokens" else "create"]


async def test_a_chain_that_was_compacted_meanwhile_is_sent_anew() -> None:
    """Its last turn is another one with the same id and the same reply."""
    async with bench() as one:
        turn = await one.two()
        stand_in = Turn(
            id=turn.id, parent=None, input=(user("summary"),), output=turn.output, calls=turn.calls, stored=False
        )
        await one.go_on(stand_in, user("u3"))
        assert (one.kinds[2:], one.counts.replays) == (["create"], {"history": 1})
        assert [text for _, text in said(one.service.prompts[-1])] == ["summary", "r2", "u3"]


async def test_nothing_is_rendered_twice_although_nothing_is_cached() -> None:
    async with bench(budget=0) as one:
        await one.go_on(await one.two(), user("u3"))
        assert one.kinds == ["create", "continue", "continue"]


# -------------------------------------------------------------------------------------------------- what may go wrong

REPLAYED = {
    "not_found": "not_found",
    "lost": "not_found",
    "bare 404": "not_found",
    "late code": "not_found",
    "continued": "continued",
    "in_flight": "in_flight",
    "conflict": "in_flight",
    "mismatch": "mismatch",
    "plain 400": "refused",
    "500": "refused",
}
GIVEN_UP = {
    "unsupported": "not_kept",
    "ignored": "forgotten",
    "unknown field": "not_kept",
    "unknown beta": "not_kept",
    "rejected beta": "not_kept",
}


@pytest.mark.parametrize("fault", REPLAYED)
async def test_a_continuation_that_is_refused_is_sent_whole_once(fault: str) -> None:
    async with bench() as one:
        turn = await one.two()
        one.service.faults.append(fault)
        turn = await one.go_on(turn, user("u3"))
        await one.go_on(turn, user("u4"))
        assert one.kinds[2:] == ["continue", "create", "continue"]
        assert one.counts.replays == {REPLAYED[fault]: 1}
        assert said(one.service.prompts[-2]) == [
            *(("user", "u1"), ("assistant", "r1"), ("user", "u2"), ("assistant", "r2"), ("user", "u3"))
        ]


@pytest.mark.parametrize("fault", ["not_found", "plain 400", "conflict"])
async def test_it_is_not_sent_a_third_time(fault: str) -> None:
    async with bench() as one:
        turn = await one.two()
        one.service.faults += ["not_found", "plain 400"]
        assert await one.fails(turn, user("u3")) == "upstream_rejected"
        assert one.kinds[2:] == ["continue", "create"]


@pytest.mark.parametrize("fault", GIVEN_UP)
async def test_what_has_no_threads_is_not_asked_again(fault: str) -> None:
    """And of an answer that was given without the history, nobody gets a word."""
    async with bench() as one:
        turn = await one.two()
        one.service.faults.append(fault)
        turn = await one.go_on(turn, user("u3"))
        assert [text for _, text in said(one.service.prompts[-1])] == ["u1", "r1", "u2", "r2", "u3"]
        turn = await one.go_on(turn, user("u4"))
        await one.go_on(turn, user("u5"), model="n")
        assert one.kinds[2:] == ["continue", "stateless", "stateless", "create"], "another model is asked"
        assert one.counts.replays == {GIVEN_UP[fault]: 1, "unsupported": 1, "unknown": 1}
        assert one.upstream.learned == {"thread": 1}


@pytest.mark.parametrize("fault", ["unsupported", "unknown field", "unknown beta", "not_found"])
async def test_a_thread_that_cannot_begin(fault: str) -> None:
    async with bench() as one:
        one.service.faults.append(fault)
        turn = await one.go_on(None, user("u1"))
        await one.go_on(turn, user("u2"))
        assert one.kinds == ["create", "stateless", "stateless"]


@pytest.mark.parametrize("fault", ["529", "late overload"])
async def test_a_busy_server_is_asked_the_same_again(fault: str) -> None:
    async with bench() as one:
        turn = await one.two()
        one.service.faults.append(fault)
        await one.go_on(turn, user("u3"))
        assert (one.kinds[2:], one.counts.replays) == (["continue", "continue"], {})


@pytest.mark.parametrize("cut", ["after the start", "in the text", "though kept"])
async def test_a_turn_that_broke_off_leaves_the_thread_as_it_was(cut: str) -> None:
    """It is not tried again here, since it may have been paid for. Its client's next attempt goes on as it did."""
    async with bench() as one:
        turn = await one.two()
        one.service.faults.append(cut)
        await one.fails(turn, user("u3"))
        await one.go_on(turn, user("u3"))
        again = ["continue", "create"] if cut == "though kept" else ["continue"]
        assert one.kinds[2:] == ["continue", *again]


async def test_an_answer_whose_end_did_not_come_is_not_gone_on_from() -> None:
    """It is complete, and its client has it. But the upstream may have dropped it."""
    async with bench() as one:
        turn = await one.two()
        one.service.faults.append("before the end")
        turn = await one.go_on(turn, user("u3"))
        await one.go_on(turn, user("u4"))
        assert one.kinds[2:] == ["continue", "create"]


async def test_a_client_that_goes_away_leaves_the_thread_as_it_was() -> None:
    async with bench() as one:
        turn = await one.two()
        one.service.faults.append("hold")
        batches = one.upstream.stream(one.ask(turn, user("u3")))
        async for batch in batches:
            if batch:
                break
        await batches.aclose()
        await one.go_on(turn, user("u4"))
        assert one.kinds[3] == "continue"


async def test_a_conversation_that_moves_to_another_instance_begins_anew_there() -> None:
    """And at the first one again when it comes back. Each instance has its own threads."""
    async with bench() as one, bench() as other:
        members = [Member("one", one.upstream), Member("other", other.upstream, backup=True)]
        one.runs = UpstreamGroup("g", members, GroupState(lambda: one.service.now))
        turn = await one.two()
        one.service.faults.append("529")
        turn = await one.go_on(turn, user("u3"))
        assert (one.kinds[2:], other.kinds) == (["continue"], ["create"])
        assert [text for _, text in said(other.service.prompts[-1])] == ["u1", "r1", "u2", "r2", "u3"]
        turn = await one.go_on(await one.go_on(turn, user("u4")), user("u5"))
        assert (one.kinds[3:], other.kinds) == (["create", "continue"], ["create"])
        assert one.counts.replays == {"unknown": 1}


async def test_an_erased_tenant_has_no_threads() -> None:
    async with bench() as one:
        turn = await one.two()
        one.upstream.forget_tenant("ann")
        turn = await one.go_on(turn, user("u3"))
        items = await again(one, [user("u0"), assistant("r0")], user("u1"))
        one.upstream.forget_tenant("ann")
        await again(one, items, user("u2"))
        assert one.kinds[2:] == ["create"] * 3


@pytest.mark.parametrize("fault", ["", "in the text"])
async def test_a_turn_that_runs_while_its_tenant_is_erased_leaves_nothing(fault: str) -> None:
    """Neither its own reply nor the one that it goes on from; and what comes after has threads again."""
    at_length = ThreadService(lambda _: [{"type": "text", "text": "y" * 500_000}])  # so that it comes in pieces
    async with bench(at_length) as one:
        turn = await one.two()
        one.service.faults.append(fault)
        asked = one.ask(turn, user("u3"))
        batches = one.upstream.stream(asked)
        output = [*await anext(batches)]
        one.upstream.forget_tenant("ann")
        async for batch in batches:
            output += batch
        items = tuple(event.item for event in output if isinstance(event, Event) and event.item)
        await one.go_on(turn if fault else turn_of(asked, items), user("u4"))
        await one.go_on(await one.go_on(None, user("u5")), user("u6"))
        assert one.kinds[2:] == ["continue", "create", "create", "continue"]


# ------------------------------------------------------------------------------------------------- a server on trial


async def test_a_server_that_knows_threads_is_trusted_after_one_question() -> None:
    async with bench(trusted=False) as one:
        turn = None
        for number in range(3):
            turn = await one.go_on(turn, user(f"u{number}"))
        assert one.kinds == ["create", "continue", "continue", "continue"]
        assert one.service.bodies[1]["thread"]["previous_message_id"].endswith("0" * 26)
        assert (one.counts.hits, one.counts.replays) == (2, {})


async def test_a_server_that_ignores_the_field_never_answers_without_the_history() -> None:
    """Not even where its first prompt was shorter than what is new."""
    async with bench(ThreadService(has_threads=False), trusted=False) as one:
        turn = await one.go_on(None, user("u1"), instructions=None, tools=[])
        turn = await one.go_on(turn, user("x" * 10_000), instructions=None, tools=[])
        assert one.kinds == ["create", "continue", "stateless"]
        assert [text[:2] for _, text in said(one.service.prompts[-1])] == ["u1", "r1", "xx"]
        assert one.counts.replays == {"forgotten": 1}


@pytest.mark.parametrize("fault", ["bare 404", "plain 400", "mismatch"])
async def test_a_server_that_says_anything_else_is_not_trusted(fault: str) -> None:
    async with bench(trusted=False) as one:
        turn = await one.go_on(None, user("u1"))
        one.service.faults.append(fault)
        turn = await one.go_on(turn, user("u2"))
        await one.go_on(turn, user("u3"))
        assert one.kinds == ["create", "continue", "stateless", "stateless"]


async def test_a_turn_notes_whether_only_what_is_new_was_sent() -> None:
    """For the log of turns. The first turn of a conversation continues nothing."""
    async with bench() as one:
        parent: Turn | None = None
        noted = []
        for _ in range(3):
            request = one.ask(parent, user("u"))
            parent, _ended = await one.run(request)
            noted.append(request.notes.continuation)
        one.upstream.forget_tenant("ann")
        request = one.ask(parent, user("u"))
        await one.run(request)
    assert (*noted, request.notes.continuation) == (None, "hit", "hit", "unknown")
