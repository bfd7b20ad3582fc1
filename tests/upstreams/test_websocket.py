"""Turns over WebSockets: what is sent, on whose socket, and what becomes of a turn when something goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from segue.protocol.items import user_message
from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.requests import NativeBody, Settings, json_text
from segue.testing.response_events import called, said, thought
from segue.testing.responses_faults import AgeLimit, Cut, ErrorAt, FailAt, HoldAt, Rewritten, Unreadable
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, CreateRefusal, ServerRules, playing
from segue.testing.responses_server import responding
from segue.upstreams.interface import Secret
from segue.upstreams.socket_lanes import IdleLimits
from segue.upstreams.websocket_trust import MOST_FAILURES
from tests.loop_clock import LoopClock
from tests.upstreams.provider import Exchange, hangs, providing, refuses
from tests.upstreams.socket_turns import HI, Conversation, connected, finish, id_of, known, prompts, turn_of

Json = dict[str, Any]

every_server = pytest.mark.parametrize("rules", [OPENAI, OPEN_RESPONSES], ids=["openai", "open responses"])

MODEL = playing(
    [thought("I should look."), called("look", call_id="call_1")],
    [said("It is there."), called("look", call_id="call_2")],
    [said("Done.")],
    [said("Yes.")],
)


def output_of(call_id: str) -> bytes:
    return json.dumps({"type": "function_call_output", "call_id": call_id, "output": "seen"}).encode()


# --- what is sent ----------------------------------------------------------------------------------------------------


@every_server
async def test_a_chain_is_sent_what_is_new_on_its_own_socket(rules: ServerRules) -> None:
    """Instructions and tools are sent each time; the model is asked what the client's history says."""
    asked = Settings(model="m", instructions=json_text("Be brief."), tools=[{"type": "function", "name": "look"}])
    async with responding(rules, model=MODEL) as server, connected(server) as one:
        chain = Conversation(one)
        asked_for = []
        for item in (HI, output_of("call_1"), output_of("call_2")):
            asked_for.append([*chain.items, *known([item])])
            assert (await chain.run(item, asked=asked)).status == "completed"
        assert one.sockets.idle == 1
        assert prompts(server.executions) == asked_for
    first, second, third = [create.create for create in server.creates]
    assert [create.connection for create in server.creates] == [0, 0, 0]
    assert "previous_response_id" not in first
    assert (second["previous_response_id"], third["previous_response_id"]) == ("resp_0001", "resp_0002")
    assert second["input"] == known([output_of("call_1")])
    for name in ("instructions", "tools", "store"):
        assert first[name] == second[name] == third[name]
    assert not {"stream", "stream_id", "background"} & set(first)
    assert (one.continuations.hits, one.continuations.replays) == (2, {})
    assert one.continuations.saved_bytes > 0


async def test_a_socket_is_opened_with_the_headers_of_http() -> None:
    async with responding(OPENAI) as server, connected(server, headers=(("X-A", "b"),)) as one:
        await Conversation(one).run()
    (upgrade,) = server.upgrades
    assert (upgrade["authorization"], upgrade["x-a"]) == ("Bearer sk-1", "b")
    assert upgrade["user-agent"].startswith("segue/")
    assert upgrade["accept"] != "text/event-stream"


async def test_each_turn_costs_the_same_bytes_at_any_depth() -> None:
    async with responding(OPENAI, model=lambda _: [said("Yes.")]) as server, connected(server) as one:
        chain = Conversation(one)
        for _ in range(100):
            assert (await chain.run()).status == "completed"
    sizes = [len(create.body) for create in server.creates]
    assert len(set(sizes[1:])) == 1
    assert len(server.upgrades) == 1
    assert one.continuations.hits == 99


async def test_a_turn_without_a_held_parent_goes_whole_to_a_free_socket() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        await Conversation(one).run(held=False)
        await Conversation(one).run(held=False)
        assert [create.connection for create in server.creates] == [0, 0]
        assert one.sockets.idle == 1
    assert (one.continuations.hits, one.continuations.replays) == (0, {})


async def test_a_fork_is_sent_whole_and_both_branches_go_on() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        other = chain.fork()
        await chain.run()
        await other.run(user_message("or else"))
        await chain.run()
        await other.run()
        assert prompts(server.executions)[-1] == other.items[:-1]
    assert [create.connection for create in server.creates] == [0, 0, 1, 0, 1]
    assert (one.continuations.hits, dict(one.continuations.replays)) == (3, {"unknown": 1})


async def test_turns_that_run_at_once_have_a_socket_each() -> None:
    gate = asyncio.Event()
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(HoldAt(gate=gate), HoldAt(gate=gate))
        chains = [Conversation(one) for _ in range(2)]
        running = [asyncio.create_task(chain.run()) for chain in chains]
        await server.seen(2)
        gate.set()
        await asyncio.gather(*running)
        assert sorted(create.connection or 0 for create in server.creates) == [0, 1]
        assert one.sockets.idle == 2


@pytest.mark.parametrize(
    "change",
    [{"tenant": "bob"}, {"model": "n"}, {"credential": "sk-2"}],
    ids=["tenant", "model", "key"],
)
async def test_nobody_else_gets_a_socket(change: dict[str, str]) -> None:
    """Neither a free one, nor that of a chain by its parent's id."""
    async with responding(OPENAI) as server, connected(server, key=None, pass_key=True) as one:
        own = Secret("sk-1")
        free, chain = Conversation(one), Conversation(one)
        await chain.run(credential=own)
        await free.run(held=False, credential=own)
        other = Conversation(one, change.get("tenant", "ann"), chain.parent)
        await other.run(credential=Secret(change.get("credential", "sk-1")), model=change.get("model", "m"))
        assert [create.connection for create in server.creates] == [0, 1, 2]
        assert "previous_response_id" not in server.creates[-1].create
        await chain.run(credential=own)
        assert server.creates[-1].connection == 0
    assert one.continuations.hits == 1


async def test_a_request_as_its_client_wrote_it_goes_over_http() -> None:
    body = read_object(b'{"model":"m","input":"Hi","stream":true}')
    assert isinstance(body, ObjectText)
    native = NativeBody(dialect="responses", body=body)
    async with responding(OPENAI) as server, connected(server) as one:
        await finish(one, Conversation(one).request(native=native))
    assert [create.transport for create in server.creates] == ["http"]
    assert one.fallbacks == {}


# --- warm-ups --------------------------------------------------------------------------------------------------------


async def test_a_provider_that_is_known_to_prepares_a_prompt_and_is_sent_the_rest_of_it() -> None:
    async with responding(OPENAI) as server, connected(server, warms_up=True) as one:
        chain = Conversation(one)
        await chain.run()
        assert await chain.warm_up(user_message("Read this.")) > 0
        assert len(server.executions) == 1
        await chain.run(user_message("And?"))
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert [create.create.get("generate", True) for create in server.creates] == [True, False, True]
    assert server.creates[-1].create["input"] == known([user_message("And?")])
    assert one.continuations.hits == 2


async def test_a_provider_that_might_run_the_model_is_not_asked_to_prepare_anything() -> None:
    async with responding(OPEN_RESPONSES) as server, connected(server) as one:
        chain = Conversation(one)
        assert await chain.warm_up() == 0
        assert server.creates == []
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]


@pytest.mark.parametrize(
    "fault",
    [ErrorAt(refusal=CreateRefusal(status=400, code="invalid_value", message="No.")), Cut(at="events", events=1)],
    ids=["refused", "cut"],
)
async def test_a_warm_up_that_fails_is_none(fault: ErrorAt | Cut) -> None:
    """The turn that follows is told whatever is wrong."""
    async with responding(OPENAI) as server, connected(server, warms_up=True) as one:
        server.plan(fault)
        chain = Conversation(one)
        assert await chain.warm_up() == 0
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
        assert one.admission.running == 0


# --- the provider has it not -----------------------------------------------------------------------------------------


async def test_a_response_that_the_provider_does_not_know_is_replayed_once() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        server.forget("resp_0001")
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
        await chain.run()
    assert len(server.executions) == 3
    assert ["previous_response_id" in create.create for create in server.creates] == [False, True, False, True]
    assert (one.continuations.hits, dict(one.continuations.replays)) == (1, {"not_found": 1})


@pytest.mark.parametrize("fault", [AgeLimit(), Cut(at="create")], ids=["told", "cut"])
async def test_the_end_of_an_idle_socket_costs_a_replay(fault: AgeLimit | Cut) -> None:
    """A limit of age is told in the answer to the create; a cut that comes before it is seen before it is sent."""
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        if isinstance(fault, AgeLimit):
            server.plan(fault)
        else:
            server.cut()
            await server.left()
            while one.sockets.idle:  # noqa: ASYNC110 - the end of a socket tells nobody
                await asyncio.sleep(0)
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert len(server.executions) == 2
    why = "expired" if isinstance(fault, AgeLimit) else "disconnected"
    assert dict(one.continuations.replays) == {why: 1}


async def test_a_socket_is_renewed_before_the_provider_ends_it() -> None:
    async with responding(OPENAI) as server, connected(server, limits=IdleLimits(age_s=0.0)) as one:
        chain = Conversation(one)
        await chain.run()
        await server.left()
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert (len(server.upgrades), dict(one.continuations.replays)) == (2, {"expired": 1})


async def test_a_limit_of_age_that_every_new_socket_tells_is_an_error() -> None:
    async with responding(msgspec.structs.replace(OPENAI, connection_age_s=0.0)) as server, connected(server) as one:
        problem = await Conversation(one).refused()
    assert problem.code == "upstream_unreachable"
    assert server.executions == []


async def test_an_incomplete_response_is_not_continued_by_its_id() -> None:
    """Whether a provider keeps it is not documented."""

    def cut_short(events: Sequence[Json]) -> Sequence[Json]:
        ended = events[-1]["response"] | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        return [*events[:-1], events[-1] | {"type": "response.incomplete", "response": ended}]

    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(Rewritten(cut_short))
        chain = Conversation(one)
        assert (await chain.run()).status == "incomplete"
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert [create.connection for create in server.creates] == [0, 0]
    assert dict(one.continuations.replays) == {"unknown": 1}


async def test_what_is_forgotten_goes_with_its_socket() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        chain, other = Conversation(one), Conversation(one, "bob")
        await chain.run()
        await other.run()
        one.forget("ann", [id_of(other.parent)])
        assert one.sockets.idle == 2, "it is another tenant's"
        one.forget("ann", [id_of(chain.parent)])
        assert one.sockets.idle == 1
        one.forget_tenant("bob")
        await server.left()


async def test_a_turn_that_runs_while_its_tenant_is_erased_leaves_no_socket() -> None:
    """The provider would hold the conversation on it. What comes after waits for its next turn again."""
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        batches = one.stream(chain.request())
        await anext(batches)
        one.forget_tenant("ann")
        async for _ in batches:
            pass
        await server.left()
        assert (one.sockets.idle, len(one.sockets)) == (0, 0)
        await chain.run()
        assert one.sockets.idle == 1


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [True, False])
async def test_an_error_event_means_what_a_refusal_over_http_means(*, flat: bool) -> None:
    refusal = CreateRefusal(status=400, code="context_length_exceeded", message="Too long.", param="input")
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        server.plan(ErrorAt(refusal=refusal, flat=flat))
        problem = await chain.refused()
        assert (problem.code, problem.param) == ("context_length_exceeded", "input")
        assert len(server.executions) == 1
        assert (await chain.run()).status == "completed"
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert dict(one.continuations.replays) == {"unknown": 1}


async def test_a_provider_that_is_busy_is_asked_again_with_everything() -> None:
    busy = CreateRefusal(status=429, code="rate_limit_exceeded", message="Wait.", retry_after_s=0)
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        server.plan(ErrorAt(refusal=busy))
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert ["previous_response_id" in create.create for create in server.creates] == [False, True, False]
    assert (one.failures["rate_limit_exceeded"], dict(one.continuations.replays)) == (1, {"refused": 1})


async def test_when_to_come_again_is_read_from_the_headers_of_the_event() -> None:
    busy = CreateRefusal(status=429, code="rate_limit_exceeded", message="Wait.", retry_after_s=1000)
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(ErrorAt(refusal=busy))
        problem = await Conversation(one).refused()
    assert (problem.code, problem.retry_after_s) == ("rate_limit_exceeded", 1000.0)


@pytest.mark.parametrize(
    "fault",
    [FailAt(events=3), ErrorAt(refusal=CreateRefusal(status=500, code="server_error", message="Oh."), events=3)],
    ids=["failed", "error"],
)
async def test_a_turn_that_fails_in_the_middle_has_failed_and_is_not_sent_again(fault: FailAt | ErrorAt) -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        server.plan(fault)
        finished = await chain.run()
        assert (finished.status, len(server.executions)) == ("failed", 2)
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("close_code", [None, 1001, 1011])
async def test_a_socket_that_ends_in_a_turn_fails_it_and_nothing_is_sent_again(at: int, close_code: int | None) -> None:
    """Also before the first event: it may have run."""
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        server.plan(Cut(at="events", events=at, close_code=close_code))
        if at:
            assert (await chain.run()).status == "failed"
        else:
            problem = await chain.refused()
            assert (problem.code, problem.repeat) == ("upstream_unreachable", "paid")
        assert len(server.executions) == 2
        assert len(server.creates) == 2
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]


async def test_a_provider_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, clock = asyncio.Event(), LoopClock(monkeypatch)
    async with responding(OPENAI) as server, connected(server, first_byte_timeout_s=60.0) as one:
        server.plan(HoldAt(gate=gate, events=0))
        problem = await clock.outlast(Conversation(one).refused(), 60.0, after=server.seen(1))
        await server.abandoned()
    assert (problem.code, len(server.creates)) == ("upstream_timeout", 1)


async def test_a_stream_that_falls_silent_is_given_up_in_time() -> None:
    gate = asyncio.Event()
    async with responding(OPENAI) as server, connected(server, idle_timeout_s=0.05) as one:
        server.plan(HoldAt(gate=gate, events=4))
        finished = await Conversation(one).run()
        await server.abandoned()
    assert finished.status == "failed"
    assert one.sockets.idle == len(one.sockets) == 0


@pytest.mark.parametrize("events", [0, 4])
async def test_a_turn_that_is_cancelled_stops_the_provider_at_once(events: int) -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(HoldAt(gate=asyncio.Event(), events=events))
        running = asyncio.create_task(Conversation(one).run())
        await server.seen(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.abandoned()
        assert len(one.sockets) == 0


async def test_what_is_no_event_fails_the_turn() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(Unreadable(body=b"hello"))
        finished = await Conversation(one).run()
    assert finished.status == "failed"
    assert finished.head.error is not None
    assert finished.head.error.code == "upstream_protocol_error"


async def test_unknown_fields_are_learned_as_over_http() -> None:
    rules = msgspec.structs.replace(OPENAI, refused_fields=frozenset({"prompt_cache_key"}))
    async with responding(rules) as server, connected(server) as one:
        chain = Conversation(one)
        for _ in range(3):
            await chain.run()
    assert [("prompt_cache_key" in create.create) for create in server.creates] == [True, False, False, False]
    assert one.learned == {"prompt_cache_key": 1}
    assert one.continuations.hits == 2


async def test_what_a_dialect_refuses_is_refused_before_anything_is_sent() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        assert (await Conversation(one).refused(b"[1]")).code == "invalid_type"
        assert one.admission.running == 0
    assert server.creates == []


# --- HTTP ------------------------------------------------------------------------------------------------------------


async def test_a_server_without_websockets_is_asked_over_http() -> None:
    async with responding(msgspec.structs.replace(OPENAI, upgrades=False)) as server, connected(server) as one:
        chain = Conversation(one)
        for _ in range(2):
            await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert [create.transport for create in server.creates] == ["http", "http"]
    assert len(server.upgrades) == 1, "it is not asked each time"
    assert one.fallbacks == {"no_websocket": 2}


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [(401, "upstream_unauthorized", 1), (429, "rate_limit_exceeded", 3), (503, "server_overloaded", 3)],
)
async def test_a_refused_upgrade_means_what_a_refusal_over_http_means(status: int, code: str, attempts: int) -> None:
    body = msgspec.json.encode({"error": {"message": "No.", "type": "x"}})
    fault = Unreadable(status=status, content_type="application/json", body=body)
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan_upgrades(*[fault] * attempts)
        assert (await Conversation(one).refused()).code == code
        assert server.creates == []
        assert (await Conversation(one).run()).status == "completed"


async def test_an_upgrade_that_is_cut_is_tried_again_and_then_left_for_http() -> None:
    """Nothing was sent yet."""
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan_upgrades(*[Cut(at="create")] * 2 * MOST_FAILURES)  # aiohttp asks twice: an upgrade is a GET
        chain = Conversation(one)
        assert (await chain.refused()).code == "upstream_unreachable"
        assert one.failures["upstream_unreachable"] == 3, "as many attempts as over HTTP"
        assert (await chain.run()).status == "completed"
    assert [create.transport for create in server.creates] == ["http"]
    assert one.fallbacks == {"unreliable": 1}


async def test_a_handshake_that_breaks_the_rules_leaves_the_turn_to_http() -> None:
    body = msgspec.json.encode({"error": {"message": "There is nothing here.", "code": "model_not_found"}})

    async def breaks_the_rules(exchange: Exchange) -> None:
        if exchange.got.method == "GET":
            await exchange.send(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        else:
            await refuses(404, msgspec.json.decode(body))(exchange)

    async with providing(breaks_the_rules) as provider, connected(f"{provider.url}/v1") as one:
        assert (await Conversation(one).refused()).code == "model_not_found"
    assert [got.method for got in provider.got] == ["GET", "POST"]
    assert one.fallbacks == {"no_websocket": 1}


async def test_an_upgrade_that_nobody_answers_is_no_answer_to_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with providing(hangs) as provider, connected(f"{provider.url}/v1", connect_timeout_s=60.0) as one:
        asking = asyncio.create_task(Conversation(one).refused())
        for upgrades in range(1, 4):
            await provider.seen(upgrades)
            clock.forward(2 * 60.0)  # what it takes to connect, and to upgrade
        problem = await asking
    assert (problem.code, problem.message) == (
        "upstream_unreachable",
        "No connection to the upstream 'acme' within 60 s.",
    )
    assert len(provider.got) == 3


async def test_sockets_that_break_again_and_again_are_given_up() -> None:
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(*[Cut(at="events", events=3)] * MOST_FAILURES)
        chain = Conversation(one)
        for _ in range(MOST_FAILURES):
            assert (await chain.run()).status == "failed"
        await chain.run()
    assert [create.transport for create in server.creates] == ["websocket"] * MOST_FAILURES + ["http"]
    assert one.fallbacks == {"unreliable": 1}


async def test_a_message_that_is_too_large_goes_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.upstreams.websocket.MAX_MESSAGE_BYTES", 20_000)
    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        await chain.run()
        await chain.run(user_message("x" * 20_000))
        await chain.run()
        assert prompts(server.executions)[-1] == chain.items[:-1]
    assert [create.transport for create in server.creates] == ["websocket", "http", "http"]
    assert one.fallbacks == {"too_large": 2}


@pytest.mark.parametrize(("size", "transports"), [(70_000, ["websocket", "http"]), (10, ["websocket"])])
async def test_a_message_that_the_provider_finds_too_large_goes_over_http(size: int, transports: list[str]) -> None:
    """It closes the socket without having read it (RFC 6455, 7.4.1). No server finds a small one too large."""
    async with responding(OPENAI) as server, connected(server) as one:
        server.plan(Cut(at="events", events=0, close_code=1009))
        chain = Conversation(one)
        if len(transports) == 2:
            assert (await chain.run(user_message("x" * size))).status == "completed"
        else:
            assert (await chain.refused(user_message("x" * size))).repeat == "paid"
    assert [create.transport for create in server.creates] == transports
    assert one.fallbacks == ({"too_large": 1} if len(transports) == 2 else {})


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    async with responding(OPENAI) as server:
        url = server.base_url
    async with connected(url) as one:
        problem = await Conversation(one).refused()
        assert (problem.code, one.failures["upstream_unreachable"]) == ("upstream_unreachable", 3)
        assert one.fallbacks == {}


async def test_a_turn_notes_whether_only_what_is_new_was_sent() -> None:
    """For the log of turns. The first turn of a conversation continues nothing."""

    async def noted(chain: Conversation) -> str | None:
        request = chain.request()
        chain.parent = turn_of(request, (await finish(chain.upstream, request)).output)
        return request.notes.continuation

    async with responding(OPENAI) as server, connected(server) as one:
        chain = Conversation(one)
        first = await noted(chain)
        fork = chain.fork()
        assert (first, await noted(chain), await noted(fork)) == (None, "hit", "unknown")
