"""Items that change settings: what they change, and which tool of a name counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.configuration_items import MOST_KEPT, follow_updates, updates_in, with_updates
from segue.protocol.items import Input, Item, parse_input
from segue.protocol.problems import Problem, missing
from segue.protocol.requests import MOST_TOOLS, Settings
from tests.strategies import examples


def item(**fields: object) -> Item:
    return json.dumps(fields).encode()


def tools(*named: str, **fields: object) -> Item:
    offered = [{"type": "function", "name": name, **fields} for name in named]
    return item(type="additional_tools", role="developer", tools=offered)


def updated(settings_before: Settings, *updates: Item) -> Settings:
    found = with_updates(settings_before, updates)
    assert isinstance(found, Settings), found
    return found


def test_tools_are_added_and_the_newest_of_a_name_counts() -> None:
    before = Settings(model="m", tools=[{"type": "function", "name": "a"}, {"type": "web_search"}])
    found = updated(before, tools("b"), tools("a", "b", strict=True))
    assert found.tools == [
        {"type": "function", "name": "a", "strict": True},
        {"type": "web_search"},
        {"type": "function", "name": "b", "strict": True},
    ]
    assert len(before.tools) == 2


def test_what_an_update_says_stands_over_the_request_and_what_it_does_not_say_stays() -> None:
    before = Settings(model="m", reasoning={"effort": "low", "summary": "auto"}, text={"verbosity": "low"})
    first = item(type="configuration_update", reasoning={"effort": "high", "summary": None}, text=None)
    second = item(type="configuration_update", text={"format": {"type": "json_object"}})
    found = updated(before, first, second)
    assert found.reasoning == {"effort": "high", "summary": "auto"}
    assert found.text == {"verbosity": "low", "format": {"type": "json_object"}}
    assert updated(Settings(model="m"), second).reasoning is None


def test_a_tool_without_its_name_and_too_many_tools_are_refused() -> None:
    nameless = item(type="additional_tools", tools=[{"type": "custom"}])
    assert with_updates(Settings(model="m"), [nameless]) == missing("input.tools.name")
    many = with_updates(Settings(model="m"), [tools(*map(str, range(MOST_TOOLS + 1)))])
    assert isinstance(many, Problem)
    assert many.param == "tools"


def test_an_item_that_nobody_has_checked_is_a_problem() -> None:
    """As of a turn that an earlier version has stored."""
    assert isinstance(with_updates(Settings(model="m"), [item(type="additional_tools", tools=7)]), Problem)


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "additional_tools"},
        {"type": "additional_tools", "tools": {}},
        {"type": "additional_tools", "tools": [{"name": "a"}]},
        {"type": "configuration_update", "reasoning": "high"},
        {"type": "configuration_update", "text": []},
    ],
)
def test_what_is_no_setting_is_refused_when_it_arrives(bad: dict[str, Any]) -> None:
    assert isinstance(parse_input(json.dumps([bad]).encode()), Problem)


_configuration = st.one_of(
    st.lists(st.fixed_dictionaries({"type": st.sampled_from(["function", "x"]), "name": st.sampled_from("ab")})).map(
        lambda offered: {"type": "additional_tools", "tools": offered}
    ),
    st.dictionaries(st.sampled_from(["effort", "summary"]), st.none() | st.text(max_size=3)).map(
        lambda reasoning: {"type": "configuration_update", "reasoning": reasoning}
    ),
    st.just({"role": "user", "content": '"additional_tools"'}),
)


@given(st.lists(_configuration, max_size=6))
@settings(max_examples=examples(300))
def test_an_input_knows_its_updates_and_they_can_be_applied(given_items: list[dict[str, Any]]) -> None:
    """One after the other, or all at once."""
    parsed = parse_input(json.dumps(given_items).encode())
    assert isinstance(parsed, Input)
    assert parsed.updates == updates_in(parsed.items)
    whole, step = updated(Settings(model="m"), *parsed.updates), Settings(model="m")
    for update in parsed.updates:
        step = updated(step, update)
    assert whole == step


def test_many_updates_of_a_chain_become_few_that_say_the_same() -> None:
    """Else each turn of a long chain reads them all, and each turn in memory has a list of all before it."""
    before = Settings(model="m", tools=[{"type": "function", "name": "3"}], reasoning={"summary": "auto"})
    said = [tools(str(number % 5), version=number) for number in range(3 * MOST_KEPT)]
    said += [item(type="configuration_update", reasoning={"effort": str(number)}) for number in range(MOST_KEPT)]
    kept: tuple[Item, ...] = ()
    for update in said:
        kept = follow_updates(kept, (update,))
        assert len(kept) <= MOST_KEPT
    assert updated(before, *kept) == updated(before, *said)
    nameless = item(type="additional_tools", tools=[{"type": "custom"}])
    assert follow_updates(kept, (nameless,) * MOST_KEPT) == (*kept, *(nameless,) * MOST_KEPT)
