"""The Responses dialect: requests to a server of the same API that our clients use. Its stream is read in `stream`.

Items are sent as the bytes they are. Reasoning is parsed, since a provider gets back its own and no other's; it waits
for the item that must follow it. A call whose arguments or id a server would refuse gets others, and one that nobody
answers gets an output. The gateway keeps the history, so the upstream is asked to store nothing. Over HTTP it is sent
all of it, over a WebSocket only what that connection does not hold. Not here: what a connection holds (`held_context`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from segue.dialects.call_ids import RESPONSES_CALL_IDS
from segue.dialects.headers import HeaderLines, bearer_headers
from segue.dialects.incremental import (
    ItemOutline,
    RenderedTurn,
    RenderState,
    RenderStateBuilder,
    cache_key,
    close_list,
    render_history,
    render_input,
    render_turn,
)
from segue.dialects.interface import NOTHING, CountingEndpoint, Rendered, ReplyDecoder, TurnRequest
from segue.dialects.item_renderer import NO_OUTPUT, late_output_note
from segue.dialects.items import call_arguments, read_item
from segue.dialects.loss_warnings import (
    BROKEN_ARGUMENTS,
    FOREIGN_REASONING,
    LATE_OUTPUT,
    UNANSWERED_CALL,
    reasoning_left_out,
)
from segue.dialects.passed_on import passed_on
from segue.dialects.provider_profiles import PLAIN, ProviderProfile
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache, RenderCacheView
from segue.dialects.responses.held_context import HeldContext, RenderedCreate, listed, sent_input
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
from segue.dialects.token_counting import RESPONSES_COUNTING
from segue.dialects.tools import wire_name
from segue.history.chains import History
from segue.protocol.codec import UNREADABLE, encode, with_field
from segue.protocol.item_types import ReasoningItem
from segue.protocol.items import Item
from segue.protocol.problems import Problem
from segue.protocol.requests import ENCRYPTED_REASONING, NativeBody


class ResponsesDialect:
    """The Responses API, as `provider` speaks it.

    Args:
        provider: who can read the reasoning that this upstream writes.
        profile: what its server does differently from others.
        preset: fields of every request.
    """

    name = "responses"
    models_path = "/models"
    counting: CountingEndpoint | None = RESPONSES_COUNTING

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
        builder = self._build(request, {"stream": True}, without)
        reader, view = self._reader(builder, cache)
        return self._write(request, builder, render_history(request.history, reader, view))

    def render_create(
        self,
        request: TurnRequest,
        cache: RenderCache,
        held: HeldContext | None,
        *,
        without: frozenset[str] = NOTHING,
        generate: bool = True,
        stream_id: str | None = None,
    ) -> RenderedCreate | Problem:
        """Write the message of WebSocket mode that asks for a response.

        If the server holds exactly the turns before this one (`held`), it is sent what is new, in O(new items); else
        all. Instructions, tools and settings are sent each time: it takes none of them from the response before
        (https://developers.openai.com/api/docs/guides/websocket-mode). Without `generate`, it only prepares the state.
        `stream_id` names the lane in which it is to run.
        """
        builder = self._build(request, {}, without)
        for name in _NOT_ON_SOCKETS:
            builder.fields.pop(name, None)
        builder.fields = {"type": "response.create", **builder.fields}
        if stream_id is not None:
            builder.fields["stream_id"] = stream_id
        if not generate:
            builder.fields["generate"] = False
        reader, view = self._reader(builder, cache)
        history = request.history
        before = None if held is None or held.sent.view != view.name else self._held_turn(held, history, reader, view)
        if before is None or held is None:
            parts, older = render_history(history, reader, view), 0
        else:
            builder.fields["previous_response_id"] = held.response_id
            parts, older = [render_input(before.state, history.input, reader)], held.bytes_up_to(before.closed)
        rendered = self._write(request, builder, parts)
        if isinstance(rendered, Problem):
            return rendered
        new = (parts[-1].closed, listed(parts[-1].state.open.items()))
        depth = 1 if history.parent is None else (history.parent.compacted or history.parent).depth + 1
        sent = sent_input(
            view.name, new, depth=depth, before_bytes=older + sum(len(part.closed) for part in parts[:-1])
        )
        return RenderedCreate(rendered, sent, continues=older > 0, saved_bytes=older)

    def _build(self, request: TurnRequest, own: Mapping[str, bool], without: frozenset[str]) -> RequestBuilder:
        """Write all but the history."""
        builder = RequestBuilder(
            request.model, request.settings, preset=self._preset, profile=self._profile, without=without
        )
        if "store" not in self._profile.omitted_fields:
            builder.fields["store"] = False
        builder.fields |= own
        _ask_for_reasoning(builder)
        write_settings(builder, RESPONSES_FIELDS)
        return builder

    def _reader(
        self, builder: RequestBuilder, cache: RenderCache
    ) -> tuple[ResponsesDialect, RenderCacheView[RenderedTurn[OpenItems]]]:
        """Return as whom the history is rendered, and where that is kept."""
        if builder.is_wanted(SEALED_REASONING):
            return self, cache.view(self._cache_key, RenderedTurn)
        # as if another provider had made the reasoning in it
        return ResponsesDialect("", profile=self._profile), cache.view(f"{self._cache_key}:unread", RenderedTurn)

    def _held_turn(
        self,
        held: HeldContext,
        history: History,
        reader: ResponsesDialect,
        view: RenderCacheView[RenderedTurn[OpenItems]],
    ) -> RenderedTurn[OpenItems] | None:
        """Return the newest turn as rendered, if the server holds it and all before it."""
        if history.parent is None:
            return None
        turn = history.parent.compacted or history.parent
        rendered = render_turn(turn, reader, view)
        answer = (_as_written(item, reader.provider) for item in turn.output)
        return rendered if rendered.state.open.settled and held.is_of(turn, rendered.closed, answer) else None

    def _write(
        self, request: TurnRequest, builder: RequestBuilder, parts: Sequence[RenderedTurn[OpenItems]]
    ) -> Rendered | Problem:
        """Join the fields, and the parts of the history that are sent, of which the last is the new input."""
        state = parts[-1].state
        problem = builder.problem or state.problem
        if problem is not None:
            return problem
        if request.settings.prompt_cache_key is None and builder.is_wanted("prompt_cache_key"):
            builder.fields["prompt_cache_key"] = cache_key(request.tenant, request.settings.instructions, state)
        pieces = [encode(builder.fields)[:-1] + b',"input":[', *(part.closed for part in parts if part.closed)]
        pieces.append(listed(state.open.items()))
        lost = (loss for loss in state.open.losses if loss not in state.warnings)
        warnings = (*builder.warnings, *state.warnings, *lost)
        return Rendered(close_list(pieces, b"]}"), warnings, frozenset(builder.own_fields))

    def pass_on(
        self,
        request: TurnRequest,
        native: NativeBody,
        cache: RenderCache,  # noqa: ARG002 - others render what they have kept
        *,
        without: frozenset[str] = NOTHING,
    ) -> Rendered | Problem:
        """Write the body of a request that came in this API."""
        return passed_on(
            native.body, {"model": encode(request.model), "stream": b"true"}, preset=self._preset, without=without
        )

    def decoder(self, request: TurnRequest, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
        """Make the reader of one reply."""
        limit = request.settings.max_output_tokens
        return ResponsesDecoder(request.response_id, self.provider, warnings, limit=limit)

    def start(self) -> RenderState[OpenItems]:
        """Return the state before the first item."""
        return RenderState(OpenItems())

    def renderer(self, state: RenderState[OpenItems]) -> ResponsesRenderer:
        """Return a renderer that goes on from `state`."""
        return ResponsesRenderer(state, self.provider)


# --- settings --------------------------------------------------------------------------------------------------------

#: What a message has for itself, and what says how the events of an answer come over HTTP: servers of Open Responses
#: refuse that on a WebSocket.
_NOT_ON_SOCKETS = ("type", "generate", "stream", "stream_options")

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
    "context_management": Field(
        Rule("ours", 'The gateway compacts the history, or with `compaction = "upstream"` this server.'),
        passed("context_management").write,
    ),
    OTHERS: Field(Rule("carried", "Unless the upstream's `body` has it."), _pass_others),
}

# --- history ---------------------------------------------------------------------------------------------------------

#: What becomes of the items of a history, for the documentation. `ResponsesRenderer` does it.
RESPONSES_ITEMS: Mapping[str, Rule] = {
    "reasoning of this upstream": Rule("carried", "With its `encrypted_content` as it wrote it."),
    "reasoning without our mark": Rule("carried", "A client brought it from a server of this API."),
    "reasoning of another provider": Rule("dropped", "Only its own provider can use it."),
    "reasoning that led to nothing": Rule("dropped", "A cut answer may end in it; providers refuse it alone."),
    "id of a call": Rule(
        "carried", "Another one replaces an id that an earlier call has, or that is longer than 64 characters."
    ),
    "arguments of a call": Rule("carried", "If they are no JSON object, an object holds them."),
    "function_call_output, custom_tool_call_output": Rule(
        "carried",
        "Byte for byte; as a text of the user's, if its call has an output already. A call without one gets a note.",
    ),
    "name of a call": Rule("carried", "Another one replaces a name that no tool of this API can have."),
    "compaction of this gateway": Rule("translated", "The summary, as a message of the user's."),
    "everything else": Rule("carried", "Byte for byte."),
}


class WaitingCall(msgspec.Struct, frozen=True):
    """A call that has no output yet, and the type of item that its output has."""

    call_id: str
    output_type: str


class OpenItems(msgspec.Struct, frozen=True):
    """Items that depend on what comes next.

    `reasoning` waits for the item that it led to: without one, OpenAI refuses it in every later turn. The calls in
    `waiting`, by the ids that are sent, have no output yet; OpenAI answers 400 "No tool output found for function call"
    to each that never gets one. `interrupted` is true once somebody else than the model spoke since then. `others` is
    what they said; notes for the calls stand before it.
    """

    reasoning: tuple[Item, ...] = ()
    waiting: tuple[tuple[str, WaitingCall], ...] = ()
    others: tuple[Item, ...] = ()
    interrupted: bool = False

    @property
    def losses(self) -> Iterable[str]:
        """The warnings about what these items leave out, or add, if nothing more comes."""
        if self.reasoning:
            yield FOREIGN_REASONING
        if self.interrupted:
            yield UNANSWERED_CALL

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""
        return sum(map(len, (*self.reasoning, *self.others))) + sum(len(sent_id) for sent_id, _ in self.waiting)

    @property
    def settled(self) -> bool:
        """Whether nothing of what comes next can change what was sent; calls may wait."""
        return not (self.reasoning or self.others or self.interrupted)

    def items(self) -> Iterable[Item]:
        """Return the items that are sent if nothing more comes."""
        if self.interrupted:
            for sent_id, call in self.waiting:
                yield encode({"type": call.output_type, "call_id": sent_id, "output": NO_OUTPUT})
        yield from self.others


class _Typed(msgspec.Struct):
    type: str | None = None


_types = msgspec.json.Decoder(_Typed)
_texts = msgspec.json.Decoder(str)
_outputs = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts = msgspec.json.Decoder(list[msgspec.Raw])
#: Calls of tools that the request declares, and the types of their outputs. OpenAI answers 400 to a name that no such
#: tool could have.
_OUTPUTS: Mapping[str, str] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
}
_OUTPUT_TYPES = frozenset(_OUTPUTS.values())
_NAME_LENGTH = 128


class ResponsesRenderer:
    """Writes items as they are."""

    def __init__(self, state: RenderState[OpenItems], provider: str) -> None:
        self._provider = provider
        self._state = RenderStateBuilder(state, RESPONSES_CALL_IDS)
        self._reasoning = list(state.open.reasoning)
        self._waiting = dict(state.open.waiting)
        self._others = list(state.open.others)
        self._interrupted = state.open.interrupted
        self._closed: list[bytes] = []

    def add(self, item: Item) -> None:
        """Take the next item."""
        head = self._state.read_head(item)
        if head is None:
            return
        if head.kind == "reasoning":
            self._add_reasoning(item)
            return
        by_model = _is_said_by_model(head)
        if by_model and self._interrupted:
            self._give_calls_up()
        if self._reasoning:
            self._end_reasoning(by_model=by_model)
        if head.kind.endswith("_output"):
            self._add_output(item, head)
        elif by_model:
            self._closed.append(self._with_call(item, head))
        else:
            self._add_other(self._with_call(item, head))

    def _end_reasoning(self, *, by_model: bool) -> None:
        if by_model:
            self._closed += self._reasoning
        else:
            self._state.warn(FOREIGN_REASONING)
        self._reasoning.clear()

    def finish(self) -> RenderedTurn[OpenItems]:
        """Return the items, each with a comma after it, and those that depend on what comes next."""
        return RenderedTurn(listed(self._closed), self._state.build(self._open()))

    def _open(self) -> OpenItems:
        waiting = tuple(self._waiting.items())
        return OpenItems(tuple(self._reasoning), waiting, tuple(self._others), self._interrupted)

    def _give_calls_up(self) -> None:
        """Write notes for the calls that nobody answered: the model speaks again."""
        self._state.warn(UNANSWERED_CALL)
        self._closed += self._open().items()
        for call in self._waiting.values():
            self._state.call_ids.map_output(call.call_id)  # an output that still comes is late
        self._end_waiting()

    def _end_waiting(self) -> None:
        self._waiting.clear()
        self._others.clear()
        self._interrupted = False

    def _add_other(self, item: Item) -> None:
        """Add what a client says; notes for the calls that wait may have to stand before it."""
        if self._waiting:
            self._others.append(item)
            self._interrupted = True
        else:
            self._closed.append(item)

    def _add_output(self, item: Item, head: ItemOutline) -> None:
        """Add an output; one that comes late becomes a text."""
        call_id = head.call_id
        sent_id = ""
        if isinstance(call_id, str):
            late = head.kind in _OUTPUT_TYPES and self._state.call_ids.is_answered(call_id)
            sent_id = self._state.call_ids.map_output(call_id)
            if late:
                self._state.warn(LATE_OUTPUT)
                self._add_other(_as_text(item, sent_id))
                return
            if sent_id != call_id:
                item = with_field(item, "call_id", sent_id)
        (self._others or self._closed).append(item)
        if self._waiting.pop(sent_id, None) is None:
            return
        self._interrupted = True
        if not self._waiting:
            self._closed += self._others
            self._end_waiting()

    def _with_call(self, item: Item, head: ItemOutline) -> Item:
        """Return a call with what any server takes; most are as they came."""
        call_id, name, kind = head.call_id, head.name, head.kind
        if not isinstance(call_id, str):
            return item
        sent_id = self._state.call_ids.map_call(call_id)
        if sent_id != call_id:
            item = with_field(item, "call_id", sent_id)
        if kind not in _OUTPUTS:
            return item
        self._waiting[sent_id] = WaitingCall(call_id, _OUTPUTS[kind])
        if isinstance(name, str) and wire_name(name, _NAME_LENGTH) != name:
            item = with_field(item, "name", wire_name(name, _NAME_LENGTH))
        return self._with_arguments(item, head.arguments) if kind == "function_call" else item

    def _with_arguments(self, item: Item, raw: msgspec.Raw) -> Item:
        try:
            arguments = _texts.decode(raw)
        except UNREADABLE:  # a server may have left them out
            return item
        sent = call_arguments(arguments)
        if sent == arguments:
            return item
        if arguments.strip():
            self._state.warn(BROKEN_ARGUMENTS)
        return with_field(item, "arguments", sent)

    def _add_reasoning(self, item: Item) -> None:
        """Keep reasoning as its provider wrote it; leave it out if this provider cannot use it."""
        value = read_item(item, "reasoning")
        if isinstance(value, Problem):
            self._state.refuse(value)
            return
        assert isinstance(value, ReasoningItem), "that is what was read"
        sent = _reasoning_for(self._provider, item, value)
        if sent is None:
            self._state.warn(reasoning_left_out(value))
        else:
            self._reasoning.append(sent)


def _reasoning_for(provider: str, item: Item, value: ReasoningItem) -> Item | None:
    """Return reasoning as this provider gets it; None if it cannot use it."""
    if not value.encrypted_content:  # open reasoning is for everybody; a summary alone is of no use to a provider
        return item if value.content else None
    sealed = unseal(value.encrypted_content)
    if sealed.provider is None:
        return item
    return with_field(item, "encrypted_content", sealed.content) if sealed.provider == provider else None


def _as_written(item: Item, provider: str) -> Item:
    """Return an item of an answer as this provider wrote it: reasoning without our mark, all else as it is."""
    if b'"encrypted_content"' not in item or _types.decode(item).type != "reasoning":
        return item
    value = read_item(item, "reasoning")
    sent = _reasoning_for(provider, item, value) if isinstance(value, ReasoningItem) else None
    return item if sent is None else sent


def _as_text(output: Item, call_id: str) -> Item:
    """Return an output as a message of the user's."""
    said = _outputs.decode(output).get("output", msgspec.Raw(b'""'))
    parts: list[object] = [{"type": "input_text", "text": late_output_note(call_id)}]
    if bytes(said).startswith(b"["):
        parts += _parts.decode(said)
    else:
        parts.append(
            {
                "type": "input_text",
                "text": said if bytes(said).startswith(b'"') else bytes(said).decode("utf-8", "replace"),
            }
        )
    return encode({"type": "message", "role": "user", "content": parts})


#: Items that a client sends, beside messages that are not the model's and outputs of calls.
_SENT_BY_CLIENTS = frozenset(
    {"additional_tools", "compaction_trigger", "configuration_update", "mcp_approval_response"}
)


def _is_said_by_model(head: ItemOutline) -> bool:
    if head.kind == "message":
        return head.role == "assistant"
    return not head.kind.endswith("_output") and head.kind not in _SENT_BY_CLIENTS
