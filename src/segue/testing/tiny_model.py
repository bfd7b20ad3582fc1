"""Writes a tiny chat model with random weights: tests and benchmarks run it where no trained model is installed.

The model is a llama of a few thousand to a few million weights, with a byte-level vocabulary and a ChatML template that
knows tools, in a GGUF file. Its answers mean nothing, but they depend on every token before them, and its KV cache is a
real one. The same shape always gives the same file, byte for byte.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

from segue.engine.output.detokenizer import byte_alphabet

_MAGIC, _VERSION, _ALIGNMENT = b"GGUF", 3, 32
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
_NORMAL, _CONTROL = 1, 3
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>")
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
    tokens, kinds, merges = _vocabulary()
    tensors = list(_tensors(shape, len(tokens)))
    entries = [
        _string("general.architecture", "llama"),
        _string("general.name", "tiny"),
        _number("llama.context_length", shape.context),
        _number("llama.embedding_length", shape.width),
        _number("llama.block_count", shape.layers),
        _number("llama.feed_forward_length", shape.hidden),
        _number("llama.attention.head_count", shape.heads),
        _number("llama.attention.head_count_kv", shape.kv_heads),
        *([_number(f"llama.attention.{name}_length", shape.head) for name in ("key", "value")] if shape.head else []),
        _number("llama.rope.dimension_count", shape.head_width),
        _number("llama.vocab_size", len(tokens)),
        _entry("llama.attention.layer_norm_rms_epsilon", _FLOAT32, struct.pack("<f", 1e-5)),
        _string("tokenizer.ggml.model", "gpt2"),
        _string("tokenizer.ggml.pre", "smollm"),
        _strings("tokenizer.ggml.tokens", tokens),
        _entry("tokenizer.ggml.token_type", _ARRAY, _array(_INT32, [struct.pack("<i", kind) for kind in kinds])),
        _strings("tokenizer.ggml.merges", merges),
        _number("tokenizer.ggml.bos_token_id", 0),
        _number("tokenizer.ggml.eos_token_id", _CONTROLS.index("<|im_end|>")),
        _entry("tokenizer.ggml.add_bos_token", _BOOL, b"\0"),
        _string("tokenizer.chat_template", template),
    ]
    described, data = _layout(tensors)
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(entries)) + b"".join(entries) + described
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)


def _vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Return the tokens, their kinds, and the merges: all bytes, then every prefix of the words above."""
    tokens = [*_CONTROLS, *byte_alphabet()]
    kinds = [_CONTROL] * len(_CONTROLS) + [_NORMAL] * 256
    known, merges = set(tokens), []
    for word in _WORDS.split():
        made = "Ġ"
        for letter in word:
            longer = made + letter
            if longer not in known:
                known.add(longer)
                tokens.append(longer)
                kinds.append(_NORMAL)
                merges.append(f"{made} {letter}")
            made = longer
    return tokens, kinds, merges


def _tensors(shape: TinyModelShape, words: int) -> Iterator[tuple[str, tuple[int, ...], array[float]]]:
    """Yield name, dimensions (innermost first) and values of each tensor. Matrices preserve the variance of inputs."""
    random = Random(shape.seed)
    head = shape.head_width

    def matrix(name: str, inner: int, outer: int, gain: float = 1.0) -> tuple[str, tuple[int, ...], array[float]]:
        spread = gain * (3 / inner) ** 0.5  # of a uniform distribution with the variance 1 / inner
        values = (random.uniform(-spread, spread) for _ in range(inner * outer))
        return f"{name}.weight", (inner, outer), array("f", values)

    def norm(name: str) -> tuple[str, tuple[int, ...], array[float]]:
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


# --- the file format -------------------------------------------------------------------------------------------------


def _layout(tensors: Sequence[tuple[str, tuple[int, ...], array[float]]]) -> tuple[bytes, bytes]:
    """Return the descriptions of the tensors, and their values at the offsets in those descriptions."""
    described, data = [], bytearray()
    for name, dimensions, values in tensors:
        sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        described.append(_text(name) + sizes + struct.pack("<IQ", 0, len(data)))
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % _ALIGNMENT)
    return b"".join(described), bytes(data)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _number(key: str, value: int) -> bytes:
    return _entry(key, _UINT32, struct.pack("<I", value))


def _string(key: str, value: str) -> bytes:
    return _entry(key, _STRING, _text(value))


def _strings(key: str, values: Sequence[str]) -> bytes:
    return _entry(key, _ARRAY, _array(_STRING, [_text(value) for value in values]))


def _array(kind: int, values: Sequence[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)
