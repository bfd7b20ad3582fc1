"""From a request to the tokens of its prompt, reading only what is new where that gives the same tokens.

With each response the tokens of its prompt are kept, as what it added to the prompt of its parent: continuing costs
what the parent answered and the new input, at any depth. The answer is read as the history has it, not as it was
sampled, so the prompt of a turn is the same whether it was continued, forked, or sent whole. Everything is read anew
where the parent's prompt is not kept or does not count (other instructions or tools, turns left out for want of room),
and where the template cannot be continued. What the engine then need not compute again is found by comparing tokens.

Any thread may render. What is kept is bounded, and forgets what was used least recently, and responses that are gone; a
prompt that goes on from a forgotten one keeps its own beginning. Not here: KV caches.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

import msgspec

from segue.engine.prompt.chat_template import ChatTemplate, Segment, TemplateError
from segue.engine.prompt.messages import Message, Tool, read, read_continuation, read_tools
from segue.engine.prompt.truncation import COUNTED_CONTEXTS, Fitting, Limits, Tokenizer, to_tokens
from segue.history.chains import History
from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings

#: Responses whose prompt is kept as tokens; the tokens of all of them are bounded by the second number.
_KEPT = 10_000
_KEPT_TOKENS = 16 * 1024 * 1024


class Prompt(msgspec.Struct, frozen=True):
    """The tokens of a prompt; `rendered` of them were made from text now, and `dropped` turns were left out."""

    tokens: list[int]
    rendered: int
    dropped: int = 0


class _Kept:
    """The prompt of a response: that of its parent, and what it added. `head` is what stood before all turns."""

    __slots__ = ("added", "dropped", "head", "length", "parent")

    def __init__(self, parent: _Kept | None, added: Sequence[int], head: bytes, dropped: int) -> None:
        self.parent = parent
        self.added = array("i", added)
        self.head = head
        self.dropped = dropped
        self.length: int = len(self.added) + (0 if parent is None else parent.length)

    def tokens(self) -> list[int]:
        parts = []
        node: _Kept | None = self
        while node is not None:
            parts.append(node.added)
            node = node.parent
        return [token for part in reversed(parts) for token in part]


class Renderer:
    """Renders the prompts of one model, whose context holds `context` tokens."""

    def __init__(self, template: ChatTemplate, context: int) -> None:
        self._template = template
        self._context = context
        self._lock = Lock()
        self._kept: OrderedDict[tuple[str, ResponseId], _Kept] = OrderedDict()
        self._kept_tokens = 0

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
        """Return the prompt, and keep it under the response's id, unless nobody will continue that one.

        Raises `Refused`; what `tokenizer` raises passes.
        """
        tools = read_tools(settings).shown
        head = encode([settings.instructions or "", [tool.definition for tool in tools]])
        try:
            parent = None if history.parent is None else self._find(tenant, history.parent.id)
            if parent is not None and parent.head == head and not parent.dropped:
                added = self._added(history, tools, tokenizer)
                fits = added is not None and parent.length + len(added) < self._room(settings)
                if added is not None and fits:
                    kept = _Kept(parent, added, head, 0)
                    if keep:
                        self._keep(tenant, response_id, kept)
                    return Prompt(kept.tokens(), len(added))
            prompt = self._whole(history, settings, tools, tokenizer)
        except TemplateError as error:
            raise Refused(Problem("invalid_value", f"{str(error)[:400]}.", "input")) from error
        if keep:
            self._keep(tenant, response_id, _Kept(None, prompt.tokens, head, prompt.dropped))
        return prompt

    def forget(self, tenant: str, response_ids: Iterable[ResponseId]) -> None:
        """Keep the prompts of these responses no longer, if any are kept."""
        with self._lock:
            for response_id in response_ids:
                kept = self._kept.pop((tenant, response_id), None)
                self._kept_tokens -= 0 if kept is None else len(kept.added)

    def _room(self, settings: Settings) -> int:
        """Return how many tokens a prompt may have before it is asked which turns to leave out."""
        return self._context - (self._answer_room(settings) if settings.truncation == "auto" else 0)

    def _answer_room(self, settings: Settings) -> int:
        quarter = self._context // 4
        return min(settings.max_output_tokens or quarter, quarter)

    def _added(self, history: History, tools: Sequence[Tool], tokenizer: Tokenizer) -> list[int] | None:
        messages = read_continuation(history)
        segments = None if messages is None else self._template.continuation(messages, tools)
        if segments is None:
            return None
        tokens: list[int] = []
        for segment in segments:
            tokens += to_tokens(segment, tokenizer, COUNTED_CONTEXTS * self._context)
            if len(tokens) > self._context:
                return None  # it does not fit, and how long the whole is, is counted elsewhere
        return tokens

    def _whole(self, history: History, settings: Settings, tools: Sequence[Tool], tokenizer: Tokenizer) -> Prompt:
        def write(messages: Sequence[Message]) -> list[Segment]:
            return self._template.segments(messages, tools)

        conversation = read(history, settings.instructions)
        limits = Limits(self._context, self._answer_room(settings))
        fitted = Fitting(write, tokenizer, limits).fit(conversation, settings.truncation)
        return Prompt(fitted.tokens, len(fitted.tokens), fitted.dropped_turns)

    # --- private: what is kept ---------------------------------------------------------------------------------------

    def _find(self, tenant: str, response_id: ResponseId) -> _Kept | None:
        with self._lock:
            kept = self._kept.get((tenant, response_id))
            if kept is not None:
                self._kept.move_to_end((tenant, response_id))
            return kept

    def _keep(self, tenant: str, response_id: ResponseId, kept: _Kept) -> None:
        with self._lock:
            self._kept[tenant, response_id] = kept
            self._kept_tokens += len(kept.added)
            while len(self._kept) > _KEPT or (self._kept_tokens > _KEPT_TOKENS and len(self._kept) > 1):
                _, oldest = self._kept.popitem(last=False)
                self._kept_tokens -= len(oldest.added)
