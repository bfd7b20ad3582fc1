"""The fold of a reply: the bytes of it that the agent's next request will repeat, to compress that request against.

Both ends of the tunnel fold the same bytes with the same version of the same function. A fold only appends: the fold of
a part of a reply is the beginning of the fold of the whole, however the reply was cut into pieces. So an end that has
received less can still use its fold. It never raises; a wrong guess costs bytes, not correctness. docs/spec/fold.md is
the reference. Not here: what a base is (`segue.tunnel.documents`).
"""

from __future__ import annotations

from typing import Final, Protocol

from segue.tunnel.folds.chat import ChatFold
from segue.tunnel.folds.gemini import GeminiFold
from segue.tunnel.folds.json import Compactor, FoldOutput, is_strict
from segue.tunnel.folds.messages import MessagesFold
from segue.tunnel.folds.responses import ResponsesFold
from segue.tunnel.folds.sse import EventReader

#: Increase it with every change that gives any reply another fold.
FOLD_VERSION: Final = 2
#: A fold stops growing at this size, and drops an event with more data.
MAX_FOLD_BYTES: Final = 4 * 1024 * 1024


class _ApiFold(Protocol):
    def take(self, data: bytes) -> bool: ...


#: The first of these that takes an event settles the API of its reply.
_APIS: Final = (ResponsesFold, ChatFold, MessagesFold, GeminiFold)


class Fold:
    """Folds one reply, with its content coding already undone. `content_type` is the value of that header line."""

    def __init__(self, content_type: bytes) -> None:
        self._output = FoldOutput(MAX_FOLD_BYTES)
        media_type = content_type.partition(b";")[0].strip().lower()
        self._reader = EventReader(MAX_FOLD_BYTES) if media_type == b"text/event-stream" else None
        is_json = media_type == b"application/json" or media_type.endswith(b"+json")
        self._compactor = Compactor() if is_json else None
        self._api: _ApiFold | None = None
        self._value = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the reply."""
        if self._output.full:
            return
        if self._reader is not None:
            for event in self._reader.feed(data):
                self._take(event)
        elif self._compactor is not None:
            # each byte as a character: the compactor looks for ASCII, and no byte of another character is ASCII
            self._output.write(self._compactor.feed(data.decode("latin-1")).encode("latin-1"))
        else:
            self._output.write(data)

    def feed_event(self, data: bytes) -> None:
        """Take the data of one event, of a reply that consists of whole events (the messages of a WebSocket)."""
        if not self._output.full and len(data) < MAX_FOLD_BYTES:
            self._take(data)

    @property
    def size(self) -> int:
        """The length of the value."""
        return len(self._output.data)

    @property
    def value(self) -> bytes:
        """The fold so far."""
        if len(self._value) != len(self._output.data):
            self._value = bytes(self._output.data)
        return self._value

    def _take(self, event: bytes) -> None:
        if self._api is not None:
            self._api.take(event)
            return
        for kind in _APIS if is_strict(event) else ():
            api = kind(self._output)
            if api.take(event):
                self._api = api
                return
        self._output.write(event, b"\n")
