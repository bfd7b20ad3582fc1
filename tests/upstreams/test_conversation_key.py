"""The key of a conversation: the same for all its turns, however the client sends them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.history.chains import History, Turn
from segue.protocol.codec import encode
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, chain_tag, new_response_id
from segue.protocol.items import Item, user_message
from segue.protocol.requests import Settings, json_text
from segue.upstreams.conversation_key import ConversationKey, conversation_key_of
from segue.upstreams.interface import UpstreamRequest
from tests.strategies import examples

ROOT, OTHER = (new_response_id(bytes([number]) * ENTROPY_BYTES) for number in (1, 2))
SAID = encode({"type": "message", "role": "assistant", "content": "Hello"})
CALLED = encode({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})
THOUGHT = encode({"type": "reasoning", "summary": []})
ANSWERED = encode({"type": "function_call_output", "call_id": "c", "output": "1"})
SYSTEM = encode({"role": "developer", "content": "Be brief."})
HI = user_message("Hi")


def key_of(
    *items: Item,
    name: ResponseId = ROOT,
    parent: Turn | None = None,
    instructions: str | None = None,
    tenant: str = "ann",
) -> ConversationKey:
    settings = Settings(model="m", instructions=None if instructions is None else json_text(instructions))
    return conversation_key_of(UpstreamRequest("m", name, tenant, History(parent, items), settings))


def test_a_chain_is_known_by_its_tag() -> None:
    """The tag is the same at any depth and in every branch."""
    parent = Turn(id=ROOT, parent=None, input=(HI,), output=(SAID,), calls=frozenset(), stored=False)
    names = [new_response_id(bytes([number]) * ENTROPY_BYTES, ROOT) for number in (7, 8)]
    found = [key_of(HI, name=name, parent=parent) for name in names]
    assert found == [ConversationKey("ann", chain_tag(ROOT))] * 2
    assert key_of(HI).chain == chain_tag(ROOT) != key_of(HI, name=OTHER).chain


@pytest.mark.parametrize("mine", [SAID, CALLED, THOUGHT], ids=["said", "called", "thought"])
def test_a_history_that_is_sent_again_starts_like_its_first_turn(mine: Item) -> None:
    first = key_of(SYSTEM, HI)
    again = key_of(SYSTEM, HI, mine, ANSWERED, HI, name=OTHER)
    assert (first.replayed, again.replayed) == (False, True)
    assert first.prefix_digest == again.prefix_digest != b""


@pytest.mark.parametrize(
    "other",
    [
        key_of(SYSTEM, user_message("Hello")),
        key_of(HI),
        key_of(HI, SYSTEM),
        key_of(SYSTEM, HI, HI),
        key_of(SYSTEM, HI, instructions="Be kind."),
        key_of(SYSTEM + HI),
        key_of(),
    ],
)
def test_what_starts_otherwise_is_another_conversation(other: ConversationKey) -> None:
    assert other.prefix_digest != key_of(SYSTEM, HI).prefix_digest


items = st.lists(st.sampled_from([HI, SAID, CALLED, THOUGHT, ANSWERED, SYSTEM, b"nothing", b"[]", b'{"type":1}']))


@settings(max_examples=examples(200))
@given(items, items)
def test_the_start_ends_where_the_model_speaks(before: Sequence[Item], after: Sequence[Item]) -> None:
    """Items after the model's first one do not change the key, whatever they are."""
    one, other = key_of(*before, SAID), key_of(*before, SAID, *after)
    assert one == other
    assert one.replayed
