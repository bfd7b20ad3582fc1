"""The Anthropic Messages dialect: requests in a message thread of the upstream, which sends only what is new.

A thread of the upstream keeps messages, `system` and `tools`; everything else is the request's own. So a request goes
on from a reply only if it is sure that the upstream would read the very same prompt as if it got all of it: the items
before are those that it was sent, the reply that the next request would repeat is the one that it wrote, and no setting
has changed but those that are free to change. In any doubt a thread begins anew, with everything
(https://platform.claude.com/docs/en/build-with-claude/message-threads). Not here: which replies the upstream still has
(`segue.upstreams.message_threads`), and the threads that this gateway keeps for its own clients (`threads`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from segue.dialects.incremental import RenderedTurn, RenderState, render_turn
from segue.dialects.interface import NOTHING, Rendered, TurnRequest
from segue.dialects.messages.request import (
    MESSAGE_END,
    MessagesDialect,
    OpenMessageBlocks,
    warnings_of,
    write_body,
    write_head,
    write_system,
)
from segue.dialects.messages.settings import finish_settings
from segue.dialects.messages.thread_reply import ContinuableReply, digest_of_blocks, digest_of_message
from segue.dialects.prefix_digest import digest_of, digests_of
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache
from segue.dialects.rules import RequestBuilder
from segue.history.chains import Turn, newest_first
from segue.protocol.codec import encode
from segue.protocol.problems import Problem
from segue.protocol.requests import NativeBody

#: The field, and the name under which it is left out.
THREAD = "thread"
#: What is asked for with it. https://platform.claude.com/docs/en/build-with-claude/message-threads
BETA_HEADER, BETA = "anthropic-beta", "message-threads-2026-08-12"

#: In whose words the conversation was sent: its client's, or as the items are rendered.
Form = Literal["native", "rendered"]
#: Why a request does not go on from a reply that the upstream has.
Difference = Literal["settings", "history"]

_CREATE = {"type": "create"}
#: The fields that may change from turn to turn. Which others a thread is bound to is not documented: all count.
_FREE = frozenset({"messages", "max_tokens", "stream", "metadata", "cache_control", THREAD})
#: What a thread keeps.
_KEPT = frozenset({"system", "tools"})
#: What takes things out of the prompt that were in it before.
_EDITS = "context_management"
#: A prompt that is read without what is left out of it later has still more than one in so many of its tokens.
_SHRINKS_TO = 4
_THOUGHT = b'thinking"'


class HeldReply(msgspec.Struct, frozen=True):
    """A reply that the upstream can go on from, and what must be the same then.

    `prefix` is the digest of the items that it answered. `pinned` is that of the settings. `least_tokens` is how many
    tokens the next prompt has at least, and `whole_bytes` how long all of it is as a request. A prompt that `shrinks`
    may be read without some of it in a later turn: there are thoughts in it, or the client has it edited. The reply is
    found again by `response_id`, or by a history that is sent whole, if `messages` is the digest of all messages that
    it answered; either may be empty.
    """

    reply: ContinuableReply
    form: Form
    pinned: bytes
    prefix: bytes
    least_tokens: int
    whole_bytes: int
    shrinks: bool
    used_at: float
    response_id: str = ""
    messages: bytes = b""


class ReplayedHistory(msgspec.Struct, frozen=True):
    """What a whole request says of its last reply: digests of the messages `before` it and of what it `said`.

    `new` is the message of the user's that follows it.
    """

    before: bytes
    said: bytes
    new: RenderState[OpenMessageBlocks]


class ThreadRequest(msgspec.Struct, frozen=True):
    """A request body. Without a `form`, it has no field for threads, and its reply cannot be continued.

    If it `goes_on`, the upstream gets only what is new; `differs` says why it does not, if it was to. `least_tokens` is
    what its prompt has at least, if that is known yet; `shrinks` and `messages` are as in `HeldReply`. A request that
    continues no turn, and has words of the model in its history, is `replayed`.
    """

    rendered: Rendered
    form: Form | None = None
    pinned: bytes = b""
    prefix: bytes = b""
    whole_bytes: int = 0
    goes_on: bool = False
    differs: Difference | None = None
    least_tokens: int | None = None
    shrinks: bool = True
    messages: bytes = b""
    replayed: ReplayedHistory | None = None

    def held(self, reply: ContinuableReply, *, used_at: float, response_id: str = "") -> HeldReply | None:
        """Return what is to be remembered of the reply to this request."""
        if self.form is None:
            return None
        least = reply.prompt_tokens + 1  # the reply, and what is new
        if self.shrinks:
            least = reply.prompt_tokens // _SHRINKS_TO if self.least_tokens is None else self.least_tokens
        whole, shrinks = self.whole_bytes + reply.size_bytes, self.shrinks or reply.thoughts
        return HeldReply(
            *(reply, self.form, self.pinned, self.prefix, least, whole, shrinks, used_at, response_id, self.messages)
        )


class ThreadedDialect:
    """Writes the requests of the turns at one upstream whose server keeps threads."""

    def __init__(self, dialect: MessagesDialect) -> None:
        self._dialect = dialect

    def render(
        self,
        request: TurnRequest,
        cache: RenderCache,
        held: HeldReply | None,
        *,
        account: bytes,
        without: frozenset[str] = NOTHING,
        named: bool = True,
    ) -> ThreadRequest | Problem:
        """Write a request that goes on from the `held` reply of the turn before it, or begins a thread.

        `account` stands for all that is sent beside the body. A thread is bound to it, too. If the reply will not be
        `named` by its id, only a conversation that has begun is worth a thread: its client sends it whole, again.
        """
        if THREAD in without:
            return self._stateless(request, cache, without)
        if request.native is not None:
            return self._pass_on(request, request.native, cache, held, account=account, without=without)
        going = None if held is None else self._go_on(request, cache, held, account=account, without=without)
        if isinstance(going, ThreadRequest | Problem):
            return going
        return self._begin(request, cache, account=account, without=without, differs=going, named=named)

    def go_on(
        self, request: TurnRequest, whole: ThreadRequest, held: HeldReply, *, without: frozenset[str]
    ) -> ThreadRequest | Difference:
        """Write a request that was `replayed` so that it goes on from a reply; or say what does not fit."""
        replayed = whole.replayed
        if replayed is None or (held.messages, held.reply.content) != (replayed.before, replayed.said):
            return "history"
        if held.form != "rendered" or held.pinned != whole.pinned:
            return "settings"
        builder = self._dialect.settings_of(request, without)
        finish_settings(builder, replayed.new.open.present_loop)
        builder.is_wanted(THREAD)
        going = _continue(builder, replayed.new, held, prefix=whole.prefix)
        return msgspec.structs.replace(going, messages=whole.messages)

    def _stateless(self, request: TurnRequest, cache: RenderCache, without: frozenset[str]) -> ThreadRequest | Problem:
        without -= {THREAD}
        if request.native is not None:
            rendered = self._dialect.pass_on(request, request.native, cache, without=without)
        else:
            rendered = self._dialect.render(request, cache, without=without)
        return rendered if isinstance(rendered, Problem) else ThreadRequest(rendered)

    # --- rendered from items -----------------------------------------------------------------------------------------

    def _begin(
        self,
        request: TurnRequest,
        cache: RenderCache,
        *,
        account: bytes,
        without: frozenset[str],
        differs: Difference | None,
        named: bool,
    ) -> ThreadRequest | Problem:
        builder = self._dialect.settings_of(request, without)
        parts, plain = self._dialect.render_parts(request, builder, cache)
        pinned = _digest_fields(builder.fields, account)
        whole = parts[0] if request.history.parent is None else None
        replayed = None if whole is None else _replayed(whole)
        wanted = plain and (named or replayed is not None)  # what is not plain is sent so only once
        thread = _CREATE if wanted and builder.is_wanted(THREAD) else None
        rendered = write_body(builder, parts, thread)
        if isinstance(rendered, Problem) or thread is None:
            return rendered if isinstance(rendered, Problem) else ThreadRequest(rendered, differs=differs)
        shrinks = any(_THOUGHT in piece for piece in rendered.pieces[1:])  # the head says whether to think
        return ThreadRequest(
            rendered,
            "rendered",
            pinned,
            digest_of(request.history, cache),
            _size(rendered),
            differs=differs,
            shrinks=shrinks,
            messages=b"" if whole is None else _digest_messages(whole),
            replayed=replayed,
        )

    def _go_on(
        self, request: TurnRequest, cache: RenderCache, held: HeldReply, *, account: bytes, without: frozenset[str]
    ) -> ThreadRequest | Problem | Difference:
        parent = request.history.parent
        if parent is None or held.form != "rendered" or digests_of(parent, cache).asked != held.prefix:
            return "history"
        new = self._new_message(request, parent, cache, held)
        if new is None:
            return "history"
        builder = self._dialect.settings_of(request, without)
        if not builder.is_wanted(SEALED_REASONING) or finish_settings(builder, new.open.present_loop):
            return "history"  # it would be sent without its thoughts
        problem = builder.problem or new.problem
        if problem is not None:
            return problem
        write_system(builder, new.preamble)
        if not builder.is_wanted(THREAD) or _digest_fields(builder.fields, account) != held.pinned:
            return "settings"
        return _continue(builder, new, held, prefix=digest_of(request.history, cache))

    def _new_message(
        self, request: TurnRequest, parent: Turn, cache: RenderCache, held: HeldReply
    ) -> RenderState[OpenMessageBlocks] | None:
        """Render the new input as the one message of the user's that follows a reply; None if it is anything else."""
        state = render_turn(parent, self._dialect, self._dialect.view(cache)).state
        said = digest_of_blocks(state.open.said)
        if said is None or said.digest != held.reply.content:
            return None
        after = msgspec.structs.replace(state, open=msgspec.structs.replace(state.open, said=(), thoughts=()))
        renderer = self._dialect.renderer(after)
        for item in request.history.input:
            renderer.add(item)
        new: RenderedTurn[OpenMessageBlocks] = renderer.finish()
        is_one = not (new.closed or new.state.open.said) and bool(new.state.open.results or new.state.open.others)
        return new.state if is_one else None

    # --- in the client's words ---------------------------------------------------------------------------------------

    def _pass_on(
        self,
        request: TurnRequest,
        native: NativeBody,
        cache: RenderCache,
        held: HeldReply | None,
        *,
        account: bytes,
        without: frozenset[str],
    ) -> ThreadRequest | Problem:
        """Write a request of a thread that a client has with the gateway itself."""
        pinned = _digest_native(native, without, request.model.encode() + b"\0" + account)
        differs: Difference | None = None
        if held is not None:
            new = self._new_native(request, native, cache, held)
            differs = "history" if new is None else "settings" if pinned != held.pinned else None
            if new is not None and differs is None:
                fields = {"messages": (b"[", new, b"]"), THREAD: (encode(_from(held)),)}
                rendered = self._dialect.write_native(request, native, fields, without=without | _KEPT)
                return ThreadRequest(
                    _own(rendered),
                    held.form,
                    pinned,
                    digest_of(request.history, cache),
                    held.whole_bytes + len(new),
                    goes_on=True,
                    least_tokens=held.least_tokens,
                    shrinks=held.shrinks or _THOUGHT in new,
                )
        whole = self._dialect.native_history(request, native, cache)
        if isinstance(whole, Problem):
            return whole
        fields = {} if whole.messages is None else {"messages": whole.messages}
        rendered = self._dialect.write_native(request, native, fields | {THREAD: (encode(_CREATE),)}, without=without)
        return ThreadRequest(
            _own(msgspec.structs.replace(rendered, warnings=whole.warnings)),
            "native" if whole.in_its_words else "rendered",
            pinned,
            digest_of(request.history, cache),
            _size(rendered),
            differs=differs,
            least_tokens=1 if _EDITS in native.body.spans else None,
            shrinks=_EDITS in native.body.spans
            or any(_THOUGHT in piece for piece in whole.messages or (native.messages,)),
        )

    def _new_native(
        self, request: TurnRequest, native: NativeBody, cache: RenderCache, held: HeldReply
    ) -> bytes | None:
        """Return the new messages in the form that all before them were sent in; None if those were others."""
        parent = request.history.parent
        if parent is None or digests_of(parent, cache).asked != held.prefix:
            return None
        if held.form == "native":
            return native.messages if next(newest_first(parent)).native is not None else None
        new = self._new_message(request, parent, cache, held)
        return None if new is None or new.problem is not None else b"".join(new.open.messages()).removesuffix(b",")


def _continue(
    builder: RequestBuilder, new: RenderState[OpenMessageBlocks], held: HeldReply, *, prefix: bytes
) -> ThreadRequest:
    """Write a request with one new message."""
    for name in _KEPT:
        builder.fields.pop(name, None)
    head = write_head(builder, _from(held), marked=builder.is_wanted("cache_control"))
    message = b"".join(new.open.messages()).removesuffix(b",")
    rendered = Rendered((head, message, b"]}"), warnings_of(builder, new), frozenset(builder.own_fields))
    return ThreadRequest(
        rendered,
        "rendered",
        held.pinned,
        prefix,
        held.whole_bytes + len(message),
        goes_on=True,
        least_tokens=held.least_tokens,
        shrinks=held.shrinks,
    )


def _replayed(whole: RenderedTurn[OpenMessageBlocks]) -> ReplayedHistory | None:
    """Read what a history that was rendered as one says of its last reply; None if it does not end in a reply and more.

    The user's last closed message is the one before that reply. A reply that is still open is not followed by anything.
    """
    if whole.mark < 0:
        return None
    end = whole.mark + len(MESSAGE_END)
    said = digest_of_message(whole.closed[end:].removesuffix(b","))
    before = hashlib.sha256(memoryview(whole.closed)[:end]).digest()
    return None if said is None else ReplayedHistory(before, said.digest, whole.state)


def _digest_messages(whole: RenderedTurn[OpenMessageBlocks]) -> bytes:
    """Return a digest of all messages, as they stand before the reply when the history is sent again."""
    digest = hashlib.sha256(whole.closed)
    for piece in whole.state.open.messages():
        digest.update(piece)
    return digest.digest()


def _from(held: HeldReply) -> dict[str, str]:
    return {"type": "continue", "previous_message_id": held.reply.name}


def _own(rendered: Rendered) -> Rendered:
    return msgspec.structs.replace(rendered, own_fields=rendered.own_fields | {THREAD})


def _size(rendered: Rendered) -> int:
    return sum(map(len, rendered.pieces))


def _digest_fields(fields: Mapping[str, Any], account: bytes) -> bytes:
    """Return a digest of the fields that a thread is bound to. They have no marks yet."""
    digest = hashlib.sha256(account)
    digest.update(encode({name: value for name, value in fields.items() if name not in _FREE}))
    return digest.digest()


def _digest_native(native: NativeBody, without: frozenset[str], account: bytes) -> bytes:
    """Return a digest of the fields of a client's body that a thread is bound to, in whatever order they stand."""
    values = {name: native.body.value(name) or b"" for name in native.body.spans} | dict(native.fields)
    digest = hashlib.sha256(account)
    for name in sorted(values.keys() - _FREE - without):
        if values[name] != b"null":
            digest.update(b"\0%b\0%b" % (name.encode("utf-8", "surrogatepass"), values[name]))
    return digest.digest()
