"""Items that are sent again are in the history once; what is new, or only looks the same, stays."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.history.chains import History, Turn
from segue.history.repeated_items import is_same, leave_out_repeats
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import Input, Item, calls_of, parse_input
from segue.protocol.problems import already_answered
from tests.strategies import examples

Json = dict[str, Any]


def user(text: str, **fields: object) -> Json:
    return {"role": "user", "content": text, **fields}


def said(text: str, **fields: object) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "content": content, **fields}


def call(call_id: str, arguments: str = "{}", **fields: object) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": arguments, **fields}


def out(call_id: str, output: object = "done", **fields: object) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output, **fields}


def thought(text: str = "", **fields: object) -> Json:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "summary": summary, **fields}


def written(*items: Json) -> tuple[Item, ...]:
    return tuple(json.dumps(item).encode() for item in items)


def chain(*turns: tuple[list[Json], list[Json]], restored: bool = False) -> Turn | None:
    """A chain of turns with this input and output each; `restored`: as it is read from a store."""
    tip: Turn | None = None
    for number, (asked, answered) in enumerate(turns):
        taken, output = parsed(*asked), written(*answered)
        tip = Turn(
            id=new_response_id(bytes([number]) * ENTROPY_BYTES),
            parent=tip,
            input=taken.items,
            output=output,
            calls=taken.calls | calls_of(output),
            answered=None if restored else taken.answered,
            stored=True,
        )
    return tip


def parsed(*items: Json) -> Input:
    value = parse_input(json.dumps(items).encode())
    assert isinstance(value, Input)
    return value


def left(parent: Turn | None, *items: Json) -> list[Json]:
    """What is left of an input."""
    kept = leave_out_repeats(parent, parsed(*items))
    assert isinstance(kept, Input), kept
    alone = parsed(*map(json.loads, kept.items))
    assert (kept.items, kept.calls, kept.keys) == (alone.items, alone.calls, alone.keys), (
        "as if only that had been sent"
    )
    return [json.loads(item) for item in kept.items]


ASKED = ([user("Look.")], [call("A1")])
GOES_ON = ([out("A1")], [call("B1")])


# --- one item again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restored", [False, True])
def test_an_output_that_is_sent_again_beside_the_next_one_is_left_out(restored: bool) -> None:
    parent = chain(ASKED, GOES_ON, restored=restored)
    assert left(parent, out("A1"), out("B1")) == [out("B1")]
    assert left(parent, out("B1"), out("A1")) == [out("B1")]
    assert left(parent, call("A1"), out("A1"), call("B1"), out("B1"), user("So?")) == [out("B1"), user("So?")]


@pytest.mark.parametrize("again", [out("A1", [{"type": "input_text", "text": "done"}]), out("A1", status="completed")])
def test_how_an_item_is_written_does_not_matter(again: Json) -> None:
    assert left(chain(ASKED, GOES_ON), again, out("B1")) == [out("B1")]


def test_another_output_of_an_answered_call_is_refused() -> None:
    """A call has one output; providers refuse a second one."""
    parent = chain(ASKED, GOES_ON)
    refused = already_answered("A1", 1)
    assert leave_out_repeats(parent, parsed(out("B1"), out("A1", "other"))) == refused
    assert leave_out_repeats(None, parsed(call("A1"), out("B1"), out("A1"), out("A1", "other"))) == already_answered(
        "A1", 3
    )
    assert (refused.code, refused.param) == ("invalid_value", "input[1].output")


def test_a_type_that_is_not_known_is_left_to_the_provider() -> None:
    def shell(output: str) -> Json:
        return {"type": "shell_call_output", "call_id": "S1", "output": output}

    parent = chain(
        ([user("Go.")], [{"type": "shell_call", "call_id": "S1", "id": "sh_1"}]), ([shell("a")], [said("ok")])
    )
    assert left(parent, shell("a"), user("Hm?")) == [user("Hm?")]
    assert left(parent, shell("b")) == [shell("b")]


def test_a_call_that_is_made_again_under_the_same_id_is_answered_anew() -> None:
    """Some servers call their calls `call_0` in each turn."""
    once, twice = (
        chain(([user("Look.")], [call("c")])),
        chain(([user("Look.")], [call("c")]), ([out("c")], [call("c")])),
    )
    assert left(once, out("c")) == [out("c")]
    assert left(twice, out("c")) == [out("c")]
    assert left(None, call("c"), out("c"), call("c"), out("c")) == [call("c"), out("c"), call("c"), out("c")]
    thrice = chain(
        ([user("Look.")], [call("c", "1")]), ([out("c", "x")], [call("c", "2")]), ([out("c", "y")], [said("ok")])
    )
    window = [out("c", "x"), call("c", "2"), out("c", "y"), user("So?")]
    assert left(thrice, call("c", "1"), *window) == [call("c", "1"), out("c", "x"), user("So?")]


@pytest.mark.parametrize("restored", [False, True])
def test_all_outputs_under_one_call_id_may_be_sent_with_the_newest(restored: bool) -> None:
    """The last one answers the call that waits, and those before it are the ones that the history holds."""
    turns = [([user("Look.")], [call("c")]), ([out("c", "1")], [call("c")]), ([out("c", "2")], [call("c")])]
    assert left(chain(*turns[:2], restored=restored), out("c", "1"), out("c", "2")) == [out("c", "2")]
    assert left(chain(*turns[:2], restored=restored), out("c", "1"), out("c", "1")) == [out("c", "1")]
    assert left(chain(*turns, restored=restored), *(out("c", each) for each in "123")) == [out("c", "3")]
    assert left(chain(*turns, restored=restored), out("c", "2"), out("c", "3")) == [out("c", "3")]
    assert left(chain(*turns[:2]), out("c", "1"), call("c"), out("c", "2")) == [out("c", "2")]


def test_another_output_under_one_call_id_is_refused_though_the_history_holds_others() -> None:
    parent = chain(([user("Look.")], [call("c")]), ([user("Hm."), out("c", "1")], [call("c")]))
    refused = already_answered("c", 1)
    assert leave_out_repeats(parent, parsed(out("c", "2"), out("c", "3"))) == refused
    assert leave_out_repeats(chain(ASKED), parsed(out("A1", "2"), out("A1", "3"))) == already_answered("A1", 1)
    three = parsed(out("c", "1"), out("c", "2"), out("c", "3"))
    assert leave_out_repeats(parent, three) == already_answered("c", 2)


def test_an_item_with_an_id_that_the_history_has_is_left_out() -> None:
    parent = chain(([user("Hi.", id="u1")], [said("Hello.", id="msg_1"), call("A1", id="fc_1")]), GOES_ON)
    assert left(parent, said("Hello.", id="msg_1"), user("So?")) == [user("So?")]
    assert left(parent, user("Hi.", id="u1"), out("B1")) == [out("B1")]
    assert left(parent, user("Hi.", id="u2")) == [user("Hi.", id="u2")]
    other = [said("Bye.", id="msg_1"), user("Hello.", id="msg_1")]
    assert left(parent, *other) == other, "another item, though its author gave it a used id"
    assert left(None, user("Hi.", id="u1"), user("Hi.", id="u1")) == [user("Hi.", id="u1")]


def test_what_has_no_id_may_be_said_again() -> None:
    parent = chain(([user("Go on.")], [said("ok")]))
    assert left(parent, user("Go on."), user("Go on.")) == [user("Go on."), user("Go on.")]


def test_the_newest_item_of_an_id_is_the_one_that_counts() -> None:
    first = [user("x", id="u2"), user("a", id="u1")]
    parent = chain((first, [said("ok")]), ([user("b", id="u1")], [said("ok")]))
    new = user("c", id="u2")
    assert left(parent, user("b", id="u1"), new) == [new]
    assert left(parent, user("a", id="u1"), new) == [user("a", id="u1"), new]


def test_an_output_of_an_older_turn_is_found_behind_a_call_that_waits() -> None:
    parent = chain(ASKED, ([out("A1")], [said("ok")]), ([user("And?")], [call("C1")]))
    assert left(parent, out("A1"), out("C1")) == [out("C1")]


def test_a_call_and_its_output_that_were_sent_together_are_answered() -> None:
    parent = chain(([user("Look."), call("A1"), out("A1")], [said("ok")]))
    assert left(parent, out("A1"), user("So?")) == [user("So?")]


def test_a_message_with_a_call_id_is_no_answer() -> None:
    odd = user("Hi.", call_id="A1")
    assert left(chain(ASKED), odd, out("A1")) == [odd, out("A1")]


# --- the whole history again -----------------------------------------------------------------------------------------


HISTORY = [user("Look."), call("A1", id="fc_1"), out("A1"), said("Found.", id="msg_1")]
TURNS = ([HISTORY[0]], [thought("Hm.", id="rs_1"), HISTORY[1]]), ([HISTORY[2]], [HISTORY[3]])


@pytest.mark.parametrize("start", range(len(HISTORY)))
def test_the_end_of_the_history_or_all_of_it_is_left_out_of_the_beginning(start: int) -> None:
    """Although a message of a user has nothing to tell it by."""
    assert left(chain(*TURNS), *HISTORY[start:], user("Look.")) == [user("Look.")]


def test_the_items_may_be_written_anew() -> None:
    again = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look."}]},
        thought("Hm."),
        call("A1"),
        out("A1"),
        {"role": "assistant", "content": "Found."},
    ]
    assert left(chain(*TURNS), *again, user("So?")) == [user("So?")]


def test_what_was_said_beside_a_call_may_be_missing_from_a_repeat() -> None:
    """As CrewAI sends it: the calls and their outputs, without the words. Other words are missed."""
    parent = chain(([user("Look.")], [thought("Hm."), said("I look."), call("A1"), call("B1")]))
    asked = [user("Look."), call("A1"), call("B1"), out("A1"), out("B1")]
    assert left(parent, *asked) == [out("A1"), out("B1")]
    asked[1:1] = [said("I look twice.")]
    assert left(parent, *asked) == [user("Look."), said("I look twice."), out("A1"), out("B1")]
    answered = chain(([user("Look.")], [call("A1")]), ([out("A1")], [said("Found."), said("It is there.")]))
    assert left(answered, user("Look."), call("A1"), out("A1"), said("It is there.")) == [
        user("Look."),
        said("It is there."),
    ]


@pytest.mark.parametrize(
    "before", [[user("Before."), *HISTORY], [HISTORY[0], *HISTORY[2:]], [*HISTORY[:3], said("Other.")]]
)
def test_another_beginning_is_not_a_repeat(before: list[Json]) -> None:
    """But for its items that the history holds."""
    kept = [item for item in before if item not in HISTORY[1:]]
    assert left(chain(*TURNS), *before, user("So?")) == [*kept, user("So?")]


def test_a_history_that_ends_with_what_the_model_said_behind_a_call_does_not_end_with_the_call() -> None:
    parent = chain(([user("Look.")], [call("A1"), said("Wait.")]))
    assert left(parent, user("Look."), call("A1"), out("A1")) == [user("Look."), out("A1")]


def test_a_first_turn_has_nothing_to_repeat() -> None:
    assert left(None, *HISTORY) == HISTORY


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[list[Json], list[Json]]]:
    """What is new in each turn, and what the model says to it."""
    turns: list[tuple[list[Json], list[Json]]] = []
    calls: list[str] = []
    for number in range(draw(st.integers(1, 5))):
        news = [out(call_id, draw(st.sampled_from(["x", "y"]))) for call_id in calls]
        news += [user(draw(st.sampled_from(["a", "b"])))] if not calls or draw(st.booleans()) else []
        calls = [f"c{number}.{n}" for n in range(draw(st.integers(0, 2)))]
        output = [call(call_id, id=f"fc_{call_id}") for call_id in calls]
        output += [said("ok", id=f"msg_{number}")] if not calls or draw(st.booleans()) else []
        turns.append((news, [*([thought(id=f"rs_{number}")] if draw(st.booleans()) else []), *output]))
    return turns


@given(conversations(), st.data())
@settings(max_examples=examples(1000))
def test_a_client_that_repeats_itself_and_one_that_does_not_have_the_same_history(
    turns: list[tuple[list[Json], list[Json]]], data: st.DataObject
) -> None:
    """Whatever it sends again: nothing, everything, or outputs and items with an id, before what is new."""
    parent: Turn | None = None
    everything: list[Json] = []
    for number, (news, output) in enumerate(turns):
        told = [item for item in everything if "call_id" in item or "id" in item]
        shown = [item for item in everything if item.get("type") != "reasoning" or data.draw(st.booleans(), "shown")]
        again = data.draw(st.sampled_from(["nothing", "everything", "some"]), "again")
        some = data.draw(st.lists(st.sampled_from(told), max_size=4), "some") if told and again == "some" else []
        sent = [*(shown if again == "everything" else some), *news]
        kept = left(parent, *sent)
        assert kept == news
        parent = Turn(
            id=new_response_id(bytes([number]) * ENTROPY_BYTES),
            parent=parent,
            input=written(*kept),
            output=written(*output),
            calls=calls_of(written(*output)),
            stored=False,
        )
        everything += [*news, *output]
    assert [json.loads(item) for item in History(parent, ()).items()] == everything


# --- what it costs ---------------------------------------------------------------------------------------------------


class Watched(Turn):
    """A turn that notes when it is looked at, by its depth."""

    looked_at: ClassVar[set[int]] = set()

    @property
    def answered(self) -> frozenset[str]:
        self.looked_at.add(self.depth)
        return super().answered


def test_an_answer_to_the_newest_call_looks_at_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """And text at none, whatever the chain's length."""
    monkeypatch.setattr(Watched, "looked_at", set())
    tip: Turn | None = None
    for number in range(50):
        tip = Watched(
            id=new_response_id(bytes([number]) * ENTROPY_BYTES),
            parent=tip,
            input=written(out(f"c{number - 1}")),
            output=written(call(f"c{number}")),
            calls=frozenset({f"c{number}"}),
            answered=frozenset({f"c{number - 1}"}),
            stored=False,
        )
    monkeypatch.setattr("segue.history.repeated_items.key_of", None)
    assert left(tip, user("Hi.")) == [user("Hi.")]
    assert not Watched.looked_at
    assert left(tip, out("c49")) == [out("c49")]
    assert Watched.looked_at == {50}


# --- the same item ---------------------------------------------------------------------------------------------------


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (user("a"), user("a", type="message"), True),
        (user("a"), user("b"), False),
        (user("a"), {"role": "developer", "content": "a"}, False),
        (said("ab"), {"role": "assistant", "content": [{"type": "output_text", "text": x} for x in "ab"]}, True),
        ({"role": "user", "content": [IMAGE]}, {"role": "user", "content": [{**IMAGE, "detail": None}]}, True),
        ({"role": "user", "content": [IMAGE]}, {"role": "user", "content": [{**IMAGE, "image_url": "x"}]}, False),
        (call("a"), call("a", id="fc_1", status="completed"), True),
        (call("a"), call("a", "1"), False),
        (call("a"), call("b"), False),
        (call("a"), {"type": "custom_tool_call", "call_id": "a", "name": "look", "input": "{}"}, False),
        (out("a"), out("a", [{"type": "input_text", "text": "done"}]), True),
        (out("a"), out("b"), False),
        ({"type": "function_call", "call_id": "a"}, {"call_id": "a", "type": "function_call"}, True),
        (
            {"role": "assistant", "content": [IMAGE, {"type": "output_text", "text": "a", "annotations": []}]},
            {"role": "assistant", "content": [IMAGE, {"type": "output_text", "text": "a"}]},
            True,
        ),
        (
            {"role": "user", "content": [{"type": "input_text", "text": text} for text in ("", "a")]},
            {"role": "user", "content": "a"},
            True,
        ),
        (thought("x", id="r1"), thought(id="r1"), True),
        (thought("x", id="r1"), thought("x"), True),
        (thought(id="r1"), thought(id="r2"), False),
        (thought(), thought(encrypted_content="x"), False),
        (SEARCH, {**SEARCH, "action": {"type": "search"}}, True),
        (SEARCH, {**SEARCH, "id": "ws_2"}, False),
        ({"type": "x", "a": 1}, {"a": 1.0, "type": "x"}, True),
        ({"type": "x", "a": 1}, {"type": "x", "a": 2}, False),
    ],
)
def test_two_items_are_the_same_if_they_say_the_same(one: Json, other: Json, same: bool) -> None:
    first, second = written(one, other)
    assert is_same(first, second) is same
    assert is_same(second, first) is same


def test_a_change_of_settings_that_is_sent_again_is_no_new_change() -> None:
    """It would take the place of a newer one."""
    low = {"type": "configuration_update", "id": "cu_1", "reasoning": {"effort": "low"}}
    high = {"type": "configuration_update", "id": "cu_2", "reasoning": {"effort": "high"}}
    parent = chain(([low, user("a")], [said("1")]), ([high, user("b")], [said("2")]))
    new = leave_out_repeats(parent, parsed(low, user("c")))
    assert isinstance(new, Input)
    assert (new.items, new.updates) == (written(user("c")), ())
