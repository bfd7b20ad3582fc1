"""Prompts as tokens: continued or whole they are the same, and only what is new is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.loss_warnings import BROKEN_ARGUMENTS
from segue.engine.prompt.chat_template import ChatTemplate
from segue.engine.prompt.rendering import Prompt, PromptRenderer
from segue.history.chains import History, Turn, path
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.protocol.items import Item, user_message
from segue.protocol.problems import Refused
from segue.protocol.requests import Settings, json_text
from segue.testing.tiny_model import CHAT_TEMPLATE
from tests.strategies import examples

pytestmark = pytest.mark.local_engine

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SETTINGS = Settings(model="m")


def ident(number: int) -> ResponseId:
    return new_response_id(number.to_bytes(ENTROPY_BYTES, "big"))


def said(text: str) -> Item:
    return json.dumps({"type": "message", "role": "assistant", "content": text}).encode()


def called(number: int, arguments: str) -> tuple[Item, Item]:
    call = {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": arguments}
    return json.dumps(call).encode(), json.dumps(
        {"type": "function_call_output", "call_id": f"c{number}", "output": "done"}
    ).encode()


class Reading:
    """A renderer whose tokenizer makes a token of each character, and counts them."""

    def __init__(self, context: int = 100_000) -> None:
        self.renderer = PromptRenderer(ChatTemplate(CHAT_TEMPLATE), context)
        self.read = 0

    def tokens(self, text: str, control: bool) -> list[int]:
        self.read += len(text)
        return [ord(char) + 0x110000 * control for char in text]

    def render(
        self, number: int, parent: Turn | None, items: Sequence[Item], given: Settings = SETTINGS, tenant: str = "a"
    ) -> Prompt:
        self.read = 0
        history = History(parent, tuple(items))
        return self.renderer.render(ident(number), history, given, tenant=tenant, tokenizer=self.tokens)


def turn(number: int, parent: Turn | None, items: Sequence[Item], output: Sequence[Item]) -> Turn:
    return Turn(
        id=ident(number), parent=parent, input=tuple(items), output=tuple(output), calls=frozenset(), stored=True
    )


texts = st.text(max_size=30)
#: A turn: which earlier one it continues, what is asked, what is answered, whether the answer calls a function.
plans = st.lists(st.tuples(st.integers(0, 9), texts, texts, st.booleans()), min_size=1, max_size=8)


@settings(max_examples=examples(200))
@given(plans, st.booleans())
def test_continued_is_whole(plan: list[tuple[int, str, str, bool]], with_tools: bool) -> None:
    """For any tree of turns: what the kept prompts and the news come to is what the whole history comes to."""
    reading, fresh = Reading(), Reading()
    given = msgspec.structs.replace(SETTINGS, tools=[TOOL] if with_tools else [], instructions=json_text("be short"))
    turns: list[Turn] = []
    for number, (choice, asked, answered, calls) in enumerate(plan):
        parent = turns[choice % len(turns)] if turns and choice else None
        new: list[Item] = [user_message(asked)]
        if parent is not None and b"function_call" in parent.output[-1]:
            new = [called(len(turns) - 1, "{}")[1], *new]
        output = [said(answered), *([called(number, "{}")[0]] if calls else [])]
        prompt = reading.render(number, parent, new, given)
        turns.append(turn(number, parent, new, output))
        items = [item for one in path(parent) for item in (*one.input, *one.output)]
        whole = fresh.render(1000 + number, None, [*items, *new], given)
        assert prompt.tokens == whole.tokens
        if parent is not None:
            assert prompt.rendered < len(prompt.tokens), "the parent's prompt was not read again"


def test_it_is_told_where_the_arguments_of_a_call_were_rewritten() -> None:
    """In each turn that has the call in its prompt: whole, continued, or after its turn was dropped."""
    reading, fresh = Reading(), Reading()
    for number, (arguments, warnings) in enumerate((('{"a":"lo', (BROKEN_ARGUMENTS,)), ("", ()), ('{"a":1}', ()))):
        call, output = called(number, arguments)
        first = [user_message("look")]
        reading.render(2 * number, None, first)
        parent = turn(2 * number, None, first, [call])
        assert reading.render(2 * number + 1, parent, [output]).warnings == warnings
        later = turn(2 * number + 1, parent, [output], [said("Done.")])
        again = reading.render(100 + number, later, [user_message("and now")])
        assert (again.warnings, again.rendered < len(again.tokens)) == (warnings, True)
        assert fresh.render(100 + number, later, [user_message("and now")]).warnings == warnings


def test_what_was_dropped_with_its_turn_was_not_rewritten() -> None:
    call, output = called(0, "not JSON")
    items = [user_message("look"), call, output]
    parent = turn(0, None, items, [said("Done.")])
    given = msgspec.structs.replace(SETTINGS, truncation="auto")
    whole = Reading(context=10_000).render(1, parent, [user_message("and now")], given)
    assert (whole.dropped, whole.warnings) == (0, (BROKEN_ARGUMENTS,))
    small = Reading(context=len(whole.tokens)).render(1, parent, [user_message("and now")], given)
    assert (small.dropped, small.warnings) == (1, ())


def chain(reading: Reading, length: int) -> Turn:
    parent: Turn | None = None
    for number in range(length):
        items = [user_message("a question of some length")]
        reading.render(number, parent, items)
        parent = turn(number, parent, items, [said("an answer of some length")])
    assert parent is not None
    return parent


def test_the_work_does_not_grow_with_the_conversation() -> None:
    """Neither in characters read nor in what is kept."""
    work = []
    for length in (1, 50):
        reading = Reading()
        parent = chain(reading, length)
        reading.render(length, parent, [user_message("and now")])
        work.append(reading.read)
    assert work[0] == work[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda given: msgspec.structs.replace(given, instructions=json_text("other")),
        lambda given: msgspec.structs.replace(given, tools=[TOOL]),
    ],
)
def test_what_stands_before_everything_changes_everything(change: Callable[[Settings], Settings]) -> None:
    """Instructions and tools are those of the request: with others, all is read again."""
    reading, fresh = Reading(), Reading()
    parent = chain(reading, 3)
    given = change(SETTINGS)
    prompt = reading.render(3, parent, [user_message("and now")], given)
    assert prompt.rendered == len(prompt.tokens)
    assert prompt.tokens == fresh.render(3, parent, [user_message("and now")], given).tokens


def test_nothing_is_kept_for_another_tenant() -> None:
    reading = Reading()
    parent = chain(reading, 3)
    prompt = reading.render(3, parent, [user_message("and now")], tenant="b")
    assert prompt.rendered == len(prompt.tokens)


def test_the_prompts_of_a_forgotten_tenant_are_not_kept() -> None:
    reading = Reading()
    parent = chain(reading, 2)
    reading.renderer.forget_tenant("b")
    assert reading.renderer.cached
    reading.renderer.forget_tenant("a")
    assert not reading.renderer.cached
    prompt = reading.render(3, parent, [user_message("or")])
    assert prompt.rendered == len(prompt.tokens)


def test_a_forgotten_prompt_is_not_kept() -> None:
    """What continues it is read whole; what already did keeps its own beginning."""
    reading = Reading()
    parent = chain(reading, 2)
    reading.render(2, parent, [user_message("and now")])
    child = turn(2, parent, [user_message("and now")], [said("yes")])
    reading.renderer.forget("b", [parent.id])
    assert reading.render(3, parent, [user_message("or")]).rendered < 150
    reading.renderer.forget("a", [ident(0), parent.id, ident(77)])
    other = reading.render(4, parent, [user_message("or")])
    assert other.rendered == len(other.tokens) > 150
    assert reading.render(5, child, [user_message("and then")]).rendered < 150


def test_what_nobody_will_continue_is_not_kept() -> None:
    reading = Reading()
    history = History(None, (user_message("a question of some length"),))
    reading.renderer.render(ident(1), history, SETTINGS, tenant="a", tokenizer=reading.tokens, keep=False)
    parent = turn(1, None, history.input, [said("an answer")])
    prompt = reading.render(2, parent, [user_message("and now")])
    assert prompt.rendered == len(prompt.tokens)


def test_forgotten_prompts_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are forgotten, the others stay cached."""
    monkeypatch.setattr("segue.engine.prompt.rendering._MAX_BYTES", 8000)
    reading = Reading()
    parent = chain(reading, 2)
    for number in range(10, 60):
        reading.render(number, None, [user_message("a question of some length")])
        reading.renderer.forget("a", [ident(number)])
    assert reading.render(3, parent, [user_message("and now")]).rendered < 150


def test_a_truncated_prompt_is_not_continued() -> None:
    """Which turns are left out is decided anew each time."""
    reading = Reading(context=400)
    given = msgspec.structs.replace(SETTINGS, truncation="auto")
    parent: Turn | None = None
    dropped = []
    for number in range(12):
        items = [user_message("a question of some length")]
        prompt = reading.render(number, parent, items, given)
        assert len(prompt.tokens) < 400
        dropped.append(prompt.dropped)
        parent = turn(number, parent, items, [said("an answer of some length")])
    assert dropped == sorted(dropped)
    assert dropped[-1] > 0


def test_what_does_not_fit_is_refused_with_the_whole_number() -> None:
    """Also where only the news were read at first."""
    reading = Reading(context=400)
    parent = chain(reading, 3)
    with pytest.raises(Refused, match=r"has \d+ tokens, but the context of this model holds 400"):
        reading.render(3, parent, [user_message("x" * 300)])


def test_a_template_that_refuses_is_the_clients_business() -> None:
    """Roles that a model does not take in this order are an error with a reason, not a failure."""
    source = CHAT_TEMPLATE + "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}"
    reading = Reading()
    reading.renderer = PromptRenderer(ChatTemplate(source), 1000)
    items = [user_message("a"), said("b"), user_message("c")]
    with pytest.raises(Refused, match="one at a time") as caught:
        reading.render(1, None, items)
    assert caught.value.problem.code == "invalid_value"


# --- counting --------------------------------------------------------------------------------------------------------


def test_a_prompt_is_counted_as_it_would_be_rendered() -> None:
    """A continuation too, of which only what is new is read; and nothing is kept."""
    reading = Reading()
    parent = chain(reading, 3)
    history = History(parent, (user_message("and now"),))
    kept = reading.renderer.cached
    reading.read = 0
    count = reading.renderer.count(history, SETTINGS, tenant="a", tokenizer=reading.tokens)
    assert reading.read < count
    assert reading.renderer.cached == kept
    assert count == len(reading.render(3, parent, [user_message("and now")]).tokens)


def test_a_prompt_that_does_not_fit_is_counted_too() -> None:
    """Up to four contexts; with `truncation`, what would be read is counted."""
    whole, small = Reading(), Reading(context=300)
    items = [user_message("x" * 400)]
    expected = len(whole.render(1, None, items).tokens)
    count = small.renderer.count(History(None, tuple(items)), SETTINGS, tenant="a", tokenizer=small.tokens)
    assert 300 < count == expected
    with pytest.raises(Refused) as caught:
        small.renderer.count(History(None, (user_message("x" * 2000),)), SETTINGS, tenant="a", tokenizer=small.tokens)
    assert (caught.value.problem.code, "holds 300" in caught.value.problem.message) == ("context_length_exceeded", True)
    auto = msgspec.structs.replace(SETTINGS, truncation="auto")
    history = History(turn(1, None, items, [said("ok")]), (user_message("and now"),))
    assert small.renderer.count(history, auto, tenant="a", tokenizer=small.tokens) < 300


def test_what_cannot_be_rendered_cannot_be_counted() -> None:
    reading = Reading()
    image = b'{"role":"user","content":[{"type":"input_image","image_url":"x"}]}'
    with pytest.raises(Refused) as caught:
        reading.renderer.count(History(None, (image,)), SETTINGS, tenant="a", tokenizer=reading.tokens)
    assert caught.value.problem.code == "invalid_value"
