"""Which tool call a piece of a Chat Completions stream belongs to.

OpenAI's own API gives each call an `index`, and its id and name in the first piece alone. Servers that imitate it send
another id or the name again with each piece, no index, the same index for all calls, or a last piece with nothing in
it. The rules here take the pieces of each of them for what they are; where two readings are possible, arguments that
are not whole yet go on. A name may come in pieces too, until the arguments begin: the accumulator of OpenAI's own
client joins them. Not here: reading pieces from JSON (`stream`), and the events of a call (`output_writer`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from segue.dialects.call_arguments import PLACEHOLDERS, ArgumentsState, StreamedArguments


class CallPiece(msgspec.Struct, frozen=True):
    """What a piece says; empty where it says nothing."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""

    @property
    def empty(self) -> bool:
        """Whether no call can come of it."""
        text = self.arguments.strip()
        return not self.id and not self.name and (not text or text in PLACEHOLDERS)


class PendingCall(msgspec.Struct):
    """A call that grows; until its events have `started`, it keeps the arguments that came `early`."""

    key: int
    id: str = ""
    name: str = ""
    early: list[str] = []
    indexed: bool = False
    started: bool = False

    @property
    def ready(self) -> bool:
        """Whether its events can begin: its name is complete, since a name that was sent cannot be taken back."""
        return bool(self.name) and (not self.id or not self.indexed or any(self.early))


class CallAssembler:
    """The calls of one answer; `arguments_of` returns the arguments of a call that has started, by its key."""

    def __init__(self, arguments_of: Callable[[int], StreamedArguments]) -> None:
        self._arguments_of = arguments_of
        self._calls: list[PendingCall] = []
        self._by_index: dict[int, PendingCall] = {}
        self._by_id: dict[str, PendingCall] = {}

    @property
    def empty(self) -> bool:
        """Whether there is no call."""
        return not self._calls

    @property
    def nameless(self) -> bool:
        """Whether a call has no name: nobody can run it."""
        return any(not call.name for call in self._calls)

    def find(self, piece: CallPiece) -> PendingCall | None:
        """Return the call that a piece belongs to, a new one if need be; None for a piece that says nothing new."""
        call = self._candidate(piece)
        text = piece.arguments
        if call is not None and not piece.id and not piece.name and text[-1:] != "}" and text != "null":
            return call  # as nearly all are
        if call is not None and call.started and self._repeats(piece, call):
            return None
        if call is None or (call.name and self._begins_another(piece, call)):
            if piece.empty:
                return None
            call = PendingCall(len(self._calls))
            self._calls.append(call)
        self._note(piece, call)
        return call

    def _note(self, piece: CallPiece, call: PendingCall) -> None:
        """Note what a piece tells of its call. A name that is said again is no second piece of it."""
        if piece.index is not None:
            self._by_index[piece.index] = call
            call.indexed = True
        if piece.id:
            call.id = call.id or piece.id
            self._by_id[piece.id] = call
        if not call.started and piece.name != call.name:
            call.name += piece.name

    def _candidate(self, piece: CallPiece) -> PendingCall | None:
        """Return the call that a piece goes on with, unless it begins another."""
        last = self._calls[-1] if self._calls else None
        call = last if piece.index is None else self._by_index.get(piece.index)
        if not piece.id or (call is None and piece.name) or (call is not None and call.id == piece.id):
            return call
        return self._by_id.get(piece.id, call)

    def _repeats(self, piece: CallPiece, call: PendingCall) -> bool:
        """Tell whether a piece only says again, at its end, what is known of a call: nothing, or all of its arguments.

        With the name and without the id of the call it may be a second call that says the same.
        """
        text = piece.arguments.strip()
        if piece.name and (not piece.id or piece.id != call.id):
            return False
        arguments = self._arguments_of(call.key)
        if text in PLACEHOLDERS and not piece.name:
            return arguments.state() in {"whole", "placeholder"}
        if text[:1] != "{" or text[-1:] != "}" or arguments.state() != "whole":
            return False
        return text == "".join(arguments.pieces).strip()

    def _begins_another(self, piece: CallPiece, call: PendingCall) -> bool:
        """Tell whether a piece begins a call of its own where a call has started.

        Another name does, unless it is a piece of the name. An id that is not known does, with the name, unless the
        arguments so far go on: they are not whole, or have not begun. Where there are no ids, the name with a second
        placeholder does. All else goes on with the call, until its arguments are whole.
        """
        if piece.name and piece.name != call.name:
            return not self._goes_on_with_name(piece, call)
        known = not piece.id or not call.id or self._by_id.get(piece.id) is call
        says = bool(piece.arguments.strip())
        state = self._state(call) if piece.name or not known else "partial"
        if state == "placeholder" and piece.name and not piece.id and not call.id:
            return piece.arguments.strip() in PLACEHOLDERS
        if not piece.name or known:
            return says and state == "whole"
        if state == "partial":
            return piece.index is None and piece.arguments.lstrip().startswith("{")
        return state != "none" or not says or piece.index is None

    def _goes_on_with_name(self, piece: CallPiece, call: PendingCall) -> bool:
        """Tell whether a piece of the index and the id of a call that has not started has a piece of its name."""
        same_index = piece.index is not None and self._by_index.get(piece.index) is call
        return not call.started and same_index and piece.id in {"", call.id}

    def _state(self, call: PendingCall) -> ArgumentsState:
        return self._arguments_of(call.key).state() if call.started else "none"
