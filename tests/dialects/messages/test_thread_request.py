"""Requests in a thread of the upstream: what they leave out, and that the upstream has exactly that."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.incremental import render_history
from segue.dialects.messages.request import MessagesDialect
from segue.dialects.messages.thread_reply import ContinuableReply, digest_of_blocks
from segue.dialects.messages.thread_request import THREAD, HeldReply, ThreadedDialect, ThreadRequest
from segue.dialects.render_cache import RenderCache
from segue.dialects.rules import Preset
from segue.history.chains import History, NativeTurn, Turn
from segue.protocol.object_text import ObjectText, read_object
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody, Settings, json_text
from tests.dialects.conversations import MESSAGES, Request, encode_items, grow, render, replay, turns
from tests.strategies import examples
from tests.thread_service import unmarked

Json = dict[str, Any]
Turns = list[tuple[list[bytes], list[bytes]]]

DIALECT = MessagesDialect(MESSAGES, preset=Preset({"top_k": 5}))
THREADED = ThreadedDialect(DIALECT)
ASKED = Settings(model="m", instructions=json_text("Be brief."), tools=[{"type": "function", "name": "look"}])
REPLY = ContinuableReply("msg_1", b"", 7, 100)
USER: Json = {"type": "message", "role": "user", "content": "u"}
SAID: Json = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "r"}]}


def write(
    request: Request, cache: RenderCache, held: HeldReply | None = None, without: frozenset[str] = frozenset()
) -> ThreadRequest:
    written = THREADED.render(request, cache, held, account=b"me", without=without)
    assert isinstance(written, ThreadRequest)
    return written


def body_of(written: ThreadRequest) -> Json:
    body: Json = json.loads(written.rendered.body)
    return body


def reply_of(turn: Turn, cache: RenderCache) -> tuple[bytes, ...]:
    """What the upstream has said in a turn, block by block, if it said what the turn says; nothing if no model can."""
    asked = render_history(History(turn.parent, turn.input), DIALECT, DIALECT.view(cache))[-1].state
    renderer = DIALECT.renderer(asked)
    for item in turn.output:
        renderer.add(item)
    answered = renderer.finish()
    own = answered.closed in (b"", b"" if asked.open.said else b"".join(asked.open.messages()))
    return answered.state.open.said[len(asked.open.said) :] if own else ()


def hold(written: ThreadRequest, turn: Turn, cache: RenderCache) -> HeldReply | None:
    """What is held of that reply."""
    digest = digest_of_blocks(reply_of(turn, cache))
    if digest is None:
        return None
    return written.held(ContinuableReply("msg_1", digest.digest, digest.size_bytes, 100), used_at=0.0)


@pytest.mark.untraced
@settings(max_examples=examples(500))
@given(conversation=turns, budget=st.sampled_from([0, 2000, 1 << 24]))
def test_the_thread_of_the_upstream_is_the_whole_request(conversation: Turns, budget: int) -> None:
    """Whatever the items are, and however small the room to keep them rendered."""
    cache, held, parent = RenderCache(budget), None, None
    kept: Json = {}
    for new, made in conversation:
        history = History(parent, tuple(new))
        whole = json.loads(render(DIALECT, history, ASKED).body)
        written = write(Request(history, ASKED), cache, held)
        body = body_of(written)
        kept = {**kept, "messages": kept["messages"] + body["messages"]} if written.goes_on else body
        if written.goes_on:
            assert not {"system", "tools"} & body.keys()
            assert {message["role"] for message in body["messages"]} == {"user"}
        for name in ("messages", "system", "tools"):
            assert unmarked(kept.get(name)) == unmarked(whole.get(name))
        assert json.dumps(body).count('"cache_control"') <= (1 if written.goes_on else 3)
        parent = grow(parent, new, made)
        held = hold(written, parent, cache)
        reply = {"role": "assistant", "content": [*map(json.loads, reply_of(parent, cache))]}
        kept = {**kept, "messages": [*kept["messages"], reply]}


@pytest.mark.untraced
@settings(max_examples=examples(500))
@given(conversation=turns)
def test_what_is_left_out_of_a_history_that_is_sent_whole_is_what_the_upstream_has(conversation: Turns) -> None:
    cache, seen = RenderCache(0), list[bytes]()
    held: HeldReply | None = None
    kept: list[Json] = []
    for new, made in conversation:
        request = Request(replay([*seen, *new]), ASKED)
        whole = json.loads(render(DIALECT, request.history, ASKED).body)["messages"]
        written = THREADED.render(request, cache, None, account=b"me", named=False)
        assert isinstance(written, ThreadRequest)
        going = written if held is None else THREADED.go_on(request, written, held, without=frozenset())
        sent = going if isinstance(going, ThreadRequest) else written
        kept = (kept if sent.goes_on else []) + body_of(sent)["messages"]
        assert unmarked(kept) == unmarked(whole)
        turn = grow(None, [*seen, *new], made)
        reply = reply_of(turn, cache)
        kept = [*kept, {"role": "assistant", "content": [*map(json.loads, reply)]}]
        digest, seen = digest_of_blocks(reply), [*seen, *new, *made]
        found = None if digest is None else ContinuableReply("msg_1", digest.digest, digest.size_bytes, 100)
        held = None if found is None else sent.held(found, used_at=0.0)


def test_a_conversation_that_is_sent_whole_is_known_again() -> None:
    """From the second request on; and goes on with the messages that are new."""
    cache = RenderCache(0)
    first = THREADED.render(Request(replay(encode_items([USER])), ASKED), cache, None, account=b"me", named=False)
    assert isinstance(first, ThreadRequest)
    assert (first.form, first.replayed) == (None, None)
    items = [USER, SAID, USER]
    second = THREADED.render(Request(replay(encode_items(items)), ASKED), cache, None, account=b"me", named=False)
    assert isinstance(second, ThreadRequest)
    digest = digest_of_blocks([b'{"type":"text","text":"r"}'])
    assert digest is not None
    held = second.held(ContinuableReply("msg_1", digest.digest, 7, 100), used_at=0.0)
    request = Request(replay(encode_items([*items, SAID, USER])), ASKED)
    third = write(request, cache)
    assert held is not None
    going = THREADED.go_on(request, third, held, without=frozenset())
    assert isinstance(going, ThreadRequest)
    assert body_of(going)["messages"] == [{"role": "user", "content": [{"type": "text", "text": "u"}]}]
    assert going.messages == third.messages != b""
    for changed, differs in (({"pinned": b"other"}, "settings"), ({"messages": b"other"}, "history")):
        odd = msgspec.structs.replace(held, **changed)
        assert THREADED.go_on(request, third, odd, without=frozenset()) == differs
    assert THREADED.go_on(request, second, held, without=frozenset()) == "history"
    assert THREADED.go_on(request, first, held, without=frozenset()) == "history"


def first_turn(cache: RenderCache, asked: Settings = ASKED) -> tuple[Turn, HeldReply]:
    given_items, made = encode_items([USER]), encode_items([SAID])
    written = write(Request(History(None, tuple(given_items)), asked), cache)
    assert body_of(written)["thread"] == {"type": "create"}
    turn = grow(None, given_items, made)
    held = hold(written, turn, cache)
    assert held is not None
    return turn, held


def test_each_turn_adds_to_what_the_whole_would_be() -> None:
    """As many bytes as the request and the reply have, and the new message."""
    cache = RenderCache(1 << 20)
    turn, held = first_turn(cache)
    written = write(Request(History(turn, tuple(encode_items([USER]))), ASKED), cache, held)
    new = b'{"role":"user","content":[{"type":"text","text":"u"}]}'
    assert (written.goes_on, written.whole_bytes, written.least_tokens) == (True, held.whole_bytes + len(new), 101)
    later = written.held(REPLY, used_at=9.0)
    assert later is not None
    assert (later.least_tokens, later.used_at, later.pinned) == (101, 9.0, held.pinned)


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        (Settings(model="m", instructions=json_text("Be brief.")), "settings"),
        (Settings(model="m", instructions=ASKED.instructions, tools=ASKED.tools, temperature=0.5), "settings"),
        (Settings(model="m", instructions=ASKED.instructions, tools=ASKED.tools, max_output_tokens=7), None),
        (Settings(model="m", instructions=ASKED.instructions, tools=ASKED.tools, safety_identifier="me"), None),
    ],
)
def test_which_settings_are_free_to_change(asked: Settings, differs: str | None) -> None:
    cache = RenderCache(1 << 20)
    turn, held = first_turn(cache)
    written = write(Request(History(turn, tuple(encode_items([USER]))), asked), cache, held)
    assert (written.goes_on, written.differs) == (differs is None, differs)
    other = THREADED.render(Request(History(turn, tuple(encode_items([USER]))), ASKED), cache, held, account=b"you")
    assert isinstance(other, ThreadRequest)
    assert other.differs == "settings"


def test_what_may_get_shorter_is_expected_to_be_less_long() -> None:
    """A prompt without thoughts has more tokens than the one that it goes on from. With thoughts, who knows."""
    thought = {"type": "reasoning", "summary": [], "encrypted_content": f'segue:1:{MESSAGES}:{{"signature":"c2ln"}}'}
    cache = RenderCache(1 << 20)
    for items, least in (((USER,), 101), ((USER, thought, SAID, USER), 25)):
        written = write(Request(History(None, tuple(encode_items(items))), ASKED), cache)
        held = written.held(REPLY, used_at=0.0)
        assert held is not None
        assert (held.least_tokens, held.shrinks) == (least, least == 25)
    turn, held = first_turn(cache)
    held = msgspec.structs.replace(held, shrinks=True)  # as after a reply with thoughts
    later = write(Request(History(turn, tuple(encode_items([USER]))), ASKED), cache, held)
    later_held = later.held(msgspec.structs.replace(REPLY, prompt_tokens=10_000), used_at=0.0)
    assert later_held is not None
    assert later_held.least_tokens == 101, "the last that is certain"


def test_a_reply_with_thoughts_makes_its_prompt_one_that_may_shrink() -> None:
    written = write(Request(History(None, tuple(encode_items([USER]))), ASKED), RenderCache(0))
    held = written.held(msgspec.structs.replace(REPLY, thoughts=True), used_at=0.0)
    assert held is not None
    assert (held.least_tokens, held.shrinks) == (101, True)


def test_without_threads_it_is_the_request_of_always() -> None:
    cache, request = RenderCache(1 << 20), Request(History(None, tuple(encode_items([USER]))), ASKED)
    written = write(request, cache, without=frozenset({THREAD}))
    assert written.rendered == DIALECT.render(request, cache)
    assert (written.form, written.held(REPLY, used_at=0.0)) == (None, None)


@pytest.mark.parametrize("without", ["sealed_reasoning", "cache_control"])
def test_what_is_left_out_of_a_request_stays_left_out(without: str) -> None:
    """A history without its thoughts is not the one that later turns have: it is no thread."""
    cache = RenderCache(1 << 20)
    turn, held = first_turn(cache)
    request = Request(History(turn, tuple(encode_items([USER]))), ASKED)
    written = write(request, cache, held, frozenset({without}))
    marked = b"cache_control" in written.rendered.body
    assert (written.goes_on, written.form is None, marked) == (
        without == "cache_control",
        without == "sealed_reasoning",
        without != "cache_control",
    )


def test_a_history_that_cannot_be_said_is_refused() -> None:
    cache = RenderCache(1 << 20)
    turn, held = first_turn(cache)
    odd = Request(History(turn, tuple(encode_items([USER, {"type": "compaction", "encrypted_content": "x"}]))), ASKED)
    assert isinstance(THREADED.render(odd, cache, held, account=b"me"), Problem)
    assert isinstance(THREADED.render(odd, cache, None, account=b"me"), Problem)
    assert isinstance(THREADED.render(odd, cache, None, account=b"me", without=frozenset({THREAD})), Problem)


# ------------------------------------------------------------------------------------------- in the client's own words

USERS = '{"role": "user",  "content": "u"}'
REPLIED = b'{"role":"assistant","content":[{"type":"text","text":"r"}]}'


def native(messages: str = USERS, **fields: Any) -> NativeBody:  # noqa: ANN401 - any field
    given = {"model": "mine", "max_tokens": 9, "thread": {"type": "create"}, "system": "S", **fields}
    text = json.dumps(given)[:-1] + f', "messages": [{messages}]}}'
    read = read_object(text.encode())
    assert isinstance(read, ObjectText)
    return NativeBody(dialect="messages", body=read, messages=messages.encode())


def asked_natively(parent: Turn | None, body: NativeBody) -> Request:
    return Request(History(parent, tuple(encode_items([USER]))), ASKED, native=body)


def native_turn(parent: Turn | None, words: bytes | None = USERS.encode() + b"," + REPLIED) -> Turn:
    turn = grow(parent, encode_items([USER]), encode_items([SAID]))
    turn.native = None if words is None else NativeTurn("messages", words)
    return turn


def begun(cache: RenderCache, body: NativeBody | None = None) -> tuple[Turn, HeldReply]:
    written = write(asked_natively(None, body or native()), cache)
    assert written.form == "native"
    held = written.held(REPLY, used_at=0.0)
    assert held is not None
    return native_turn(None), held


def test_new_messages_pass_through_as_they_are() -> None:
    """And the fields of the request, in whatever order they stand, but for what the thread keeps."""
    cache = RenderCache(1 << 20)
    turn, held = begun(cache)
    again = native(USERS, system=None, metadata={"user_id": "x"}, max_tokens=10)
    again = NativeBody(dialect="messages", body=again.body, messages=again.messages, fields={"system": b'"S"'})
    written = write(asked_natively(turn, again), cache, held)
    assert written.goes_on
    assert f'"messages": [{USERS}]'.encode() in written.rendered.body
    assert body_of(written) == {
        "model": "model-1",
        "max_tokens": 10,
        "metadata": {"user_id": "x"},
        "stream": True,
        "thread": {"type": "continue", "previous_message_id": "msg_1"},
        "messages": [json.loads(USERS)],
        "top_k": 5,
    }
    assert THREAD in written.rendered.own_fields


@pytest.mark.parametrize(
    ("fields", "differs"),
    [({"system": "other"}, "settings"), ({"thinking": {"type": "adaptive"}}, "settings"), ({"tools": None}, None)],
)
def test_other_fields_are_what_the_thread_is_bound_to(fields: Json, differs: str | None) -> None:
    cache = RenderCache(1 << 20)
    turn, held = begun(cache)
    written = write(asked_natively(turn, native(**fields)), cache, held)
    assert written.differs == differs
    if differs:
        assert body_of(written)["messages"] == [json.loads(USERS), json.loads(REPLIED), json.loads(USERS)]
        assert body_of(written)["thread"] == {"type": "create"}


def test_after_another_door_the_items_are_sent_and_the_thread_goes_on_with_items() -> None:
    """Since that is what a whole request would hold."""
    cache = RenderCache(1 << 20)
    turn, held = first_turn(cache)
    written = write(asked_natively(turn, native()), cache, held)
    assert (written.form, written.differs) == ("rendered", "settings"), "a client's own fields are others"
    second = native_turn(turn)
    held_now = hold(written, second, cache)
    written = write(asked_natively(second, native()), cache, held_now)
    assert written.goes_on
    assert body_of(written)["messages"] == [{"role": "user", "content": [{"type": "text", "text": "u"}]}]
    assert write(asked_natively(native_turn(turn, None), native()), cache, held_now).goes_on
    assert write(Request(History(native_turn(None), tuple(encode_items([USER]))), ASKED), cache, held).goes_on


def test_a_turn_in_other_words_is_not_the_one_that_was_sent() -> None:
    cache = RenderCache(1 << 20)
    _, held = begun(cache)
    written = write(asked_natively(native_turn(None, None), native()), cache, held)
    assert (written.form, written.differs) == ("rendered", "history")
    gone = grow(None, encode_items([SAID]), encode_items([SAID]))
    assert write(asked_natively(gone, native()), cache, held).differs == "history"
    assert (
        write(Request(History(native_turn(None), tuple(encode_items([USER]))), ASKED), cache, held).differs == "history"
    )


def test_what_takes_things_out_of_a_prompt_may_make_it_short() -> None:
    cache = RenderCache(1 << 20)
    _, held = begun(cache, native(context_management={"edits": []}))
    assert (held.least_tokens, held.shrinks) == (1, True)
    assert begun(cache)[1].least_tokens == 101
    thoughtful = native('{"role":"assistant","content":[{"type":"thinking"}]}')
    assert begun(cache, thoughtful)[1].least_tokens == 25


def test_without_threads_the_body_passes_through() -> None:
    cache = RenderCache(1 << 20)
    request = asked_natively(None, native())
    written = write(request, cache, without=frozenset({THREAD}))
    assert request.native is not None
    assert written.rendered == DIALECT.pass_on(request, request.native, cache)
    odd = grow(None, encode_items([{"type": "compaction", "encrypted_content": "x"}]), encode_items([SAID]))
    assert isinstance(THREADED.render(asked_natively(odd, native()), cache, None, account=b""), Problem)
