"""The Responses dialect: requests to a server of the API that clients speak here too. Its stream is read in
`responses_stream`.

Items go on as the bytes they are; only reasoning is looked into, since each provider gets its own back and no other's.
The upstream is told to store nothing: the history is kept here, and sent in full. Not here: an upstream's own
`previous_response_id`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from segue.dialects.incremental import Carry, Fragment, Notes, cache_key, fold
from segue.dialects.interface import Decoder, Rendered, TurnRequest
from segue.dialects.items import Reasoning, read_item
from segue.dialects.loss_warnings import reasoning_left_out
from segue.dialects.render_cache import Fragments
from segue.dialects.responses.stream import ResponsesDecoder
from segue.dialects.rules import KNOWN_EXTRA, OTHERS, Draft, Field, Preset, Rule, carried, ours, passed, write_settings
from segue.dialects.sealed_reasoning import unseal
from segue.protocol.codec import encode, with_field
from segue.protocol.items import Item
from segue.protocol.problems import Problem
from segue.protocol.requests import ENCRYPTED_REASONING


class ResponsesDialect:
    """The Responses API, as `provider` speaks it."""

    name = "responses"

    def __init__(self, provider: str, *, preset: Preset | None = None) -> None:
        self.provider = provider
        self._preset = preset
        self._shelf = f"responses:{provider}"

    def path(self, model: str) -> str:  # noqa: ARG002 - other APIs have the model in the path
        """Return where to POST."""
        return "/responses"

    def headers(self, api_key: str | None) -> tuple[tuple[str, str], ...]:
        """Return the header lines of this API."""
        key = () if api_key is None else (("Authorization", f"Bearer {api_key}"),)
        return (("Content-Type", "application/json"), ("Accept", "text/event-stream"), *key)

    def render(self, request: TurnRequest, fragments: Fragments) -> Rendered | Problem:
        """Write the request body."""
        draft = Draft(request.model, request.settings, self._preset)
        draft.fields |= {"store": False, "stream": True, "include": [ENCRYPTED_REASONING]}
        write_settings(draft, RESPONSES_FIELDS)
        parts = fold(request.history, self, fragments.shelf(self._shelf, Fragment))
        carry = parts[-1].carry
        problem = draft.problem or carry.problem
        if problem is not None:
            return problem
        if request.settings.prompt_cache_key is None:
            draft.fields["prompt_cache_key"] = cache_key(request.tenant, request.settings.instructions, carry)
        pieces = [encode(draft.fields)[:-1] + b',"input":[', *(part.closed for part in parts if part.closed)]
        pieces[-1] = pieces[-1].removesuffix(b",")
        return Rendered((*pieces, b"]}"), (*draft.warnings, *carry.warnings))

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> Decoder:  # noqa: ARG002 - ids are kept
        """Make the reader of one reply."""
        return ResponsesDecoder(self.provider, warnings)

    def start(self) -> Carry[Nothing]:
        """Return the state before the first item."""
        return Carry(Nothing())

    def scribe(self, carry: Carry[Nothing]) -> ResponsesScribe:
        """Return a scribe that goes on from `carry`."""
        return ResponsesScribe(carry, self.provider)


# --- settings --------------------------------------------------------------------------------------------------------


def _write_include(draft: Draft) -> None:
    names = dict.fromkeys((*draft.fields["include"], *draft.settings.include))
    draft.fields["include"] = list(names)


def _pass_others(draft: Draft) -> None:
    for name, raw in draft.settings.extra.items():
        if draft.preset.owns(name) and name not in KNOWN_EXTRA:
            draft.drop(name[:60], "the gateway's configuration says what the provider gets")
        elif name not in draft.fields:
            draft.fields[name] = raw


_CARRIED = (
    *("instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "max_output_tokens"),
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "max_tool_calls", "truncation"),
    *("service_tier", "safety_identifier"),
)
#: What becomes of each setting.
RESPONSES_FIELDS: Mapping[str, Field] = {
    "model": Field(Rule("carried", "The name the configuration gives it."), lambda _: None),
    **{name: carried(name) for name in _CARRIED},
    "include": Field(Rule("carried", "And `reasoning.encrypted_content`."), _write_include),
    "prompt_cache_key": Field(
        Rule("carried", "One is made of the start of the history where there is none."),
        carried("prompt_cache_key").write,
    ),
    "metadata": ours("It stands in the response."),
    **{name: passed(name) for name in KNOWN_EXTRA},
    OTHERS: Field(Rule("carried", "Unless the upstream's `body` has it."), _pass_others),
}

# --- history ---------------------------------------------------------------------------------------------------------

#: What becomes of the items of a history, for the documentation; the scribe below does it.
RESPONSES_ITEMS: Mapping[str, Rule] = {
    "reasoning of this upstream": Rule("carried", "With its `encrypted_content` as it wrote it."),
    "reasoning without our mark": Rule("carried", "A client brought it from a server of this API."),
    "reasoning of another provider": Rule("dropped", "Only its own provider can use it."),
    "everything else": Rule("carried", "Byte for byte."),
}


class Nothing(msgspec.Struct, frozen=True):
    """No message stays open: an item is an item."""

    @property
    def size_bytes(self) -> int:
        """Nothing to hold."""
        return 0


class ResponsesScribe:
    """Writes items as they are."""

    def __init__(self, carry: Carry[Nothing], provider: str) -> None:
        self._provider = provider
        self._notes = Notes(carry)
        self._closed: list[bytes] = []

    def add(self, item: Item) -> None:
        """Take the next item."""
        kind, _ = self._notes.head(item)
        if not kind:
            return
        kept = self._reasoning(item) if kind == "reasoning" else item
        if kept is not None:
            self._closed.append(kept)

    def fragment(self) -> Fragment[Nothing]:
        """Return the items, each with a comma after it."""
        closed = b"".join(item + b"," for item in self._closed)
        return Fragment(closed, self._notes.carry(Nothing()))

    def _reasoning(self, item: Item) -> Item | None:
        """Return reasoning as its provider wrote it, or None if it cannot be used there."""
        value = read_item(item, "reasoning")
        if isinstance(value, Problem):
            self._notes.refuse(value)
            return item
        assert isinstance(value, Reasoning), "that is what was read"
        if not value.encrypted_content:  # what has words of its own is open to all; a summary alone is of no use
            if value.content:
                return item
        else:
            opaque = unseal(value.encrypted_content)
            if opaque.provider is None:
                return item
            if opaque.provider == self._provider:
                return with_field(item, "encrypted_content", opaque.content)
        self._notes.warn(reasoning_left_out(value))
        return None
