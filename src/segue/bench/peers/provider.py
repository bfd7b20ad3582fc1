"""The scripted provider that peers ask: it answers each turn at once, and knows which turns a request shows it.

Each turn of a user has a mark, and so has each answer. What a request shows is counted after the turn, so that
counting costs no turn any time. The provider speaks Responses and Chat Completions. Not here: the server itself
(`segue.testing.provider`).
"""

from __future__ import annotations

import re

import msgspec

from segue.protocol.codec import UNREADABLE
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, answer_with
from segue.testing.replies import ProviderReply, ReplyContext, make_reply

_MARK = b"mark-u-"
_MARKS = re.compile(rb"mark-([ua])-([0-9a-f]{8})-([0-9]{5})")
_MARK_CHARS = len("mark-u-00000000-00000")
_ANSWER = "Here is the answer to that, as short as an answer of a model is that calls a tool next. "
_NOT_FOUND = Answer(status=404, reason=b"Not Found", pieces=(b"{}",), framing="length")


class SeenHistory(msgspec.Struct, frozen=True):
    """Of one chain, how many turns of the user and how many answers a request showed the provider."""

    turns: int
    answers: int
    body_bytes: int

    def whole(self, depth: int) -> bool:
        """Whether this is all that a turn at this depth has before it, and the turn itself."""
        return self.turns == depth and self.answers == depth - 1


class _Asked(msgspec.Struct):
    model: str = ""
    stream: bool = False


def user_mark(chain: str, turn: int) -> str:
    """Return the mark of a turn; a chain is named by eight hexadecimal digits."""
    return f"mark-u-{chain}-{turn:05}"


class PeerProvider:
    """The script of the provider, and the last request for an answer that came."""

    def __init__(self) -> None:
        self._last: bytes = b""
        self.asked = 0

    def __call__(self, request: ReceivedRequest) -> Answer:
        """Answer one request."""
        path = request.target.partition(b"?")[0]
        if request.method == b"GET":
            return _get(path)
        reply = self._reply(path, request.body or b"")
        return _NOT_FOUND if reply is None else reply

    def take(self, chain: str) -> SeenHistory | None:
        """Return what the last request showed of a chain; None if there was none since the last call."""
        body, self._last = self._last, b""
        if not body:
            return None
        seen: dict[bytes, set[bytes]] = {b"u": set(), b"a": set()}
        for kind, named, number in _MARKS.findall(body):
            if named == chain.encode():
                seen[kind].add(number)
        return SeenHistory(len(seen[b"u"]), len(seen[b"a"]), len(body))

    def _reply(self, path: bytes, body: bytes) -> Answer | None:
        try:
            asked = msgspec.json.decode(body, type=_Asked)
        except UNREADABLE:
            return None
        self._last, self.asked = body, self.asked + 1
        text = _answer_text(body)
        context = ReplyContext(
            request={"model": asked.model, "stream_options": {"include_usage": True}},
            identity=f"resp_{self.asked:08}" if path.endswith(b"/responses") else f"chatcmpl-{self.asked:08}",
            created_at=1_790_000_000 + self.asked,
            seed=str(self.asked % 7),
        )
        reply = _written(path, text, context)
        return None if reply is None else answer_with(reply, streamed=asked.stream)


def forget_requests(provider: ScriptedProvider) -> None:
    """Drop what the provider has kept of requests: at depth 500 each has megabytes."""
    provider.requests.clear()
    provider.answered.clear()


def _written(path: bytes, text: str, context: ReplyContext) -> ProviderReply | None:
    if path.endswith(b"/responses"):
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        item = {"type": "message", "id": f"msg_{context.identity[5:]}", "status": "completed", "role": "assistant"}
        return make_reply("responses", [{**item, "content": [part]}], context)
    if path.endswith(b"/chat/completions"):
        return make_reply("chat", {"role": "assistant", "content": text}, context)
    return None


def _answer_text(body: bytes) -> str:
    at = body.rfind(_MARK)
    mark = body[at : at + _MARK_CHARS].decode("ascii", "replace").replace("mark-u-", "mark-a-") if at >= 0 else ""
    return f"{mark} {_ANSWER}"


def _get(path: bytes) -> Answer:
    if path.endswith(b"/models"):
        model = {"id": "bench-model", "object": "model", "created": 1_790_000_000, "owned_by": "bench"}
        return _json({"object": "list", "data": [model]})
    if path.endswith((b"/health", b"/")):
        return _json({})
    return _NOT_FOUND


def _json(value: object) -> Answer:
    return answer_with(ProviderReply(lines=(), events=(), whole=msgspec.json.encode(value)), streamed=False)
