"""Each call of a history has an id of its own, in the form of the API, and its output has the same one."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.call_ids import (
    CHAT_CALL_IDS,
    MESSAGES_CALL_IDS,
    RESPONSES_CALL_IDS,
    CallIdCharacters,
    CallIdForm,
    CallIdMapper,
    UsedCallIds,
)
from tests.strategies import examples

MISTRAL = CallIdForm("alphanumeric", 9, exact=True)
FORMS = {
    "messages": (MESSAGES_CALL_IDS, re.compile(r"[a-zA-Z0-9_-]{1,64}")),
    "responses": (RESPONSES_CALL_IDS, re.compile(r".{1,64}", re.DOTALL)),
    "chat": (CHAT_CALL_IDS, re.compile(r".{1,40}", re.DOTALL)),
    "mistral": (MISTRAL, re.compile(r"[a-zA-Z0-9]{9}")),
    "short": (CallIdForm("alphanumeric_-", 12), re.compile(r"[a-zA-Z0-9_-]{1,12}")),
    "long and exact": (CallIdForm("alphanumeric", 60, exact=True), re.compile(r"[a-zA-Z0-9]{60}")),
}
every_form = pytest.mark.parametrize("name", FORMS)

ids = st.sampled_from(["call_0", "call_1", "aB3dE6gH9", "", "x" * 41, "x" * 85, "with space", "é"])
#: A conversation: runs of calls of the model, and how their outputs are ordered.
runs = st.lists(
    st.lists(ids, min_size=1, max_size=4).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made)))
)


@pytest.mark.untraced
@every_form
@given(conversation=runs, cuts=st.data())
@settings(max_examples=examples(150))
def test_calls_have_ids_of_their_own_and_outputs_those_of_their_calls(
    name: str, conversation: list[tuple[list[str], list[str]]], cuts: st.DataObject
) -> None:
    """However the items are cut into turns."""
    form, allowed = FORMS[name]
    whole, used = CallIdMapper(UsedCallIds(), form), UsedCallIds()
    seen: set[str] = set()
    for made, answered in conversation:
        mapper = CallIdMapper(used, form)
        waiting: dict[str, list[str]] = {}
        for call_id in made:
            mapped = mapper.map_call(call_id)
            assert mapped == whole.map_call(call_id)
            assert mapped not in seen
            assert allowed.fullmatch(mapped)
            seen.add(mapped)
            waiting.setdefault(call_id, []).append(mapped)
            mapper = _cut(mapper, form, cuts)
        for call_id in answered:
            mapped = mapper.map_output(call_id)
            assert mapped == whole.map_output(call_id) == waiting[call_id].pop(0)
            mapper = _cut(mapper, form, cuts)
        used = mapper.build()


def _cut(mapper: CallIdMapper, form: CallIdForm, cuts: st.DataObject) -> CallIdMapper:
    return CallIdMapper(mapper.build(), form) if cuts.draw(st.booleans()) else mapper


@every_form
def test_an_id_that_the_api_takes_stays(name: str) -> None:
    form, allowed = FORMS[name]
    own = "aB3dE6gH9" if name != "long and exact" else "a" * 60
    assert allowed.fullmatch(own)
    assert form.wire_id(own) == own
    assert form.wire_id(own, 1) != form.wire_id(own, 2) != own


def test_an_output_never_belongs_to_a_call_of_an_earlier_run() -> None:
    """A call that was cut off has no output; the next call of the same name does."""
    mapper = CallIdMapper(UsedCallIds(), CHAT_CALL_IDS)
    first = mapper.map_call("call_0")
    mapper.end_run()
    second = mapper.map_call("call_0")
    assert first != second
    assert mapper.map_output("call_0") == second
    assert mapper.map_output("call_0") == second, "sent twice"
    assert mapper.map_output("call_7") == "call_7", "its call is not in the history"


def test_a_turn_adds_to_what_is_known_and_does_not_change_it() -> None:
    parent = CallIdMapper(UsedCallIds(), CHAT_CALL_IDS)
    parent.map_call("call_0")
    known = parent.build()
    one, two = CallIdMapper(known, CHAT_CALL_IDS), CallIdMapper(known, CHAT_CALL_IDS)
    assert one.map_call("call_0") == two.map_call("call_0") != "call_0"
    one.build()
    assert CallIdMapper(known, CHAT_CALL_IDS).map_output("call_0") == "call_0"


def test_few_layers_hold_many_ids() -> None:
    """So a look-up costs little, and a turn copies what is small."""
    used = UsedCallIds()
    assert used.size_bytes == 0
    for number in range(1000):
        mapper = CallIdMapper(used, CHAT_CALL_IDS)
        mapper.map_call(f"call_{number}")
        used = mapper.build()
        sizes = [len(layer) for layer in used.layers]
        assert sum(sizes) == number + 1
        assert all(older > 2 * newer for older, newer in pairwise(sizes))
        assert used.size_bytes >= sizes[-1]
    assert CallIdMapper(used, CHAT_CALL_IDS).map_call("call_0") != "call_0"


@pytest.mark.parametrize(("characters", "begins"), [("any", True), ("alphanumeric_-", True), ("alphanumeric", False)])
def test_a_replaced_id_looks_like_one_where_it_may(characters: CallIdCharacters, begins: bool) -> None:
    assert CallIdForm(characters, 64).wire_id("a b" * 30).startswith("call_") is begins
