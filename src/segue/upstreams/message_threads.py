"""The message threads at one upstream: which replies it still has, and what a turn does when it has not. Pure.

A turn that goes on from a reply sends only what is new. If the upstream does not take that, the turn is sent again at
once, whole, and only once: before any of its output, and as a new thread. What is refused for good is sent without
threads, and remembered for its model (`learned_refusals`). A reply that is being continued cannot be continued a second
time. It can be again if the turn comes to nothing, as the upstream drops what it has not finished.

A server that ignores the field `thread` would answer without the history. Anthropic's own does not. Of any other, the
first continuation names a reply that does not exist: only a server that says so is trusted with real ones. Not here:
when a request may go on from a reply, and its body (`segue.dialects.messages.thread_request`), and sending it (`http`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from segue.byte_lru import ByteLru
from segue.dialects.interface import Rendered, ReplyDecoder
from segue.dialects.messages.thread_reply import ThreadReplyDecoder
from segue.dialects.messages.thread_request import (
    BETA,
    BETA_HEADER,
    THREAD,
    HeldReply,
    ReplayedHistory,
    ThreadedDialect,
    ThreadRequest,
)
from segue.dialects.render_cache import RenderCache
from segue.protocol.problems import Code, Problem
from segue.upstreams.continuation import HIT, ContinuationCounts, ContinuationTable, ReplayReason
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.learned_refusals import MAX_MODELS, MAX_NAME_CHARS
from segue.upstreams.retries import FailedAttempt

#: A thread expires 5 minutes after its last request; what is sent later than this is sent whole.
LIFETIME_S = 280.0

#: Why the upstream does not go on, by its error codes. To Claude Code and to Anthropic's SDKs, each means: begin anew.
REPLAYED: Mapping[str, ReplayReason] = {
    "thread_not_found": "not_found",
    "thread_already_continued": "continued",
    "thread_continue_in_flight": "in_flight",
    "thread_fingerprint_mismatch": "mismatch",
}
_UNSUPPORTED = "thread_unsupported_request"
#: Refusals of a continuation that say nothing of threads: the whole request may be taken all the same.
_REFUSALS: Mapping[Code, ReplayReason] = {"upstream_rejected": "refused", "model_not_found": "not_found"}
#: Failures after which the upstream has the reply as it was. After others, what is tried again is sent whole.
_UNTOUCHED: frozenset[Code] = frozenset({"rate_limit_exceeded", "server_overloaded", "upstream_unreachable"})
#: The name of no reply, to see whether a server looks.
_NOBODY = "msg_00000000000000000000000000"

#: More tokens than any prompt has.
_NEVER = 1 << 62

#: What a turn does at once after a failure: it is sent otherwise, or without threads.
Reaction = Literal["otherwise", "stateless"]


class MessageThreads:
    """The threads at the upstream of this dialect; `trusted`: its server is known to keep them."""

    def __init__(self, dialect: ThreadedDialect, *, trusted: bool) -> None:
        self.dialect = dialect
        self.counts = ContinuationCounts()
        self._named: ContinuationTable[HeldReply] = ContinuationTable(LIFETIME_S)
        self._replayed: ContinuationTable[HeldReply] = ContinuationTable(LIFETIME_S)  # by the history up to them
        self.erasures = 0
        """How often a tenant was forgotten: a turn that ran meanwhile keeps nothing, since it may be that tenant's."""
        self._trusted = trusted
        self._proven: ByteLru[str, str] = ByteLru(MAX_MODELS * MAX_NAME_CHARS, max_entries=MAX_MODELS)

    def begin(self, request: UpstreamRequest, headers: Mapping[str, str], *, now: float) -> ThreadedTurn | None:
        """Return a turn that may go on from a reply, or whose reply may be gone on from; None for any other."""
        parent = request.history.parent
        taken = None if parent is None else self._named.take(request.tenant, parent.id, now=now)
        if isinstance(taken, HeldReply):
            self._replayed.forget(request.tenant, [_key(taken.messages, taken.reply.content)])
        elif not request.held and (parent is not None or request.native is not None):
            return None
        return ThreadedTurn(self, request, _digest_lines(headers), taken, now=now)

    def find(self, tenant: str, replayed: ReplayedHistory, *, now: float) -> HeldReply | ReplayReason:
        """Return the reply before what is new in a history that is sent whole; or say why there is none."""
        taken = self._replayed.take(tenant, _key(replayed.before, replayed.said), now=now)
        if isinstance(taken, HeldReply):
            self._named.forget(tenant, [taken.response_id])
        return taken

    def forget_tenant(self, tenant: str) -> None:
        """Drop what is held of a tenant."""
        self.erasures += 1
        self._named.forget_tenant(tenant)
        self._replayed.forget_tenant(tenant)

    def keep(self, tenant: str, held: HeldReply) -> None:
        """Hold a reply."""
        if held.response_id:
            self._named.keep(tenant, held.response_id, held, used_at=held.used_at)
        if held.messages:
            self._replayed.keep(tenant, _key(held.messages, held.reply.content), held, used_at=held.used_at)

    def is_trusted(self, model: str) -> bool:
        """Tell whether the server is known not to ignore the field `thread`. For any thread: it changes nothing."""
        return self._trusted or self._proven.peek(model) is not None

    def trust(self, model: str) -> None:
        """Note that the server has looked for a reply, and told that it is not there."""
        self._proven.put(model, model, size_bytes=len(model))


class ThreadedTurn:
    """One turn at an upstream with threads, from its first attempt to its end. `close` it in any case.

    It goes on from the reply that was `taken`; or it is sent whole, for the reason given instead if there is something
    to go on from. `account` stands for all that is sent beside the body.
    """

    def __init__(
        self,
        threads: MessageThreads,
        request: UpstreamRequest,
        account: bytes,
        taken: HeldReply | ReplayReason | None,
        *,
        now: float,
    ) -> None:
        self._threads = threads
        self._request = request
        self._account = account
        self._erasures = threads.erasures
        self._begun_at = now
        self._held = taken if isinstance(taken, HeldReply) else None  # until it is gone, or has a successor
        self._going = self._held is not None
        self._continues = taken is not None
        self._reason: ReplayReason | None = taken if isinstance(taken, str) else None
        self._whole: tuple[ThreadRequest, frozenset[str]] | None = None  # as it would be sent whole, without what
        self._sent: ThreadRequest | None = None
        self._decoder: ThreadReplyDecoder | None = None
        self._on_trial = False  # the server is asked for a reply that does not exist
        self._closed = False
        self.outdated = False  # the next attempt needs another body

    @property
    def forgotten(self) -> bool:
        """Whether the upstream answers without the history."""
        return self._decoder is not None and self._decoder.forgotten

    def render(self, cache: RenderCache, without: frozenset[str]) -> Rendered | Problem:
        """Write the body of the next attempt."""
        held = self._held if self._going else None
        self._on_trial = held is not None and not self._threads.is_trusted(self._request.model)
        if held is not None and self._on_trial:
            held = msgspec.structs.replace(held, reply=msgspec.structs.replace(held.reply, name=_NOBODY))
        written = self._write(cache, held, without)
        if isinstance(written, Problem):
            return written
        if self._going and not written.goes_on:
            self._send_whole(written.differs or "unsupported")
        elif THREAD in without and self._reason == "unknown":
            self._reason = "unsupported"
        self._sent, self.outdated = written, False
        return written.rendered

    def _write(self, cache: RenderCache, held: HeldReply | None, without: frozenset[str]) -> ThreadRequest | Problem:
        request, dialect = self._request, self._threads.dialect
        if self._whole is None or self._whole[1] != without:
            return dialect.render(request, cache, held, account=self._account, without=without, named=request.held)
        whole, _ = self._whole
        going = None if held is None else dialect.go_on(request, whole, held, without=without)
        if isinstance(going, ThreadRequest):
            return going
        return msgspec.structs.replace(whole, differs=going)

    def settle(self, rendered: Rendered, without: frozenset[str]) -> Rendered:
        """Return what is sent first, now that it was rendered: less, if its client has sent what the upstream has."""
        sent, request = self._sent, self._request
        if sent is None or sent.replayed is None or self._continues:
            return rendered
        self._continues, self._whole = True, (sent, without)
        found = self._threads.find(request.tenant, sent.replayed, now=self._begun_at)
        if not isinstance(found, HeldReply):
            self._reason = found
            return rendered
        self._held, self._going = found, True
        less = self.render(RenderCache(0), without)
        return rendered if isinstance(less, Problem) else less

    def open(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Begin an attempt; return its header lines, with the beta if it has the field for threads."""
        self._decoder = None
        if self._sent is None or self._sent.form is None:
            return headers
        name = next((name for name in headers if name.lower() == BETA_HEADER), BETA_HEADER)
        betas = [word for one in headers.get(name, "").split(",") if (word := one.strip())]
        return {**headers, name: ",".join([*betas, BETA])}

    def decoder(self, decoder: ReplyDecoder) -> ReplyDecoder:
        """Return the decoder of a reply, which reads too what a continuation needs."""
        sent = self._sent
        if sent is None or sent.form is None:
            return decoder
        least = sent.least_tokens if sent.goes_on else None
        self._decoder = ThreadReplyDecoder(decoder, _NEVER if self._on_trial else least)
        return self._decoder

    def react(self, failed: FailedAttempt) -> Reaction | None:
        """Say what to do at once about an attempt that failed before its output; None for what is always done."""
        sent, problem = self._sent, failed.problem
        if sent is None or sent.form is None:
            return None
        code = failed.detail or ("" if self._decoder is None else self._decoder.error_code)
        if self.forgotten:
            return self._give_up("forgotten")
        if code == _UNSUPPORTED or THREAD in failed.refused_fields or (code in REPLAYED and not sent.goes_on):
            return self._give_up("not_kept")
        reason = REPLAYED.get(code) or _REFUSALS.get(problem.code)
        if sent.goes_on and reason is None and problem.code not in _UNTOUCHED:
            self._send_whole("refused")
        return None if reason is None or not sent.goes_on else self._react_to_refusal(reason, code)

    def _react_to_refusal(self, reason: ReplayReason, code: str) -> Reaction:
        """Send the turn whole, unless it was on trial: then the server has proven itself, or has not."""
        if not self._on_trial:
            self._held = None
            self._send_whole(reason)
        elif code == "thread_not_found":
            self._threads.trust(self._request.model)
        else:
            return self._give_up("not_kept")
        return "otherwise"

    def note_answer(self) -> None:
        """Count the turn, now that its answer begins."""
        sent = self._sent
        if sent is None:
            return
        if sent.goes_on:
            self._threads.counts.note_hit(sent.whole_bytes - sum(map(len, sent.rendered.pieces)))
            self._request.notes.continuation = HIT
        elif self._reason is not None:
            self._threads.counts.replays[self._reason] += 1
            self._request.notes.continuation = self._reason
        self._sent, self._whole = msgspec.structs.replace(sent, rendered=Rendered(())), None  # not needed again

    def close(self, *, now: float) -> None:
        """Hold the reply, or if there is none that can be continued, the one before it again."""
        if self._closed:
            return
        self._closed = True
        if self._erasures != self._threads.erasures:
            return
        request, sent, decoder = self._request, self._sent, self._decoder
        reply = None if decoder is None else decoder.kept_reply()
        if sent is not None and reply is not None:
            held = sent.held(reply, used_at=now, response_id=request.response_id if request.held else "")
            if held is not None:
                self._threads.keep(request.tenant, held)
            if sent.goes_on:
                return
        if self._held is not None:
            self._threads.keep(request.tenant, self._held)

    def _send_whole(self, reason: ReplayReason) -> None:
        self._going, self.outdated = False, True
        self._reason = reason if self._continues else None  # else there was nothing to go on from

    def _give_up(self, reason: ReplayReason) -> Reaction:
        self._send_whole(reason)
        return "stateless"


def _key(messages: bytes, said: bytes) -> str:
    """Return what stands for a reply in a history that is sent whole."""
    return (messages + said).hex()


def _digest_lines(headers: Mapping[str, str]) -> bytes:
    """Return a digest of all header lines, the key among them: a thread belongs to an account."""
    lines = sorted(f"{name.lower()}:{value}" for name, value in headers.items())
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).digest()
