"""What the dialects are tested with: conversations of every item type, cut into turns anywhere, and what reads streams.

It says nothing about what a dialect makes of them; the tests do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from segue.dialects.chat.request import ChatDialect
from segue.dialects.interface import Dialect, Output, Rendered, ReplyDecoder
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.provider_families import FAMILIES
from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.dialects.sealed_reasoning import seal
from segue.history.chains import History, Turn
from segue.http.sse import SseEvent
from segue.protocol.events import Ended
from segue.protocol.ids import ResponseId
from segue.protocol.items import calls_of
from segue.protocol.requests import NativeBody, Settings, json_text
from segue.protocol.responses import encode_echo
from segue.protocol.turns import Finished, TurnStream
from segue.testing.protocol_checker import StreamChecker, parse_json
from segue.testing.store_conformance import sample_id
from tests.strategies import json_objects, unknown_items

Json = dict[str, Any]

CHAT, OPENAI = "chat.example", "api.openai.com"
MESSAGES, RESPONSES = "api.anthropic.com", "responses.example"
DIALECTS: dict[str, Dialect] = {
    "chat": ChatDialect(CHAT),
    "openai-chat": ChatDialect(OPENAI, profile=FAMILIES["openai"].profile),
    "messages": MessagesDialect(MESSAGES),
    "responses": ResponsesDialect(RESPONSES),
}
SETTINGS = Settings(model="m")
RESPONSE_ID = sample_id("response")
PIXEL = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="


class Request(msgspec.Struct, frozen=True):
    """A turn as an upstream is asked to run it."""

    history: History
    settings: Settings = SETTINGS
    model: str = "model-1"
    response_id: ResponseId = RESPONSE_ID
    tenant: str = "tenant"
    native: NativeBody | None = None


# ---------------------------------------------------------------------------------------------------- items, generated

_words = st.text(max_size=6)
_ids = st.sampled_from(["call_1", "call_2", "call with spaces", "x" * 70])
_names = st.sampled_from(["look", "read_file"])

_parts = st.sampled_from(
    [
        {"type": "input_text", "text": "look"},
        {"type": "input_text", "text": ""},
        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_image", "file_id": "file-1", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="},
        {"type": "input_file", "file_id": "file-2"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "input_hologram", "depth": 3},
    ]
)
_contents = _words | st.lists(_parts, min_size=1, max_size=3)
_said = st.lists(
    st.sampled_from(
        [
            {"type": "output_text", "text": "well", "annotations": []},
            {"type": "output_text", "text": "as it says", "annotations": [{"type": "url_citation", "url": "u"}]},
            {"type": "refusal", "refusal": "no"},
        ]
    ),
    min_size=1,
    max_size=2,
)


def _message(**fields: SearchStrategy[Any]) -> SearchStrategy[Json]:
    return st.fixed_dictionaries({"type": st.just("message"), **fields})


def _item(kind: str, **fields: SearchStrategy[Any]) -> SearchStrategy[Json]:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


def thought(provider: str, inner: Json, text: str = "hm") -> Json:
    """Reasoning as a decoder of `provider` writes it."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    sealed = seal(provider, json.dumps(inner))
    return {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": sealed}


_reasoning = st.sampled_from(
    [
        thought(CHAT, {"field": "reasoning_content"}),
        thought(OPENAI, {"field": "reasoning", "details": [{"type": "reasoning.text", "text": "hm"}]}),
        thought(CHAT, {"calls": {"call_1": {"google": {"thought_signature": "c2ln"}}}}, text=""),
        thought(MESSAGES, {"signature": "c2ln"}),
        thought(MESSAGES, {"redacted": "b3BhcXVl"}, text=""),
        thought(RESPONSES, {}),
        thought(MESSAGES, {"signature": 7}),
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "reasoning", "id": "rs_3", "summary": [{"type": "summary_text", "text": "cut"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "open"}]},
    ]
)
_users = _message(role=st.just("user"), content=_contents)
_systems = _message(role=st.sampled_from(["system", "developer"]), content=_words)
_assistants = _message(role=st.just("assistant"), content=_words | _said) | _message(
    role=st.just("assistant"), content=_words, phase=st.just("commentary"), id=st.just("msg_1")
)
_arguments = json_objects.map(json.dumps) | st.sampled_from(["", "{", "[1]", '"x"'])
_calls = _item("function_call", call_id=_ids, name=_names, arguments=_arguments)
_outputs = _item("function_call_output", call_id=_ids, output=_contents)
_customs = _item("custom_tool_call", call_id=_ids, name=_names, input=_words)
_custom_outputs = _item("custom_tool_call_output", call_id=_ids, output=_contents)
_shells = _item("local_shell_call", call_id=_ids, action=json_objects, status=st.just("completed")) | _item(
    "local_shell_call_output", call_id=_ids, output=_words | json_objects
)
_hosted = _item("web_search_call", id=st.just("ws_1"), status=st.just("completed"))

#: One item of every type that the API has, as it comes from a client or a server of it.
SAMPLES: list[Json] = [
    {"type": "message", "role": "user", "content": "x"},
    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "ok"},
    {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "ok"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed", "results": None},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "computer_call", "id": "cu_1", "call_id": "call_3", "action": {"type": "wait"}, "status": "completed"},
    {
        "type": "computer_call_output",
        "call_id": "call_3",
        "output": {"type": "computer_screenshot", "image_url": PIXEL},
        "acknowledged_safety_checks": [{"id": "check_1"}],
    },
    {"type": "tool_search_call", "call_id": "call_4", "execution": "client", "arguments": {"q": 1}},
    {"type": "tool_search_output", "call_id": "call_4", "execution": "client", "tools": [{"type": "function"}]},
    {"type": "additional_tools", "role": "developer", "tools": []},
    {"type": "configuration_update", "configuration": {}},
    {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo=", "status": "completed"},
    {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "code": "1",
        "container_id": "c",
        "outputs": [],
        "status": "completed",
    },
    {"type": "local_shell_call", "id": "ls_1", "call_id": "call_5", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "id": "call_5", "output": "a.txt"},
    {"type": "shell_call", "call_id": "call_6", "action": {"commands": ["ls"]}},
    {
        "type": "shell_call_output",
        "call_id": "call_6",
        "output": [{"stdout": "a", "stderr": ""}],
        "max_output_length": 9,
    },
    {"type": "apply_patch_call", "call_id": "call_7", "operation": {"type": "delete_file", "path": "a"}},
    {"type": "apply_patch_call_output", "call_id": "call_7", "status": "failed"},
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "docs", "tools": []},
    {"type": "mcp_approval_request", "id": "mcpr_1", "server_label": "docs", "name": "find", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
    {"type": "mcp_call", "id": "mcp_1", "server_label": "docs", "name": "find", "arguments": "{}", "output": "ok"},
    {"type": "compaction_trigger"},
    {"type": "program", "id": "prog_1", "call_id": "call_8", "code": "1", "fingerprint": "f"},
    {"type": "program_output", "id": "po_1", "call_id": "call_8", "result": "1", "status": "completed"},
]

#: One item of any type that a history can hold and every dialect can render.
items: SearchStrategy[bytes] = st.one_of(
    _users,
    _systems,
    _assistants,
    _reasoning,
    _calls,
    _outputs,
    _customs,
    _custom_outputs,
    _shells,
    _hosted,
    st.sampled_from(SAMPLES),
).map(lambda item: json.dumps(item).encode())
any_items = items | unknown_items.map(lambda item: json.dumps(item).encode())

#: A conversation, as turns of (input, output).
turns = st.lists(
    st.tuples(st.lists(any_items, min_size=1, max_size=4), st.lists(any_items, max_size=4)), min_size=1, max_size=6
)

# ---------------------------------------------------------------------------------------------------- chains and bodies


def encode_items(values: Iterable[Json]) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


def grow(parent: Turn | None, given: Sequence[bytes], made: Sequence[bytes] = (), name: str = "turn") -> Turn:
    """Continue a chain."""
    return Turn(
        id=sample_id(f"{name}{0 if parent is None else parent.depth}"),
        parent=parent,
        input=tuple(given),
        output=tuple(made),
        calls=calls_of(made),
        stored=False,
    )


def replay(values: Iterable[bytes]) -> History:
    """The history of a client that sends everything in every turn."""
    return History(None, tuple(values))


def render(
    dialect: Dialect, history: History, settings: Settings = SETTINGS, keep: RenderCache | None = None
) -> Rendered:
    """Render what can be rendered."""
    rendered = dialect.render(Request(history, settings), RenderCache(1 << 24) if keep is None else keep)
    assert isinstance(rendered, Rendered), rendered
    return rendered


def body(dialect: Dialect, values: Iterable[Json], settings: Settings = SETTINGS) -> Json:
    """What the upstream is sent for a conversation."""
    return parse_json(render(dialect, replay(encode_items(values)), settings).body.decode())


def warnings(dialect: Dialect, values: Iterable[Json], settings: Settings = SETTINGS) -> tuple[str, ...]:
    return render(dialect, replay(encode_items(values)), settings).warnings


USER: Json = {"role": "user", "content": "go"}
LOOK: Json = {
    "type": "function",
    "name": "look",
    "description": "Look.",
    "parameters": {"type": "object"},
    "strict": True,
}


def settings(**fields: Any) -> Settings:  # noqa: ANN401 - any setting
    """Return settings that differ from the defaults in these fields."""
    if "instructions" in fields:
        fields["instructions"] = json_text(fields["instructions"])
    return Settings(model="m", **fields)


# -------------------------------------------------------------------------------------------------------------- streams


def run(decoder: ReplyDecoder, events: Iterable[SseEvent], *, truncated: bool = False) -> Output:
    """Read a whole stream."""
    output: Output = []
    for event in events:
        output += decoder.feed(event)
    return output + decoder.end(truncated=truncated)


def fold(output: Output) -> Finished:
    """Make the response that a client gets, and hold every event of it to the protocol."""
    assert sum(isinstance(event, Ended) for event in output) == 1, "one end"
    assert isinstance(output[-1], Ended), "the end is last"
    stream = TurnStream(RESPONSE_ID, None, encode_echo(SETTINGS, store=False), 100.0, encrypted=True)
    checker = StreamChecker("sse")
    events = [*stream.open(), *stream.feed(output)]
    assert stream.ended is not None
    finished = stream.close(stream.ended, 101.0)
    for event in (*events, finished.terminal):
        assert b"\n" not in event.whole()
        checker.feed(parse_json(event.whole().decode()))
    checker.finish()
    return finished


def response(output: Output) -> Json:
    return parse_json(fold(output).response.whole().decode())


# -------------------------------------------------------------------------------------- conversations that are sound


@st.composite
def sound_conversations(draw: st.DrawFn) -> list[Json]:
    """Conversations as agents have them: every call is answered before the model speaks again, in any order."""
    items: list[Json] = [{"role": "user", "content": draw(_contents)}]
    if draw(st.booleans()):
        items.insert(0, {"role": "developer", "content": "Be brief."})
    made = 0
    for _ in range(draw(st.integers(0, 4))):
        items += draw(st.lists(_reasoning, max_size=1))
        items += draw(st.lists(_assistants, max_size=1))
        calls = [draw(_calls | _customs) | {"call_id": f"call {made + n}"} for n in range(draw(st.integers(0, 3)))]
        made += len(calls)
        items += calls
        answers = [draw(_outputs) | {"type": c["type"] + "_output", "call_id": c["call_id"]} for c in calls]
        said = draw(st.lists(_users | _systems, min_size=0 if calls else 1, max_size=2))
        items += draw(st.permutations([*answers, *said]))
    return items
