"""The Responses dialect: requests to a server of the same API that our clients use. Its stream is read in `stream`.

Items are sent as the bytes they are. Only reasoning is parsed, since a provider gets back its own and no other's. The
gateway keeps the history and sends all of it, so the upstream is asked to store nothing. Not here: an upstream's own
`previous_response_id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from segue.dialects.headers import HeaderLines, bearer_headers
from segue.dialects.incremental import (
    RenderedTurn,
    RenderState,
    RenderStateBuilder,
    cache_key,
    close_list,
    render_history,
)
from segue.dialects.interface import NOTHING, Rendered, ReplyDecoder, TurnRequest
from segue.dialects.items import read_item
from segue.dialects.loss_warnings import reasoning_left_out
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.stream import ResponsesDecoder
from segue.dialects.rules import (
    KNOWN_EXTRA,
    OTHERS,
    REFUSED,
    Field,
    Preset,
    RequestBuilder,
    Rule,
    carried,
    ours,
    passed,
    write_settings,
)
from segue.dialects.sealed_reasoning import unseal
from segue.protocol.codec import encode, with_field
from segue.protocol.item_types import ReasoningItem
from segue.protocol.items import Item
from segue.protocol.problems import Problem
from segue.protocol.requests import ENCRYPTED_REASONING


class ResponsesDialect:
    """The Responses API, as `provider` speaks it.

    Args:
        provider: who can read the reasoning that this upstream writes.
        profile: what its server does differently from others.
        preset: fields of every request.
    """

    name = "responses"

    def __init__(self, provider: str, *, profile: ProviderProfile = PLAIN, preset: Preset | None = None) -> None:
        self.provider = provider
        self._preset = preset
        self._profile = profile
        self._cache_key = f"responses:{provider}:{profile.cache_key}"

    def path(self, model: str) -> str:  # noqa: ARG002 - other APIs have the model in the path
        """Return where to POST."""
        return "/responses"

    def headers(self, api_key: str | None) -> HeaderLines:
        """Return the header lines of this API."""
        return bearer_headers(api_key)

    def render(
        self, request: TurnRequest, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        """Write the request body."""
        builder = RequestBuilder(
            request.model, request.settings, preset=self._preset, profile=self._profile, without=without
        )
        if "store" not in self._profile.omitted_fields:
            builder.fields["store"] = False
        builder.fields["stream"] = True
        _ask_for_reasoning(builder)
        write_settings(builder, RESPONSES_FIELDS)
        parts = render_history(request.history, self, cache.view(self._cache_key, RenderedTurn))
        state = parts[-1].state
        problem = builder.problem or state.problem
        if problem is not None:
            return problem
        if request.settings.prompt_cache_key is None and builder.is_wanted("prompt_cache_key"):
            builder.fields["prompt_cache_key"] = cache_key(request.tenant, request.settings.instructions, state)
        pieces = [encode(builder.fields)[:-1] + b',"input":[', *(part.closed for part in parts if part.closed)]
        warnings = (*builder.warnings, *state.warnings)
        return Rendered(close_list(pieces, b"]}"), warnings, frozenset(builder.own_fields))

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> ReplyDecoder:  # noqa: ARG002 - ids are kept
        """Make the reader of one reply."""
        return ResponsesDecoder(self.provider, warnings)

    def start(self) -> RenderState[NoOpenMessage]:
        """Return the state before the first item."""
        return RenderState(NoOpenMessage())

    def renderer(self, state: RenderState[NoOpenMessage]) -> ResponsesRenderer:
        """Return a renderer that goes on from `state`."""
        return ResponsesRenderer(state, self.provider)


# --- settings --------------------------------------------------------------------------------------------------------

#: Models that reason, by their names at OpenAI (https://platform.openai.com/docs/guides/reasoning).
_REASONS = re.compile(r"o\d|gpt-(?:[5-9](?!.*chat)|oss)|codex-|computer-use-")


def _ask_for_reasoning(builder: RequestBuilder) -> None:
    """Ask for the reasoning in the form that this provider can use again, unless it is known to refuse that."""
    asked = builder.profile.encrypted_reasoning
    if asked == "never" or (asked == "reasoning_models" and not _REASONS.match(builder.model)):
        return
    if ENCRYPTED_REASONING in builder.settings.include:  # the client asks: `_write_include`
        return
    if asked == "always" or builder.is_wanted("include"):
        builder.fields["include"] = [ENCRYPTED_REASONING]


def _write_include(builder: RequestBuilder) -> None:
    names = list(dict.fromkeys((*builder.fields.get("include", ()), *builder.settings.include)))
    if builder.profile.encrypted_reasoning == "never" and ENCRYPTED_REASONING in names:
        names.remove(ENCRYPTED_REASONING)
        builder.drop(f"include: {ENCRYPTED_REASONING}", REFUSED)
    if names:
        builder.fields["include"] = names


def _pass_others(builder: RequestBuilder) -> None:
    for name, raw in builder.settings.extra.items():
        if builder.preset.owns(name) and name not in KNOWN_EXTRA:
            builder.drop(name[:60], "the gateway's configuration says what the provider gets")
        elif name not in builder.fields:
            builder.fields[name] = raw


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

#: What becomes of the items of a history, for the documentation. `ResponsesRenderer` does it.
RESPONSES_ITEMS: Mapping[str, Rule] = {
    "reasoning of this upstream": Rule("carried", "With its `encrypted_content` as it wrote it."),
    "reasoning without our mark": Rule("carried", "A client brought it from a server of this API."),
    "reasoning of another provider": Rule("dropped", "Only its own provider can use it."),
    "everything else": Rule("carried", "Byte for byte."),
}


class NoOpenMessage(msgspec.Struct, frozen=True):
    """The open message of an API that has none: an item never grows."""

    @property
    def size_bytes(self) -> int:
        """It takes no memory."""
        return 0


class ResponsesRenderer:
    """Writes items as they are."""

    def __init__(self, state: RenderState[NoOpenMessage], provider: str) -> None:
        self._provider = provider
        self._state = RenderStateBuilder(state)
        self._closed: list[bytes] = []

    def add(self, item: Item) -> None:
        """Take the next item."""
        kind = self._state.read_type(item)
        if kind is None:
            return
        kept = self._reasoning(item) if kind == "reasoning" else item
        if kept is not None:
            self._closed.append(kept)

    def finish(self) -> RenderedTurn[NoOpenMessage]:
        """Return the items, each with a comma after it."""
        closed = b"".join(item + b"," for item in self._closed)
        return RenderedTurn(closed, self._state.build(NoOpenMessage()))

    def _reasoning(self, item: Item) -> Item | None:
        """Return reasoning as its provider wrote it, or None if this provider cannot use it."""
        value = read_item(item, "reasoning")
        if isinstance(value, Problem):
            self._state.refuse(value)
            return item
        assert isinstance(value, ReasoningItem), "that is what was read"
        if not value.encrypted_content:  # open reasoning is for everybody; a summary alone is of no use to a provider
            if value.content:
                return item
        else:
            sealed = unseal(value.encrypted_content)
            if sealed.provider is None:
                return item
            if sealed.provider == self._provider:
                return with_field(item, "encrypted_content", sealed.content)
        self._state.warn(reasoning_left_out(value))
        return None
