"""The doubles of Responses servers keep, evict and refuse what their documentation says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pytest
from msgspec.structs import replace

from segue.testing.response_events import Json, called, said, thought
from segue.testing.responses_rules import (
    OPEN_RESPONSES,
    OPENAI,
    ConnectionMemory,
    CreateRefusal,
    Model,
    PlannedTurn,
    ServerMemory,
    ServerRules,
    counting,
    playing,
    turns_before,
)

Given: TypeAlias = "str | list[Json]"

KINDS = {"openai": OPENAI, "plain": OPEN_RESPONSES}


class Conversation:
    """A server and one connection to it."""

    def __init__(self, rules: ServerRules, model: Model = counting) -> None:
        self.memory = ServerMemory(rules, model)
        self.connection = ConnectionMemory(0)

    def begin(self, given: Given = "Hi", /, *, http: bool = False, **fields: object) -> PlannedTurn | CreateRefusal:
        create = {"model": "m", "input": given, **fields}
        if http:
            return self.memory.begin(create, None, transport="http")
        return self.memory.begin(create, self.connection, transport="websocket")

    def turn(self, given: Given = "Hi", /, *, http: bool = False, **fields: object) -> str:
        planned = self.begin(given, http=http, **fields)
        assert isinstance(planned, PlannedTurn), planned
        self.memory.finish(planned, None if http else self.connection)
        return planned.kept.response_id

    def refusal(self, given: Given = "Hi", /, *, http: bool = False, **fields: object) -> CreateRefusal:
        planned = self.begin(given, http=http, **fields)
        assert isinstance(planned, CreateRefusal)
        return planned


@pytest.mark.parametrize("rules", KINDS.values(), ids=list(KINDS))
class TestBothKinds:
    def test_a_continuation_has_the_whole_history(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn("One", store=False)
        one.turn("Two", store=False, previous_response_id=first)
        texts = [item["content"][0]["text"] for item in one.memory.executions[1].history]
        assert texts == ["One", "This is answer 1, to a history of 1 items.", "Two"]

    def test_an_unstored_response_lives_on_its_connection(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn(store=False)
        one.connection = ConnectionMemory(1)
        refusal = one.refusal(previous_response_id=first)
        assert (refusal.status, refusal.code) == (400, "previous_response_not_found")
        assert refusal.param == "previous_response_id"

    def test_a_stored_response_is_found_from_anywhere(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn()
        one.connection = ConnectionMemory(1)
        one.turn(previous_response_id=first)
        one.turn(previous_response_id=first, http=True)
        assert len(one.memory.executions[-1].history) == 3

    def test_http_knows_stored_responses_only(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn(store=False)
        assert one.refusal(previous_response_id=first, http=True).code == "previous_response_not_found"

    def test_a_superseded_response_is_gone(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn(store=False)
        one.turn(store=False, previous_response_id=first)
        assert one.refusal(previous_response_id=first).code == "previous_response_not_found"

    def test_a_failed_continuation_evicts_its_parent(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn(store=False)
        lost = [{"type": "function_call_output", "call_id": "call_9", "output": "1"}]
        assert "call_9" in one.refusal(lost, previous_response_id=first).message
        assert one.refusal(previous_response_id=first).code == "previous_response_not_found"

    def test_a_turn_that_fails_in_the_middle_evicts_its_parent(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn(store=False)
        planned = one.begin(previous_response_id=first)
        assert isinstance(planned, PlannedTurn)
        one.memory.fail(planned, one.connection)
        assert one.memory.executions[1].state == "failed"
        assert one.refusal(previous_response_id=first).code == "previous_response_not_found"

    def test_a_turn_over_http_evicts_nothing(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn()
        one.refusal([{"type": "function_call_output", "call_id": "c", "output": ""}], previous_response_id=first)
        one.turn(previous_response_id=first, http=True)

    def test_every_call_needs_its_output(self, rules: ServerRules) -> None:
        one = Conversation(rules, playing([called("look", call_id="call_1")], [said("Fine.")]))
        first = one.turn("Look")
        assert "No tool output found" in one.refusal("And?", previous_response_id=first).message
        one.turn([{"type": "function_call_output", "call_id": "call_1", "output": "1"}], previous_response_id=first)

    def test_a_model_is_needed(self, rules: ServerRules) -> None:
        assert Conversation(rules).refusal(model=None).param == "model"

    def test_a_forgotten_response_is_gone_everywhere(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn()
        one.memory.forget(first, [one.connection])
        assert one.refusal(previous_response_id=first).code == "previous_response_not_found"

    def test_a_replay_gets_the_same_answer(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        first = one.turn("One")
        one.turn("Two", previous_response_id=first)
        by_id = one.memory.executions[-1]
        one.turn([*by_id.history])
        replayed = one.memory.executions[-1]
        assert counting(by_id.history) == counting(replayed.history)

    def test_an_abandoned_turn_is_not_kept(self, rules: ServerRules) -> None:
        one = Conversation(rules)
        planned = one.begin()
        assert isinstance(planned, PlannedTurn)
        one.memory.abandon(planned)
        assert one.memory.executions[0].state == "abandoned"
        assert not one.memory.stored

    def test_a_server_may_run_on_without_the_client(self, rules: ServerRules) -> None:
        one = Conversation(replace(rules, runs_on=True))
        planned = one.begin()
        assert isinstance(planned, PlannedTurn)
        one.memory.abandon(planned)
        assert one.memory.executions[0].state == "completed"
        assert list(one.memory.stored) == [planned.kept.response_id]

    def test_members_that_the_server_does_not_know_are_refused(self, rules: ServerRules) -> None:
        one = Conversation(replace(rules, refused_fields=frozenset({"include"})))
        refusal = one.refusal(include=["reasoning.encrypted_content"])
        assert (refusal.status, refusal.param) == (400, "include")
        one.turn(include=[])


class TestOpenAi:
    def test_each_lane_keeps_its_latest(self) -> None:
        one = Conversation(OPENAI)
        first, other = one.turn(store=False, stream_id="a"), one.turn(store=False, stream_id="b")
        one.turn(store=False, stream_id="a", previous_response_id=first)
        one.turn(store=False, stream_id="b", previous_response_id=other)
        assert [run.lane for run in one.memory.executions] == ["a", "b", "a", "b"]

    def test_a_failed_fork_keeps_the_parent(self) -> None:
        one = Conversation(OPENAI)
        first = one.turn(store=False, stream_id="a")
        lost = [{"type": "function_call_output", "call_id": "call_9", "output": "1"}]
        one.refusal(lost, stream_id="b", previous_response_id=first)
        one.turn(stream_id="b", previous_response_id=first)

    def test_the_names_of_lanes_are_counted(self) -> None:
        one = Conversation(OPENAI)
        assert [one.memory.check_lane({"stream_id": f"l{n}"}, one.connection) for n in range(32)] == [None] * 32
        refusal = one.memory.check_lane({"stream_id": "l32"}, one.connection)
        assert refusal is not None
        assert refusal.code == "websocket_stream_limit_reached"
        assert one.memory.check_lane({"stream_id": "l0"}, one.connection) is None
        assert one.memory.check_lane({}, one.connection) is None

    def test_an_empty_lane_name_is_refused(self) -> None:
        one = Conversation(OPENAI)
        refusal = one.memory.check_lane({"stream_id": ""}, one.connection)
        assert refusal is not None
        assert refusal.code == "invalid_stream_id"

    def test_a_warm_up_runs_no_model_and_can_be_continued(self) -> None:
        one = Conversation(OPENAI)
        warmed = one.turn("Know this.", generate=False, store=False)
        assert one.memory.executions == []
        one.turn("Go", previous_response_id=warmed)
        assert len(one.memory.executions[0].history) == 2

    def test_an_abandoned_warm_up_is_nothing(self) -> None:
        one = Conversation(OPENAI)
        planned = one.begin(generate=False)
        assert isinstance(planned, PlannedTurn)
        one.memory.abandon(planned)
        failed = one.begin(generate=False)
        assert isinstance(failed, PlannedTurn)
        one.memory.fail(failed, one.connection)
        assert one.memory.executions == []

    def test_reasoning_must_come_back_sealed_or_be_stored(self) -> None:
        one = Conversation(OPENAI, playing([thought("Hm."), said("Yes.")], [said("Still yes.")]))
        sealed = one.begin("Is it?", include=["reasoning.encrypted_content"], store=False)
        plain = one.begin("Is it?", store=False)
        assert isinstance(sealed, PlannedTurn)
        assert isinstance(plain, PlannedTurn)
        one.turn([*sealed.kept.history, user("Sure?")])
        refusal = one.refusal([*plain.kept.history, user("Sure?")])
        assert (refusal.status, refusal.code) == (404, "item_not_found")
        one.memory.finish(plain, None)
        assert one.refusal([*plain.kept.history, user("Sure?")]).status == 404
        one.memory.stored[plain.kept.response_id] = plain.kept
        one.turn([*plain.kept.history, user("Sure?")])


class TestOpenResponses:
    def test_the_connection_keeps_the_most_recent_response_only(self) -> None:
        one = Conversation(OPEN_RESPONSES)
        first = one.turn(store=False)
        one.turn(store=False)
        assert one.refusal(previous_response_id=first).code == "previous_response_not_found"

    def test_lanes_are_refused(self) -> None:
        one = Conversation(OPEN_RESPONSES)
        refusal = one.memory.check_lane({"stream_id": "a"}, one.connection)
        assert refusal is not None
        assert refusal.param == "stream_id"

    def test_a_warm_up_is_not_known_and_runs_the_model(self) -> None:
        one = Conversation(OPEN_RESPONSES)
        one.turn(generate=False)
        assert len(one.memory.executions) == 1


def user(text: str) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@pytest.mark.parametrize(
    ("history", "turns"),
    [
        ([], 0),
        ([user("a")], 0),
        ([user("a"), thought("b"), said("c")], 1),
        ([user("a"), called("f", call_id="1"), {"type": "function_call_output"}, said("c"), user("d")], 2),
    ],
)
def test_turns_of_the_model_are_counted(history: Sequence[Json], turns: int) -> None:
    assert turns_before(history) == turns


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "too_many_requests"), (503, "server_error")]
)
def test_an_error_has_the_type_of_its_status(status: int, kind: str) -> None:
    error = CreateRefusal(status=status, code="c", message="m").error()
    assert error == {"type": kind, "code": "c", "message": "m", "param": None}
