"""Writes a chat model whose weights play a script: it calls tools and answers, by what it finds in its prompt.

No weight is trained. Theory: the model is a llama with one layer. Each piece of the script is a token of its own. One
attention head looks for the texts that the script waits for, which are tokens too: a text that stands further down in
the script attracts all attention, wherever it is in the prompt, and the head says which one it has found. The output
chooses the first token of the step that waits for this text; after a token of the script comes the next one of its
step, whatever was found. So the model calls a tool of its agent, and goes on when, and only when, the result of that
call is in its prompt. Everything else of it is real: tokens, prefill, KV cache, sampling, grammars of calls. Texts are
the same at any temperature, since the best token is far ahead. Calls are so at temperature 0, the engine's default: a
grammar lets other samplers choose its fixed parts only as a tokenizer would cut them. Not here: the file format
(`gguf_file`).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from pathlib import Path

import msgspec

from segue.testing.gguf_file import Tensor, write_gguf
from segue.testing.tiny_model import (
    CHAT_TEMPLATE,
    CONTROL,
    CONTROLS,
    USER_DEFINED,
    TinyModelShape,
    byte_vocabulary,
    model_entries,
)

#: What the template writes where tools are offered. As a text to wait for, it begins a session.
TOOLS_OFFERED = "<|tools|>"
_TEMPLATE = CHAT_TEMPLATE.replace("'tools:'", f"'{TOOLS_OFFERED}'")
_END = "<|im_end|>"
_CALL = "<tool_call>"

#: With this base, the last pair of a head's dimensions is not rotated: what it finds does not depend on distances.
_ROPE_BASE = 1e30
_HEAD = 32
_MOST_STEPS = 14
#: The dimensions of the residual stream: one that is always set, one of tokens outside the script, one of each step.
_ALWAYS, _PLAIN, _FIRST_STEP = 0, 1, 2
_FIRST_TOKEN = _FIRST_STEP + _MOST_STEPS
#: How far a text is ahead of those before it in the script, in the exponent of the attention: e^40 prompts long.
_AHEAD = 40.0
#: How much the next token of a step outweighs what begins one, and that what is said without any reason.
_NEXT, _BEGINS, _DEFAULT = 64.0, 24.0, 8.0

_PIECES = re.compile(r"\s*\S+|\s+$")


class ModelCall(msgspec.Struct, frozen=True):
    """A call of a tool; `arguments` is JSON as the model writes it."""

    name: str
    arguments: str


class ModelStep(msgspec.Struct, frozen=True):
    """What the model says once the text `sees` is in its prompt; of several steps the last one counts."""

    sees: str
    says: str | ModelCall


def write_scripted_model(path: Path, steps: Sequence[ModelStep], *, otherwise: str, context: int = 131_072) -> None:
    """Write the model's file. Where nothing of the script is in the prompt, it says `otherwise`.

    Raises `ValueError` for a script that cannot be played.
    """
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"a script has at most {_MOST_STEPS} steps")
    chains = [
        _distinct(_pieces(says), {step.sees for step in steps}) for says in (*(step.says for step in steps), otherwise)
    ]
    script = [piece for chain in chains for piece in chain if piece not in CONTROLS]
    if len(set(script)) < len(script):
        raise ValueError("no two texts of a script may have a word in common, counted with the space before it")
    tokens, kinds, merges = byte_vocabulary()
    for text in dict.fromkeys([TOOLS_OFFERED, *script, *(step.sees for step in steps)]):
        tokens.append(text)
        kinds.append(CONTROL if text == TOOLS_OFFERED else USER_DEFINED)
    numbers = {token: number for number, token in enumerate(tokens)}
    weights = _Weights(numbers, steps, chains)
    shape = TinyModelShape(width=weights.width, layers=1, heads=1, kv_heads=1, hidden=32, context=context, head=_HEAD)
    entries = model_entries("scripted", shape, (tokens, kinds, merges), _TEMPLATE, rope_base=_ROPE_BASE)
    write_gguf(path, entries, list(weights.tensors(shape)))


def _pieces(says: str | ModelCall) -> list[str]:
    """Return the tokens of what is said, to its end."""
    if isinstance(says, str):
        return [*_PIECES.findall(says), _END]
    call = f'{says.name}", "arguments": {says.arguments}'
    return [_CALL, f'\n{{"name": "{call}}}\n</tool_call>', _END]


def _distinct(pieces: Sequence[str], taken: AbstractSet[str]) -> list[str]:
    """Join a piece that was there before to the one before it: what comes after a token must be clear."""
    distinct: list[str] = []
    for piece in pieces:
        if piece in distinct or piece in taken:
            distinct[-1] += piece
        else:
            distinct.append(piece)
    return distinct


class _Weights:
    """The weights that play a script: sparse matrices, as rows of their few entries."""

    def __init__(self, numbers: Mapping[str, int], steps: Sequence[ModelStep], chains: Sequence[Sequence[str]]) -> None:
        self._numbers = numbers
        self._steps = steps
        self._chains = chains
        known = dict.fromkeys([*(step.sees for step in steps), *(one for chain in chains for one in chain[:-1])])
        self._dimension_of = {token: _FIRST_TOKEN + place for place, token in enumerate(known)}
        self.width = -(-(_FIRST_TOKEN + len(known)) // 32) * 32
        #: What each of the two dimensions that a token sets is after its normalisation.
        self._set = (self.width / 2) ** 0.5

    def tensors(self, shape: TinyModelShape) -> Iterator[Tensor]:
        """Yield the tensors of the model."""
        width, words = self.width, len(self._numbers)
        last = _HEAD - 2  # a dimension of the pair that is not rotated
        sharpness = _AHEAD * _HEAD**0.5 / self._set**2
        found = {self._dimension_of[step.sees]: place for place, step in enumerate(self._steps)}
        yield _matrix("token_embd", width, words, self._embedding())
        yield _ones("blk.0.attn_norm", width)
        yield _matrix("blk.0.attn_q", width, _HEAD, {(last, _ALWAYS): sharpness})
        yield _matrix("blk.0.attn_k", width, _HEAD, {(last, token): place + 1.0 for token, place in found.items()})
        yield _matrix("blk.0.attn_v", width, _HEAD, {(place, token): 1.0 for token, place in found.items()})
        steps = range(len(self._steps))
        yield _matrix("blk.0.attn_output", _HEAD, width, {(_FIRST_STEP + one, one): 1.0 / self._set for one in steps})
        yield _ones("blk.0.ffn_norm", width)
        for name in ("gate", "up"):
            yield _matrix(f"blk.0.ffn_{name}", width, shape.hidden, {})
        yield _matrix("blk.0.ffn_down", shape.hidden, width, {})
        yield _ones("output_norm", width)
        yield _matrix("output", width, words, self._output())

    def _embedding(self) -> dict[tuple[int, int], float]:
        entries = {(number, _ALWAYS): 1.0 for number in self._numbers.values()}
        for token, number in self._numbers.items():
            entries[number, self._dimension_of.get(token, _PLAIN)] = 1.0
        return entries

    def _output(self) -> dict[tuple[int, int], float]:
        entries: dict[tuple[int, int], float] = {}
        *steps, otherwise = self._chains
        entries[self._numbers[otherwise[0]], _ALWAYS] = _DEFAULT
        for place, chain in enumerate(steps):
            entries[self._numbers[chain[0]], _FIRST_STEP + place] = _BEGINS
            # the first token of a call is that of all calls: what comes after it is chosen by the step again
            entries[self._numbers[chain[1]], _FIRST_STEP + place] = _BEGINS / 2
        for chain in self._chains:
            for token, after in pairwise(chain):
                entries[self._numbers[after], self._dimension_of[token]] = _NEXT
        return entries


def _matrix(name: str, inner: int, outer: int, entries: Mapping[tuple[int, int], float]) -> Tensor:
    """A matrix whose entries are zero but for these, by row and column."""
    values = array("f", bytes(4 * inner * outer))
    for (row, column), value in entries.items():
        values[row * inner + column] = value
    return f"{name}.weight", (inner, outer), values


def _ones(name: str, width: int) -> Tensor:
    return f"{name}.weight", (width,), array("f", [1.0] * width)
