"""What the endpoint benchmark asks of a server, and what that will cost at most. Pure: code words are passed in.

A conversation says two code words in its first turn. The second turn asks for the first word and the last turn for the
second one, so the answers show whether the model saw the first turn, one turn later and at the end. Each conversation
has words of its own, so a server cannot know them from another. Not here: asking (`conversation`, `checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from segue.client.settings import TransportKind
from segue.upstreams.scripted_recall import ASK_FIRST, ASK_SECOND, tell_words

Json = dict[str, Any]
Asked = Literal["near", "far"]

#: A continuation by an id that the server never made.
UNKNOWN_ID = "resp_00000000000000000000000000000000000000000000000f"

_NEAR_TURN = 2
_NOUNS = ("maple", "river", "stone", "cloud", "amber", "cedar", "delta", "ember")
_NOTE = "The quick brown fox jumps over the lazy dog while the kettle boils and the rain goes on. "
#: About so many bytes of English are one token; about so many tokens is an answer of one word.
_TOKEN_BYTES = 4
_ANSWER_TOKENS = 16
#: Bytes that a message costs beside its text.
_ITEM_BYTES = 60


class EndpointArm(msgspec.Struct, frozen=True, kw_only=True):
    """One way to hold a conversation with a server."""

    name: str
    transport: TransportKind
    history: Literal["replay", "id"]
    store: bool
    api: Literal["responses", "messages"] = "responses"


#: The names are those of `segue.bench.arms`: what is measured here is the same way, at another server.
ENDPOINT_ARMS = (
    EndpointArm(name="http replay", transport="http", history="replay", store=False),
    EndpointArm(name="http id", transport="http", history="id", store=True),
    EndpointArm(name="websocket replay", transport="websocket", history="replay", store=False),
    EndpointArm(name="websocket id, not stored", transport="websocket", history="id", store=False),
    EndpointArm(name="websocket id, stored", transport="websocket", history="id", store=True),
    EndpointArm(name="message threads", transport="http", history="id", store=False, api="messages"),
)

#: Requests beside the conversations: see `checks`.
CHECK_REQUESTS = 13


class EndpointPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to ask."""

    model: str
    turns: Annotated[int, Meta(ge=3, le=100)] = 5
    rounds: Annotated[int, Meta(ge=1, le=50)] = 3
    turn_bytes: Annotated[int, Meta(ge=0, le=100_000)] = 800
    max_output_tokens: Annotated[int, Meta(ge=16, le=10_000)] = 256


class CodeWords(NamedTuple):
    """The two words of one conversation."""

    near: str
    far: str


class PlannedCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the benchmark asks for at most; output tokens are what a server may write, not what it will."""

    requests: int
    input_tokens: int
    output_tokens: int


def code_words(entropy: bytes) -> CodeWords:
    """Make the words of a conversation from eight random bytes."""
    near, far = int.from_bytes(entropy[:4], "big"), int.from_bytes(entropy[4:8], "big")
    return CodeWords(*(f"{_NOUNS[value % 8]}-{value // 8 % 100_000:05}" for value in (near, far)))


def user_text(turn: int, words: CodeWords, plan: EndpointPlan) -> str:
    """Return what the user says in a turn; the first is 1."""
    if turn == 1:
        say = tell_words(*words)
    elif turn == _NEAR_TURN:
        say = ASK_FIRST
    elif turn == plan.turns:
        say = ASK_SECOND
    else:
        say = f"This is note {turn}."
    if asked_in(turn, plan) is not None:
        return f"Notes that do not matter: {_notes(plan.turn_bytes)}\n{say}"
    return f"{say} Answer with: OK.\nNotes that do not matter: {_notes(plan.turn_bytes)}"


def asked_in(turn: int, plan: EndpointPlan) -> Asked | None:
    """Say which word a turn asks for."""
    return "far" if turn == plan.turns else "near" if turn == _NEAR_TURN else None


def word_of(asked: Asked, words: CodeWords) -> str:
    """Return the word that the answer must hold."""
    return words.near if asked == "near" else words.far


def said_by(role: Literal["user", "assistant"], text: str) -> Json:
    """Make a message, in the shortest form that servers take."""
    return {"type": "message", "role": role, "content": text}


def make_create(plan: EndpointPlan, items: Sequence[Json], *, store: bool, previous: str | None = None) -> Json:
    """Make the members of a create."""
    create = {"model": plan.model, "store": store, "max_output_tokens": plan.max_output_tokens, "input": list(items)}
    return create if previous is None else {**create, "previous_response_id": previous}


def planned_cost(plan: EndpointPlan) -> PlannedCost:
    """Say what the benchmark costs at most, if no arm fails. A server counts the whole history in every turn."""
    conversations = len(ENDPOINT_ARMS) * plan.rounds
    turn_tokens = (plan.turn_bytes + len(ASK_FIRST) + _ITEM_BYTES) // _TOKEN_BYTES + _ANSWER_TOKENS
    history_tokens = turn_tokens * plan.turns * (plan.turns + 1) // 2
    requests = conversations * plan.turns + CHECK_REQUESTS
    return PlannedCost(
        requests=requests,
        input_tokens=conversations * history_tokens + CHECK_REQUESTS * turn_tokens * 2,
        output_tokens=requests * plan.max_output_tokens,
    )


def _notes(size: int) -> str:
    return (_NOTE * (size // len(_NOTE) + 1))[:size]
