"""How much of a streamed reply has come, as an agent sees it that may have to decide whether it can ask again.

Pure. Not here: what the agent decides (`retry_rules`).
"""

from __future__ import annotations

import msgspec

from segue.bench.workloads.retry_rules import Progress
from segue.http.sse import SseEvent, SseReader
from segue.testing.replies import Api


class _Block(msgspec.Struct):
    type: str = ""


class _StreamEvent(msgspec.Struct):
    """What tells the parts of a Messages stream from each other."""

    type: str = ""
    content_block: _Block = msgspec.field(default_factory=_Block)


_events = msgspec.json.Decoder(_StreamEvent)
#: After these an agent has all that it needs of a reply, whatever becomes of the connection.
_LAST = frozenset({"message_delta", "message_stop", "response.completed"})


class ReplyProgress:
    """The progress of one reply. `finished`: the agent has the model's whole answer."""

    def __init__(self, api: Api) -> None:
        self.progress: Progress = "nothing"
        self.finished = False
        self._api = api
        self._reader = SseReader()
        self._open = ""  # the kind of the block that has begun

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the body."""
        for event in self._reader.feed(chunk):
            self._take(event)

    def _take(self, event: SseEvent) -> None:
        if not event.data.startswith(b"{"):
            return
        said = _events.decode(event.data)
        if said.type in _LAST:
            self.finished = True
        elif self._api == "messages":
            self._take_block(said)
        else:
            self.progress = "answer"

    def _take_block(self, said: _StreamEvent) -> None:
        """Follow the blocks of a Messages stream.

        A tool call that is complete can be carried out, even if the connection is lost behind it. What follows the
        thinking is part of the answer from its first piece on; without thinking, a block counts when it is whole.
        https://code.claude.com/docs/en/errors#automatic-retries
        """
        match said.type:
            case "content_block_start":
                self._open = said.content_block.type
                if self._open != "thinking" and self.progress == "thought":
                    self.progress = "answer"
            case "content_block_stop" if self._open == "thinking":
                self.progress = "thought"
            case "content_block_stop":
                self.progress = "answer"
                self.finished = self._open == "tool_use"
            case _:
                pass
