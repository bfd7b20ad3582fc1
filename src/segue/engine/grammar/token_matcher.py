"""Which tokens a grammar allows next: the library llguidance, behind the few operations that an answer needs.

A `TokenVocabulary` is made once for a model, an `AnswerGrammar` for each grammar, a `TokenMatcher` for each answer.
All may be used from any thread, each by one at a time, and the library lets other threads run while it works. What it
does in one step is bounded in steps and memory: an answer that comes to where that is not enough ends with a
`GrammarError`, and nobody else waits for it. Not here: which of the allowed tokens is chosen (`model`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

from segue.engine.grammar.json_schema import GrammarError

#: Lexer states of an answer, of a third of a kilobyte each. A string of a bounded length takes ten for each character.
_MOST_STATES = 250_000
#: Readings of one token, of which the library computes some 20,000 a millisecond.
_MOST_ITEMS = 50_000


class TokenVocabulary:
    """The tokens of a model, as bytes; those in `special` are never text, those in `ends` end an answer.

    `tokenize` turns text into tokens as the model was taught: where a grammar leaves only one text, it is written so,
    unless these tokens are not that text, or InterruptedError is raised.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        tokenize: Callable[[str], list[int]],
        *,
        special: Sequence[int],
        ends: Sequence[int],
    ) -> None:
        self._library: Any = import_module("llguidance")  # only there with the extra `local`
        made = self._library.TokenizerWrapper(_Tokens(tokens, tokenize, special, ends))
        self._tokenizer = self._library.LLTokenizer(made, n_vocab=len(tokens), eos_token=list(ends))
        self._ends = frozenset(ends)
        self._limits = self._library.LLParserLimits(
            max_lexer_states=_MOST_STATES, step_max_items=_MOST_ITEMS, verbose_errors=False
        )

    def compile(self, lark: str) -> AnswerGrammar:
        """Read a grammar. Raises `GrammarError`, also where it allows nothing."""
        grammar = self._library.LLMatcher.grammar_from_lark(lark)
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        made = AnswerGrammar(self._tokenizer, matcher, self._ends)
        made.begin().allowed()
        return made


class _Tokens:
    """A vocabulary as the library asks for it."""

    bos_token_id = None

    def __init__(
        self, tokens: Sequence[bytes], tokenize: Callable[[str], list[int]], special: Sequence[int], ends: Sequence[int]
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = ends[0]
        self._tokenize = tokenize

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("only text is tokenized")  # the library asks once whether bytes can be
        written = text.encode()
        try:
            tokens = self._tokenize(text)
        except InterruptedError:
            tokens = []
        # what the library gets takes the place of the text: there are tokenizers that begin each text with a blank
        return tokens if b"".join(self.tokens[token] for token in tokens) == written else self._longest(written)

    def _longest(self, written: bytes) -> list[int]:
        """Divide a text into the longest tokens, from its beginning on."""
        found = []
        while written:
            ends = range(min(len(written), self._longest_token), 0, -1)
            length = next((end for end in ends if written[:end] in self._by_bytes), None)
            if length is None:
                break
            found.append(self._by_bytes[written[:length]])
            written = written[length:]
        return found

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = frozenset(self.special_token_ids)
        return {piece: token for token, piece in enumerate(self.tokens) if token not in special}

    @cached_property
    def _longest_token(self) -> int:
        return max(map(len, self._by_bytes))


class AnswerGrammar:
    """A grammar that answers can be held to."""

    def __init__(self, tokenizer: Any, matcher: Any, ends: frozenset[int]) -> None:  # noqa: ANN401 - of the library
        self._tokenizer = tokenizer
        self._matcher = matcher
        self._ends = ends
        _check(matcher)

    def begin(self) -> TokenMatcher:
        """Hold an answer to the grammar from its beginning."""
        return TokenMatcher(self._matcher.deep_copy(), self._ends)

    def begin_behind(self, written: str) -> TokenMatcher | None:
        """Hold the rest of an answer to the grammar; None if what is written already does not follow it."""
        matcher = self._matcher.deep_copy()
        tokens = self._tokenizer.greedy_tokenize(written)
        return TokenMatcher(matcher, self._ends) if matcher.try_consume_tokens(tokens) == len(tokens) else None


class TokenMatcher:
    """Where one answer is in its grammar."""

    def __init__(self, matcher: Any, ends: frozenset[int]) -> None:  # noqa: ANN401 - a type of the library
        self._matcher = matcher
        self._ends = ends

    def accept(self, token: int) -> bool:
        """Go on by a token; return False, and do nothing, if the grammar does not allow it."""
        if self._matcher.is_stopped() and not self._matcher.is_error():  # nothing can follow but the end
            return token in self._ends
        accepted = bool(self._matcher.try_consume_tokens([token]))
        _check(self._matcher)
        return accepted

    def allowed(self) -> bytes:
        """Return a byte for each token, 0 for those that the grammar does not allow; there is always one that it does.

        Where the text that follows is certain, that is its first token alone. Raises `GrammarError`.
        """
        mask: bytes = self._matcher.compute_logit_bias()
        _check(self._matcher)
        if not any(mask):
            raise GrammarError("it allows nothing where the answer has come to")
        return mask


def _check(matcher: Any) -> None:  # noqa: ANN401 - a type of the library
    if not matcher.is_error():
        return
    reason = str(matcher.get_error()).partition("\n")[0]
    if "Too many items" in reason:
        raise GrammarError("an answer could be read in too many ways at once")
    raise GrammarError(reason.removeprefix("parser error: ").rpartition("JSON schema: ")[2][:200])
