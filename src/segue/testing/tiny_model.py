"""Writes a tiny chat model with random weights: tests and benchmarks run it where no trained model is installed.

The model is a llama of a few thousand to a few million weights, with a byte-level vocabulary and a ChatML template that
knows tools, in a GGUF file. Its answers mean nothing, but they depend on every token before them, and its KV cache is a
real one. The same shape always gives the same file, byte for byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from segue.engine.output.detokenizer import byte_alphabet
from segue.testing.gguf_file import Tensor, flag, fraction, number, numbers, string, strings, write_gguf

#: Tokens, their kinds, and the merges that make them.
Vocabulary = tuple[list[str], list[int], list[str]]

#: The kinds of tokens: a user-defined one is found wherever its text is, before anything is merged.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
#: The control tokens, which come first.
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>")
_WORDS = (
    "the of and to in is that it for was on are as with his they be at one have this from or had by not word but what "
    "some we can out other were all there when up use your how said an each she which do their time if will way about "
    "many then them write would like so these her long make thing see him two has look more day could go come did "
    "number sound no most people my over know water than call first who may down side been now find tool name "
    "arguments user assistant system null true false"
)

#: ChatML, with tools and their calls written as Qwen's models are taught them.
CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- 'tools:' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a tiny model.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or message.content %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


class TinyModelShape(msgspec.Struct, frozen=True):
    """The size of the model. `heads` share `kv_heads`; `width` must be a multiple of 32 times `heads`."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    hidden: int = 128
    context: int = 8192
    seed: int = 1
    head: int | None = None

    @property
    def head_width(self) -> int:
        """The width of one attention head: `head` if it is set, else the usual part of the width."""
        return self.head or self.width // self.heads


#: The shape that benchmarks use: large enough that prefilling a long prompt takes time, as with a real model.
BENCH_SHAPE = TinyModelShape(width=192, layers=4, heads=6, kv_heads=2, hidden=512)


def write_tiny_model(path: Path, shape: TinyModelShape | None = None, template: str = CHAT_TEMPLATE) -> None:
    """Write the model's file."""
    shape = shape or TinyModelShape()
    tokens, kinds, merges = byte_vocabulary()
    write_gguf(
        path, model_entries("tiny", shape, (tokens, kinds, merges), template), list(_tensors(shape, len(tokens)))
    )


def model_entries(
    name: str, shape: TinyModelShape, vocabulary: Vocabulary, template: str, *, rope_base: float = 10_000.0
) -> list[bytes]:
    """Return the entries of a llama of this shape."""
    tokens, kinds, merges = vocabulary
    return [
        string("general.architecture", "llama"),
        string("general.name", name),
        number("llama.context_length", shape.context),
        number("llama.embedding_length", shape.width),
        number("llama.block_count", shape.layers),
        number("llama.feed_forward_length", shape.hidden),
        number("llama.attention.head_count", shape.heads),
        number("llama.attention.head_count_kv", shape.kv_heads),
        *([number(f"llama.attention.{name}_length", shape.head) for name in ("key", "value")] if shape.head else []),
        number("llama.rope.dimension_count", shape.head_width),
        number("llama.vocab_size", len(tokens)),
        fraction("llama.rope.freq_base", rope_base),
        fraction("llama.attention.layer_norm_rms_epsilon", 1e-5),
        string("tokenizer.ggml.model", "gpt2"),
        string("tokenizer.ggml.pre", "smollm"),
        strings("tokenizer.ggml.tokens", tokens),
        numbers("tokenizer.ggml.token_type", kinds),
        strings("tokenizer.ggml.merges", merges),
        number("tokenizer.ggml.bos_token_id", 0),
        number("tokenizer.ggml.eos_token_id", CONTROLS.index("<|im_end|>")),
        flag("tokenizer.ggml.add_bos_token", value=False),
        string("tokenizer.chat_template", template),
    ]


def byte_vocabulary() -> Vocabulary:
    """Return the tokens, their kinds, and the merges: all bytes, then every prefix of the words above."""
    tokens = [*CONTROLS, *byte_alphabet()]
    kinds = [CONTROL] * len(CONTROLS) + [NORMAL] * 256
    known, merges = set(tokens), []
    for word in _WORDS.split():
        made = "Ġ"
        for letter in word:
            longer = made + letter
            if longer not in known:
                known.add(longer)
                tokens.append(longer)
                kinds.append(NORMAL)
                merges.append(f"{made} {letter}")
            made = longer
    return tokens, kinds, merges


def _tensors(shape: TinyModelShape, words: int) -> Iterator[Tensor]:
    """Yield name, dimensions (innermost first) and values of each tensor. Matrices preserve the variance of inputs."""
    random = Random(shape.seed)
    head = shape.head_width

    def matrix(name: str, inner: int, outer: int, gain: float = 1.0) -> Tensor:
        spread = gain * (3 / inner) ** 0.5  # of a uniform distribution with the variance 1 / inner
        values = (random.uniform(-spread, spread) for _ in range(inner * outer))
        return f"{name}.weight", (inner, outer), array("f", values)

    def norm(name: str) -> Tensor:
        return f"{name}.weight", (shape.width,), array("f", [1.0] * shape.width)

    yield matrix("token_embd", shape.width, words, shape.width**0.5)
    for layer in range(shape.layers):
        at = f"blk.{layer}"
        yield norm(f"{at}.attn_norm")
        yield matrix(
            f"{at}.attn_q", shape.width, shape.heads * head, 2.0
        )  # sharper attention: answers depend on the context
        yield matrix(f"{at}.attn_k", shape.width, shape.kv_heads * head, 2.0)
        yield matrix(f"{at}.attn_v", shape.width, shape.kv_heads * head)
        yield matrix(f"{at}.attn_output", shape.heads * head, shape.width, 2.0)
        yield norm(f"{at}.ffn_norm")
        yield matrix(f"{at}.ffn_gate", shape.width, shape.hidden)
        yield matrix(f"{at}.ffn_up", shape.width, shape.hidden)
        yield matrix(f"{at}.ffn_down", shape.hidden, shape.width)
    yield norm("output_norm")
    yield matrix("output", shape.width, words, 2.0)
