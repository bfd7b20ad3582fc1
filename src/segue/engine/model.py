"""A GGUF model loaded into this process by llama.cpp: the few operations that turns need, typed and blocking.

This is the only place that touches the engine's binding (cyllama), which is imported when a model is loaded and not
before. A `LoadedModel` belongs to the thread that made it; other threads may only call `tokenize`, `compile_grammar`
and `interrupt`. Its one context holds the KV cache of many sequences, each in a *slot*, and copies share their cells.
Not here: which sequence lies where (`kv.cache`), and what is computed when (`worker`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from itertools import compress
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from segue.engine.compute_threads import ComputeThreads
from segue.engine.grammar.json_schema import GrammarError
from segue.engine.grammar.token_matcher import AnswerGrammar, TokenMatcher, TokenVocabulary
from segue.engine.kv.defrag import Move
from segue.engine.model_files import MODEL_NAME, why_unavailable
from segue.engine.output.detokenizer import PieceBytes
from segue.engine.output.logprobs import Score, TopLogprob, log_probabilities
from segue.engine.prompt.chat_template import ChatTemplate, TemplateError
from segue.engine.prompt.messages import PromptMessage
from segue.engine.thread_count import ThreadCount
from segue.protocol.requests import Settings

_MIB = 1024 * 1024
_SAVED_PIECE_BYTES = 2 * _MIB
_MAX_THREADS = 8
#: For steps of more tokens than this, llama.cpp may choose kernels that round differently from those for one token.
_INVARIANT_STEP = 60
#: Room for a padding token, computed beside one that would be alone in its step.
_PADDING = 1
_SEEDS = 2**32 - 1  # the last number of 32 bits asks llama.cpp for a seed of its own


class Unavailable(Exception):
    """The local model cannot be used here; the message tells the operator why."""


class ModelFile(msgspec.Struct, frozen=True):
    """A GGUF file and how to run it.

    - `template`: a chat template to use instead of the file's own.
    - `context`: how many tokens the input and output of a turn share, cut to what the model was trained for.
    - `kv_bytes`: the KV cache of all conversations in the context, at least one of full length; allocated at the start.
      `cells` says the same in tokens. What does not fit is evicted to host memory (`host_bytes`). What does not fit
      there goes to files in `spill_directory` (`disk_bytes`), if all of its turns are stored.
    - `idle_tokens`: how many tokens of conversations that no turn works on stay in the context when a turn begins. They
      slow it down a little. The others go to host memory, in place of what has been there for longest.
    - `idle_s`: how long to keep state that only a client which sends its whole history again could use.
    - `parallel`: turns that run at once; `slots`: conversations in the context; `waiting`: turns that may wait.
    - `answer_tokens`: the longest answer where a request sets no limit.
    - `draft_tokens`: the most tokens of an answer to draft from earlier text (`prompt_lookup`), where that pays.
    - `threads`: threads that compute, None for one per usable processor.
    - `batch`: the most tokens of a step; `chunk`: the most prompt tokens of a step while an answer is written.
    - `batch_invariant`: what else is computed in a step, and where state lies, changes no bit of a result. So an answer
      at temperature 0 is the same however it came about. Without this, a turn computes the same tokens, but rounding
      may decide between two tokens that are almost equally likely; prefill of long prompts is faster.
    """

    path: Path
    name: str = MODEL_NAME
    context: int = 4096
    threads: int | None = None
    kv_bytes: int = 256 * _MIB
    host_bytes: int = 1024 * _MIB
    disk_bytes: int = 0
    spill_directory: Path | None = None
    idle_tokens: int = 0
    idle_s: float = 900.0
    parallel: int = 4
    slots: int = 64
    waiting: int = 64
    batch: int = 512
    chunk: int = 64
    batch_invariant: bool = False
    answer_tokens: int = 2048
    template: Path | None = None
    cells: int | None = None
    draft_tokens: int = 0


class BatchEntry(msgspec.Struct, frozen=True):
    """What a step computes of one sequence: tokens from a position on. `sampled`: a sampler needs the last one.

    If the last `drafted` tokens are a draft, a sampler may need each of them and the one before.
    """

    slot: int
    tokens: Sequence[int]
    position: int
    sampled: bool
    drafted: int = 0


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
        params = self._llama.LlamaModelParams()
        # what weights are repacked for are kernels that round otherwise for a few tokens than for one
        params.use_extra_bufts = not file.batch_invariant
        # a class of our own, since the binding reads an attribute for the logits that its own class does not have
        model_class = type("Model", (self._llama.LlamaModel,), {})
        self._model: Any = model_class(os.fspath(file.path), params, verbose=False)
        self._vocab: Any = self._model.get_vocab()
        self._model.n_vocab = int(self._vocab.n_vocab)
        self.template = self._compile_template(file.template)
        self.cell_bytes = self._cell_bytes()
        #: Whether a prefix of a sequence can be rewound to or copied; a recurrent model has one state for all of it.
        self.divisible = not (self._model.is_recurrent() or self._model.is_hybrid())
        #: The most tokens of a turn, input and output together.
        self.context = min(file.context, int(self._model.n_ctx_train))
        self._invariant = file.batch_invariant and self.divisible
        #: Whether cells that are given back are taken again at once; else only `defrag` makes room.
        self.reuses_cells = not self._invariant
        self._scratch, self._garbage = file.slots, file.slots + 1
        self._saved_piece_tokens = max(1, _SAVED_PIECE_BYTES // self.cell_bytes)
        #: The most tokens of a step.
        self.batch = min(file.batch, _INVARIANT_STEP) if self._invariant else file.batch
        threads = file.threads or usable_processors()
        self._thread_count = ThreadCount(threads)
        #: How many tokens the context holds, all sequences together.
        self.cells = max(self.context, file.cells or file.kv_bytes // self.cell_bytes)
        self._context: Any = self._llama.LlamaContext(self._model, self._context_params(file), verbose=False)
        self._context.install_cancel_callback()
        self._threads = ComputeThreads(self._llama, self._context, threads)
        self._taken = 0
        self._batch: Any = self._llama.LlamaBatch(n_tokens=self.batch + _PADDING, embd=0, n_seq_max=1)
        self._pads_single_tokens = False
        # several threads may divide the cells that a single token attends to, and add up what each has found
        self._pads_single_tokens = self._invariant and (threads > 1 or self._is_padding_needed())
        self._piece_bytes = PieceBytes()
        self._pieces: dict[int, bytes] = {}  # of tokens that were sampled, since most of them will be again
        self._call_tokens = self._find_call_tokens()
        self._vocabulary = self._token_vocabulary()
        _exclusions(self._model.n_vocab)  # made now, since the first answer would have to wait for it

    def _context_params(self, file: ModelFile) -> Any:  # noqa: ANN401 - a type of the untyped binding
        params = self._llama.LlamaContextParams()
        params.n_ctx = self.cells + _PADDING
        params.n_batch = params.n_ubatch = self.batch + _PADDING
        params.n_seq_max = file.slots + 2  # one is scratch space, one holds garbage
        params.kv_unified = True  # all sequences share one pool of cells, so that copies can share cells
        params.swa_full = True  # a sliding window would drop what a rewound sequence needs
        params.flash_attn_type = 1  # on: no other kernel skips the cells of other sequences
        return params

    def _cell_bytes(self) -> int:
        """Return the size of a token in the KV cache: keys and values of 16 bits in every layer."""
        heads = int(self._model.n_head_kv) or 1
        even = int(self._model.n_embd) // max(1, int(self._model.n_head))
        key, value = (self._number(f"attention.{name}_length") or even for name in ("key", "value"))
        return 2 * int(self._model.n_layer) * heads * (key + value)

    def _number(self, name: str) -> int | None:
        """Return a number from the metadata of the model's architecture, if it is there."""
        architecture = self._model.meta_val_str("general.architecture")
        try:
            return int(self._model.meta_val_str(f"{architecture}.{name}"))
        except (KeyError, TypeError, ValueError):
            return None

    def _compile_template(self, path: Path | None) -> ChatTemplate:
        source = str(self._model.get_default_chat_template() or "") if path is None else _read_template(path)
        if not source:
            raise Unavailable(
                "the model file has no chat template, so the model cannot hold a conversation; "
                "chat_template_file can name one"
            )
        vocab = self._vocab
        bos, eos = (
            str(vocab.get_text(token)) if token >= 0 else "" for token in (vocab.token_bos(), vocab.token_eos())
        )
        try:
            template = ChatTemplate(source, bos=bos, eos=eos, add_bos=bool(vocab.get_add_bos()))
            template.segments([PromptMessage("user", "a"), PromptMessage("assistant", "b"), PromptMessage("user", "c")])
        except TemplateError as error:
            raise Unavailable(f"the model's chat template cannot be used: {error}") from error
        return template

    def _find_call_tokens(self) -> frozenset[int]:
        """Return the control tokens with which this model writes calls and thoughts; they are part of the answer."""
        form, thoughts = self.template.call_format, self.template.reasoning
        written = "".join((form.prefix, form.middle, form.suffix, form.between or ""))
        written += "" if thoughts is None else thoughts.opening + thoughts.closing + thoughts.behind
        tokens = self._vocab.tokenize(written, False, True)  # noqa: FBT003 - positional in the binding
        return frozenset(token for token in tokens if self._vocab.is_control(token) and not self._vocab.is_eog(token))

    def tokenize(self, text: str, control: bool) -> list[int]:  # noqa: FBT001 - the shape of truncation.Tokenizer
        """Turn text into tokens, and recognise control tokens in it only if `control` is set. For any thread."""
        with self._lock:
            if self._closed:
                raise InterruptedError
            return list(self._vocab.tokenize(text, False, control))  # noqa: FBT003 - positional in the binding

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text; a control token has none, if not of calls or thoughts."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._find_piece(token)
        return piece

    def _find_piece(self, token: int) -> bytes:
        if token in self._call_tokens:
            return str(self._vocab.get_text(token)).encode()
        shown = self._vocab.token_to_piece(token, 0, False)  # noqa: FBT003 - positional in the binding
        return self._piece_bytes.of(shown, self._vocab.get_text(token))

    def is_end_of_answer(self, token: int) -> bool:
        """Say if the model ends its answer with this token (end of generation)."""
        return bool(self._vocab.is_eog(token))

    def _token_vocabulary(self) -> TokenVocabulary:
        """Return the tokens as grammars see them: control tokens that are part of a call count as their text."""
        tokens, special, ends = [], [], []
        for token in range(self._model.n_vocab):
            piece, is_end = self._find_piece(token), bool(self._vocab.is_eog(token))
            ends += [token] if is_end else []
            special += [token] if is_end or not piece else []
            tokens.append(piece or str(self._vocab.get_text(token)).encode())
        text_to_tokens = partial(self.tokenize, control=False)
        return TokenVocabulary(tokens, text_to_tokens, special=special, ends=ends or [0])  # one must be named

    def compile_grammar(self, lark: str) -> AnswerGrammar:
        """Compile a grammar. Raises `GrammarError`. For any thread."""
        return self._vocabulary.compile(lark)

    # --- computing ---------------------------------------------------------------------------------------------------

    def compute(self, entries: Sequence[BatchEntry]) -> list[int]:
        """Compute a step; return where in it the last token of each entry is, for `Sampler.sample`; a draft is behind.

        There must be `room` for it. Raises InterruptedError after `interrupt`; the caller then rewinds all entries.
        """
        self._batch.clear()
        ends = []
        for entry in entries:
            last = len(entry.tokens) - 1 - entry.drafted
            for index, token in enumerate(entry.tokens):
                self._batch.add(token, entry.position + index, [entry.slot], entry.sampled and index >= last)
            ends.append(self._batch.n_tokens - 1 - entry.drafted)
        tokens, rows = self._batch.n_tokens, sum(1 + entry.drafted for entry in entries if entry.sampled)
        self._taken += tokens
        if not self._pads_single_tokens or (tokens > 1 and rows != 1):
            self._decode()
            return ends
        self._batch.add(0, 0, [self._scratch], True)  # noqa: FBT003 - positional in the binding
        try:
            self._decode()
        finally:
            self._context.memory_seq_rm(self._scratch, -1, -1)  # it was last, so its cell is the next one taken
        return ends

    def _decode(self) -> None:
        began_at, processor_at = time.perf_counter(), time.process_time()
        threads = self._thread_count.begin(began_at, self._batch.n_tokens)
        self._context.set_n_threads(threads, threads)
        self._context.decode(self._batch)
        ended_at, processor_s = time.perf_counter(), time.process_time() - processor_at
        time_s = ended_at - began_at
        self._thread_count.end(ended_at, tokens=self._batch.n_tokens, time_s=time_s, processor_s=processor_s)

    def _is_padding_needed(self) -> bool:
        """Try out if a token that is alone in its step, or alone in the last layer, is rounded differently.

        That depends on the types of the weights and on the processor: weights of 16 and 32 bits are of that kind.
        """
        one, other = BatchEntry(0, [0], 0, sampled=True), BatchEntry(1, [1], 0, sampled=True)
        self.compute([one, other])
        together = self._context.get_logits_ith(0)
        self.clear_all()
        self.compute([one])
        alone = self._context.get_logits_ith(0)
        self.clear_all()
        return bool(together != alone)

    def sampler(
        self, settings: Settings, seed: int, grammar: TokenMatcher | None = None, sampled: Sequence[int] = ()
    ) -> Sampler:
        """Return a sampler of the tokens that the grammar allows; `sampled` are the tokens of the answer so far.

        Without temperature and top_p, and at temperature 0, it is greedy: an answer can be repeated. With one of them
        it draws at random, from `seed`, and the other is 1. A grammar acts as a logit bias on what it does not allow.
        """
        if grammar is None:
            return Sampler(self._sampler_chain(settings, seed, sampled), self._context)
        chain = partial(self._sampler_chain, settings, seed)
        return GrammarSampler(chain, self._context, grammar, sampled, memoryless=_is_memoryless(settings))

    def _sampler_chain(
        self, settings: Settings, seed: int, sampled: Sequence[int], biases: Sequence[tuple[int, float]] = ()
    ) -> Any:  # noqa: ANN401 - a type of the untyped binding
        chain = self._llama.LlamaSampler(self._llama.LlamaSamplerChainParams())
        if settings.frequency_penalty or settings.presence_penalty:
            chain.add_penalties(self.context, 1.0, settings.frequency_penalty, settings.presence_penalty)
            for token in sampled:
                chain.accept(token)
        if biases:
            chain.add_logit_bias(self._model.n_vocab, biases)
        if _is_random(settings):
            chain.add_temp(1.0 if settings.temperature is None else settings.temperature)
            chain.add_top_p(1.0 if settings.top_p is None else settings.top_p, 1)
            chain.add_dist((seed + len(sampled)) % _SEEDS)
        else:
            chain.add_greedy()
        return chain

    def score(self, index: int, token: int, top: int) -> Score:
        """Return the log probability of a token behind the one at `index` of the last step, and the `top` likeliest.

        These come from the model's logits, before any sampler changes them. It takes some milliseconds.
        """
        logprob, best = log_probabilities(self._context.get_logits_ith(index), token, top)
        return Score(logprob, [self._named(*one) for one in best])

    def _named(self, token: int, logprob: float) -> TopLogprob:
        piece = self.piece(token)
        name = piece.decode("utf-8", "replace") if piece else str(self._vocab.get_text(token))  # a control token
        return TopLogprob(name, logprob, list(piece))

    def interrupt(self) -> None:
        """Make the computation that runs, or else the next one, stop with InterruptedError. For any thread."""
        self._context.cancel = True

    def resume(self) -> None:
        """Take an interruption back."""
        self._context.cancel = False

    # --- sequences ---------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many tokens can be computed or restored before `defrag` must make room."""
        return int(self._context.n_ctx) - _PADDING - self._taken if self._invariant else self.cells

    def rewind(self, slot: int, length: int) -> bool:
        """Forget the tokens of a sequence behind the first `length`; return False if this model cannot do that."""
        self._keep_taken(slot, length)
        return bool(self._context.memory_seq_rm(slot, length, -1))

    def clear(self, slot: int) -> None:
        """Forget a sequence."""
        self._keep_taken(slot, 0)
        self._context.memory_seq_rm(slot, -1, -1)

    def clear_all(self) -> None:
        """Forget all sequences."""
        self._context.kv_cache_clear(False)  # noqa: FBT003 - positional in the binding
        self._taken = 0

    def _keep_taken(self, slot: int, start: int) -> None:
        """Keep freed cells taken until the next defrag, so that later tokens never lie before earlier ones."""
        if self._invariant:
            self._context.memory_seq_cp(slot, self._garbage, start, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot share the first `length` tokens of another."""
        self._context.memory_seq_cp(source, target, 0, length)

    def defrag(self, moves: Sequence[Move]) -> None:
        """Move sequences to the front (`kv.defrag`), and forget all others. Raises RuntimeError if that fails."""
        saved = []
        for move in moves:
            if move.shared:
                self._context.memory_seq_rm(move.slot, 0, move.shared)
            saved.append(self.save(move.slot, move.shared, move.length))
        self.clear_all()
        for move, state in zip(moves, saved, strict=True):
            if state and not self.restore(move.slot, state, move.length - move.shared):
                raise RuntimeError("saved state does not fit where it was")
            if move.shared:
                self.copy(move.source, move.slot, move.shared)

    def save(self, slot: int, start: int, end: int) -> tuple[bytes, ...]:
        """Return the state of the tokens of a sequence from `start` to `end`, its last.

        It comes in pieces, since the binding holds the interpreter lock while it makes one.
        """
        if not self.divisible:
            return (bytes(self._context.get_state_seq_data(slot)),)
        pieces = []
        for at in range(start, end, self._saved_piece_tokens):
            self._context.memory_seq_cp(slot, self._scratch, at, min(at + self._saved_piece_tokens, end))
            pieces.append(bytes(self._context.get_state_seq_data(self._scratch)))
            self._context.memory_seq_rm(self._scratch, -1, -1)
        return tuple(pieces)

    def restore(self, slot: int, state: Sequence[bytes], length: int) -> bool:
        """Put the saved state of `length` tokens into an empty slot, if there is `room`; return False if it fails."""
        self._taken += length
        try:
            for piece in state:
                if not self.divisible:  # then it is the only one
                    self._context.set_state_seq_data(piece, slot)
                    continue
                self._context.set_state_seq_data(piece, self._scratch)
                self._context.memory_seq_cp(self._scratch, slot, -1, -1)
                self._context.memory_seq_rm(self._scratch, -1, -1)
        except ValueError:
            self.clear(slot)
            return False
        return True

    def close(self) -> None:
        """Release the memory."""
        with self._lock:
            self._closed = True
        self._batch.close()
        self._threads.close()
        self._context.close()
        self._model.close()


class Sampler:
    """Samples the tokens of one answer."""

    def __init__(self, chain: Any, context: Any) -> None:  # noqa: ANN401 - types of the untyped binding
        self._chain = chain
        self._context = context

    def sample(self, index: int) -> int:
        """Return the token that follows the one at `index` of the step that was computed last."""
        return int(self._chain.sample(self._context, index))


class GrammarSampler(Sampler):
    """Samples the tokens of an answer that a grammar constrains.

    A greedy chain (`memoryless`) samples without the grammar first: usually the grammar allows that token, and then the
    mask of all allowed tokens is not needed. Otherwise every token that is not allowed gets a bias of minus infinity,
    in a chain that is made for this token.
    """

    def __init__(
        self,
        make_chain: Callable[..., Any],
        context: Any,  # noqa: ANN401 - a type of the untyped binding
        grammar: TokenMatcher,
        sampled: Sequence[int],
        *,
        memoryless: bool,
    ) -> None:
        super().__init__(make_chain(sampled), context)
        self._make_chain = make_chain
        self._grammar = grammar
        self._sampled = list(sampled)
        self._memoryless = memoryless

    def sample(self, index: int) -> int:
        """Return the token that follows, as a `Sampler` does. Raises `GrammarError` if the grammar allows none."""
        if self._memoryless:
            token = super().sample(index)
            if self._grammar.accept(token):
                return token
        token = self._sample_allowed(index)
        if not self._grammar.accept(token):
            raise GrammarError("it allows nothing where the answer has come to")
        self._sampled.append(token)
        return token

    def _sample_allowed(self, index: int) -> int:
        mask = self._grammar.allowed()
        if len(mask) - mask.count(0) == 1:
            return len(mask) - len(mask.lstrip(b"\0"))
        biases = list(compress(_exclusions(len(mask)), mask.translate(_INVERTED)))
        return int(self._make_chain(self._sampled, biases).sample(self._context, index))


#: Inverts a mask: 1 for each token that is not allowed.
_INVERTED = bytes([1]) + bytes(255)


@cache
def _exclusions(size: int) -> tuple[tuple[int, float], ...]:
    """Return the bias that excludes a token, for each token."""
    return tuple((token, -inf) for token in range(size))


def _is_random(settings: Settings) -> bool:
    temperature = 1.0 if settings.temperature is None else settings.temperature
    return (settings.temperature is not None or settings.top_p is not None) and temperature > 0


def _is_memoryless(settings: Settings) -> bool:
    """Say if sampling a token changes nothing for the next: no random numbers and no penalties."""
    return not (_is_random(settings) or settings.frequency_penalty or settings.presence_penalty)


def _read_template(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"the chat template {path} cannot be read: {error}") from error


def usable_processors() -> int:
    """Return how many threads to compute with: more threads than processors are slower than fewer."""
    # sched_getaffinity knows what a container or taskset allows, but is not on every system
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MAX_THREADS)
