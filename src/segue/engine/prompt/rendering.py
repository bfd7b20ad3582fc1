"""From a request to the tokens of its prompt; only what is new is rendered, if that gives the same tokens.

A cache keeps the tokens of the prompt of each response, stored as what it added to the prompt of its parent. So a
continuation costs only the parent's answer and the new input, at any depth. The answer is tokenized as the history has
it, not as it was sampled, so the prompt of a turn is the same whether it is continued, forked, or sent whole. The whole
conversation is rendered if the parent's prompt is not cached or not usable (other instructions or tools, turns dropped
by truncation), or if the template does not support it. What the engine then need not compute again, it finds by
comparing tokens.

Any thread may render. The cache is bounded: it drops the least recently used prompts, and those of responses that are
gone. A prompt that continues a dropped one keeps its own beginning. Not here: the KV cache.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

import msgspec

from segue.byte_lru import ByteLru
from segue.engine.prompt.chat_template import ChatTemplate, Segment, TemplateError
from segue.engine.prompt.messages import (
    PromptMessage,
    PromptTool,
    message_warnings,
    read_continuation,
    read_conversation,
    read_tools,
)
from segue.engine.prompt.truncation import COUNTED_CONTEXTS, ContextLimits, Tokenizer, Truncation, to_tokens
from segue.history.chains import History
from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings

#: The bounds of the cache: how many prompts, and the size of all of them.
_MAX_PROMPTS = 10_000
_MAX_BYTES = 64 * 1024 * 1024

#: Whose prompt it is that is only counted.
_NO_RESPONSE = ResponseId("")


class Prompt(msgspec.Struct, frozen=True):
    """The tokens of a prompt; `rendered` of them were made from text just now, and `dropped` turns are missing.

    `warnings` say what the prompt does not hold as the history has it.
    """

    tokens: list[int]
    rendered: int
    dropped: int = 0
    warnings: tuple[str, ...] = ()


class _AddedPrompt(NamedTuple):
    """What a turn adds to the prompt of its parent."""

    tokens: list[int]
    warnings: tuple[str, ...]


class _CachedPrompt:
    """The prompt of a response: its parent's and what it added. `head` is what comes before all turns."""

    __slots__ = ("added", "dropped", "head", "length", "parent", "warnings")

    def __init__(self, parent: _CachedPrompt | None, added: _AddedPrompt, head: bytes, dropped: int) -> None:
        self.parent = parent
        self.added = array("i", added.tokens)
        self.head = head
        self.dropped = dropped
        earlier = () if parent is None else parent.warnings
        self.warnings: tuple[str, ...] = tuple(dict.fromkeys((*earlier, *added.warnings)))
        self.length: int = len(self.added) + (0 if parent is None else parent.length)

    def tokens(self) -> list[int]:
        parts = []
        node: _CachedPrompt | None = self
        while node is not None:
            parts.append(node.added)
            node = node.parent
        return [token for part in reversed(parts) for token in part]


class PromptRenderer:
    """Renders the prompts of one model, whose context holds `context` tokens."""

    def __init__(self, template: ChatTemplate, context: int) -> None:
        self._template = template
        self._context = context
        self._lock = Lock()
        self._cache = ByteLru[tuple[str, ResponseId], _CachedPrompt](_MAX_BYTES, max_entries=_MAX_PROMPTS)

    def render(
        self,
        response_id: ResponseId,
        history: History,
        settings: Settings,
        *,
        tenant: str,
        tokenizer: Tokenizer,
        keep: bool = True,
    ) -> Prompt:
        """Return the prompt; if `keep`, cache it under the id of the response, for turns that continue it.

        Raises `Refused`, and whatever `tokenizer` raises.
        """
        tools = read_tools(settings).shown
        head = encode([settings.instructions, [tool.definition for tool in tools]])
        try:
            parent = None if history.parent is None else self._find(tenant, history.parent.id)
            if parent is not None and parent.head == head and not parent.dropped:
                added = self._added(history, tools, tokenizer)
                fits = added is not None and parent.length + len(added.tokens) < self._room(settings)
                if added is not None and fits:
                    cached = _CachedPrompt(parent, added, head, 0)
                    if keep:
                        self._keep(tenant, response_id, cached)
                    return Prompt(cached.tokens(), len(added.tokens), warnings=cached.warnings)
            prompt = self._whole(history, settings, tokenizer)
        except TemplateError as error:
            raise Refused(Problem("invalid_value", f"{str(error)[:400]}.", "input")) from error
        if keep:
            added = _AddedPrompt(prompt.tokens, prompt.warnings)
            self._keep(tenant, response_id, _CachedPrompt(None, added, head, prompt.dropped))
        return prompt

    def count(self, history: History, settings: Settings, *, tenant: str, tokenizer: Tokenizer) -> int:
        """Return how many tokens the prompt has. One that does not fit is counted too, up to `COUNTED_CONTEXTS`.

        Raises `Refused`, and whatever `tokenizer` raises.
        """
        try:
            prompt = self.render(_NO_RESPONSE, history, settings, tenant=tenant, tokenizer=tokenizer, keep=False)
        except Refused as refused:
            if refused.problem.code != "context_length_exceeded":
                raise
            conversation = read_conversation(history, settings.instructions_text)
            count = self._truncation(settings, tokenizer).count(conversation)
            if count > COUNTED_CONTEXTS * self._context:
                raise
            return count
        return len(prompt.tokens)

    def forget(self, tenant: str, response_ids: Iterable[ResponseId]) -> None:
        """Drop the cached prompts of these responses."""
        with self._lock:
            for response_id in response_ids:
                self._cache.pop((tenant, response_id))

    def forget_tenant(self, tenant: str) -> None:
        """Drop the cached prompts of a tenant."""
        with self._lock:
            for key in [key for key in self._cache if key[0] == tenant]:
                self._cache.pop(key)

    @property
    def cached(self) -> frozenset[ResponseId]:
        """The responses whose prompts are cached."""
        with self._lock:
            return frozenset(response_id for _, response_id in self._cache)

    def _room(self, settings: Settings) -> int:
        """Return how many tokens a prompt may have before truncation considers dropping turns."""
        return self._context - (self._answer_room(settings) if settings.truncation == "auto" else 0)

    def _answer_room(self, settings: Settings) -> int:
        quarter = self._context // 4
        return min(settings.max_output_tokens or quarter, quarter)

    def _added(self, history: History, tools: Sequence[PromptTool], tokenizer: Tokenizer) -> _AddedPrompt | None:
        messages = read_continuation(history)
        segments = None if messages is None else self._template.continuation(messages, tools)
        if messages is None or segments is None:
            return None
        tokens: list[int] = []
        for segment in segments:
            tokens += to_tokens(segment, tokenizer, COUNTED_CONTEXTS * self._context)
            if len(tokens) > self._context:
                return None  # it does not fit; `_whole` counts the tokens of the whole conversation
        return _AddedPrompt(tokens, message_warnings(messages))

    def _whole(self, history: History, settings: Settings, tokenizer: Tokenizer) -> Prompt:
        conversation = read_conversation(history, settings.instructions_text)
        truncated = self._truncation(settings, tokenizer).apply(conversation, settings.truncation)
        tokens, warnings = truncated.tokens, message_warnings(truncated.messages)
        return Prompt(tokens, len(tokens), truncated.dropped_turns, warnings)

    def _truncation(self, settings: Settings, tokenizer: Tokenizer) -> Truncation:
        tools = read_tools(settings).shown

        def write(messages: Sequence[PromptMessage]) -> list[Segment]:
            return self._template.segments(messages, tools)

        return Truncation(write, tokenizer, ContextLimits(self._context, self._answer_room(settings)))

    # --- private: the cache ------------------------------------------------------------------------------------------

    def _find(self, tenant: str, response_id: ResponseId) -> _CachedPrompt | None:
        with self._lock:
            return self._cache.get((tenant, response_id))

    def _keep(self, tenant: str, response_id: ResponseId, cached: _CachedPrompt) -> None:
        with self._lock:
            self._cache.put((tenant, response_id), cached, size_bytes=cached.added.itemsize * len(cached.added))
