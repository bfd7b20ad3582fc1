"""Generated conversations of an agent with a model, turn by turn, in sizes that were published: pure and deterministic.

    conversation = make_conversation("article")        "loop-12", "conversation:50"
    conversation.turns[0].answer                       what the model says and calls
    conversation.turns[0].results                      what the tools return, for the turn after it

In every turn but the last the model calls tools, and in the last one it only answers. So a conversation of N turns has
N requests. Each shape names what published its numbers; what nobody published is chosen so that those come out, and is
listed as chosen. Texts are generated (`prose`). Not here: the agent's tasks (`agent_tasks`), and who holds the
conversation (`segue.bench.arms`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import exp, log
from typing import Literal

import msgspec

from segue.bench.workloads.prose import ProseWriter
from segue.bench.workloads.toolsets import make_tools
from segue.testing.replies import Json, compact

#: What published the numbers of a shape.
ConversationSource = Literal["article", "splice", "tracelab", "codex"]

CONVERSATION_SOURCES: Mapping[ConversationSource, str] = {
    "article": 'Anirudh Mendiratta, "Stateful Continuation for AI Agents", InfoQ, 2026: 176 KB against 32 KB for a '
    "task, which is what 10 turns of 3.2 KB come to; 343 KB received by id. "
    "https://www.infoq.com/articles/ai-agent-transport-layer/",
    "splice": "splice, pull request 72: twelve rounds with results of 2 KB; 2,985 bytes in the first round, 31,882 by "
    "HTTP and 2,387 by id in the last; 208,674 and 29,250 in all",
    "tracelab": "TraceLab, 4,265 sessions of Claude Code and Codex: 83.7 steps a session, 523 tokens of output and "
    "1.21 calls a step, 430.2M fresh tokens in 357,161 steps; a tool takes 58 ms, 285 ms and 13.6 s (p25, p50, p90). "
    "https://arxiv.org/abs/2606.30560",
    "codex": "Codex, measured at its socket: 21 KB of instructions as its first message, 9.2 KB of tools, and 1.4 KB "
    "of other fields in every request",
}

#: How many bytes a token stands for wherever tokens are counted: the usual rule of thumb for English and code.
TOKEN_BYTES = 4
#: The lengths that are measured by default: short, the article's, long, and a whole session of TraceLab's.
LENGTHS = (5, 10, 20, 50, 84)
MOST_TURNS = 1000

_ESCAPED = frozenset('"\\\n\t\r')
_NAME = re.compile(r"conversation:(\d{1,4})")
_MARKER = re.compile(rb"(?:task|call)_(\d{1,3})_(\d{1,4})")


class ConversationShape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a conversation. Bytes are those of texts, without the JSON around them.

    `text_tokens` and `argument_tokens` are what the model writes in a turn: what it says, and the arguments of each
    call. `calls` is how many calls a turn has on average. `tool_quantiles_s` are p25, p50 and p90 of how long a tool
    takes; None: the source does not say.
    """

    turns: int
    instructions_bytes: int
    tools: int
    tools_bytes: int
    prompt_bytes: int
    text_tokens: int
    argument_tokens: int
    result_bytes: int
    calls: float = 1.0
    tool_quantiles_s: tuple[float, float, float] | None = None
    sources: tuple[ConversationSource, ...]
    chosen: str
    """What of this was chosen, and why so."""


SHAPES: Mapping[str, ConversationShape] = {
    "article": ConversationShape(
        turns=10,
        instructions_bytes=350,
        tools=1,
        tools_bytes=500,
        prompt_bytes=2160,
        text_tokens=115,
        argument_tokens=40,
        result_bytes=2155,
        sources=("article",),
        chosen="The first request, what a turn adds, and a request by id have 3.2 KB each. 155 tokens a turn: 343 KB "
        "in ten turns are about as many events of 219 bytes.",
    ),
    "loop-12": ConversationShape(
        turns=12,
        instructions_bytes=71,
        tools=0,
        tools_bytes=0,
        prompt_bytes=2733,
        text_tokens=0,
        argument_tokens=85,
        result_bytes=2048,
        sources=("splice",),
        chosen="Instructions, prompt and the call, so that the first and the last round have the published sizes.",
    ),
    "conversation": ConversationShape(
        turns=0,
        instructions_bytes=1400,
        tools=10,
        tools_bytes=9200,
        prompt_bytes=21_000,
        text_tokens=100,
        argument_tokens=423,
        result_bytes=2600,
        calls=1.21,
        tool_quantiles_s=(0.058, 0.285, 13.6),
        sources=("tracelab", "codex"),
        chosen="How the 523 tokens of output divide into text and calls. Each turn has the mean sizes, since their "
        "spread is not published. 1,204 tokens a step are fresh; the 681 that the model did not write are results.",
    ),
}


class ConversationCall(msgspec.Struct, frozen=True):
    """One call of a tool: `arguments` is JSON text; `result` is what the tool returns after `seconds`."""

    call_id: str
    name: str
    arguments: str
    result: str
    seconds: float


class ConversationTurn(msgspec.Struct, frozen=True):
    """What the model does in one turn."""

    text: str
    calls: tuple[ConversationCall, ...] = ()


class GeneratedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation. `task` tells it from others of the same agent: instructions and tools are the same in all."""

    name: str
    task: int
    instructions: str
    tools: tuple[Json, ...]
    prompt: str
    turns: tuple[ConversationTurn, ...]


def shape_of(name: str) -> ConversationShape | None:
    """Return the shape of a conversation by its name; None if there is none of that name."""
    if found := _NAME.fullmatch(name):
        turns = int(found[1])
        return msgspec.structs.replace(SHAPES["conversation"], turns=turns) if 1 < turns <= MOST_TURNS else None
    return None if name == "conversation" else SHAPES.get(name)


def make_conversation(name: str, *, task: int = 0) -> GeneratedConversation:
    """Generate a conversation. It depends on its name and its task alone."""
    shape = shape_of(name)
    assert shape is not None, "the caller has looked the name up"
    agent, writer = ProseWriter(f"agent:{name.partition(':')[0]}"), ProseWriter(f"{name}:{task}")
    tools = make_tools(agent, shape.tools, shape.tools_bytes) if shape.tools else []
    names = [tool["name"] for tool in tools] or ["run"]
    latencies = _latencies(shape, writer)
    counts = _call_counts(shape)
    turns = [
        ConversationTurn(
            _text(writer, shape.text_tokens),
            tuple(_call(shape, writer, f"call_{task}_{number}_{place}", names, latencies) for place in range(count)),
        )
        for number, count in enumerate(counts)
    ]
    return GeneratedConversation(
        name=name,
        task=task,
        instructions=_cut(agent.prompt(shape.instructions_bytes), shape.instructions_bytes),
        tools=tuple(_function(tool) for tool in tools),
        prompt=_cut(f"task_{task}_0 {writer.prompt(shape.prompt_bytes)}", shape.prompt_bytes),
        turns=(*turns, ConversationTurn(_text(writer, shape.text_tokens + shape.argument_tokens))),
    )


def place_of(items: Sequence[bytes]) -> tuple[int, int] | None:
    """Return the task and the number of the turn that answers these items, the newest of a conversation; or None.

    The prompt begins with the task's marker, and each result names its call.
    """
    for item in reversed(items):
        if found := _MARKER.search(item):
            asked = 0 if found[0].startswith(b"task") else 1
            return int(found[1]), int(found[2]) + asked
    return None


def _call_counts(shape: ConversationShape) -> list[int]:
    """Spread the calls evenly: no turn without one, and the mean as the shape has it."""
    until = [round(shape.calls * turns) for turns in range(shape.turns)]
    return [max(1, after - before) for before, after in pairwise(until)]


def _call(
    shape: ConversationShape, writer: ProseWriter, call_id: str, names: Sequence[str], latencies: Sequence[float]
) -> ConversationCall:
    wanted = max(1, round(shape.argument_tokens / shape.calls)) * TOKEN_BYTES
    frame = compact({"command": ""})
    arguments = compact({"command": _cut(writer.source(wanted), max(1, wanted - len(frame)))})
    result = _cut(writer.tool_output(shape.result_bytes), round(shape.result_bytes / shape.calls))
    seconds = writer.random.choice(latencies) if latencies else 0.0
    return ConversationCall(call_id, writer.random.choice(list(names)), arguments, result, seconds)


def _latencies(shape: ConversationShape, writer: ProseWriter) -> list[float]:
    """Return times of tools between the published quantiles, evenly spread in their logarithm; none beyond them."""
    if shape.tool_quantiles_s is None:
        return []
    low, middle, high = (log(quantile) for quantile in shape.tool_quantiles_s)
    below = [exp(low + (middle - low) * writer.random.random()) for _ in range(50)]
    above = [exp(middle + (high - middle) * writer.random.random()) for _ in range(50)]
    return [round(seconds, 3) for seconds in (*below, *above)]


def _text(writer: ProseWriter, tokens: int) -> str:
    return _cut(writer.prompt(tokens * TOKEN_BYTES), tokens * TOKEN_BYTES) if tokens else ""


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text, as much as has this size in JSON."""
    costs = (len(character.encode()) + (character in _ESCAPED) for character in text)
    kept = sum(1 for end in accumulate(costs) if end <= size)
    return text[:kept]


def _function(tool: Json) -> Json:
    described = {"name": tool["name"], "description": tool["description"], "parameters": tool["schema"]}
    return {"type": "function", **described, "strict": False}
