"""The ids of tool calls as a provider gets them: each call of a history has its own, in the form that its API takes.

A conversation may hold calls of several providers. Some name their calls `call_0`, `call_1`, … anew in each answer, and
each API has its own limits. So an id that is too long, has other characters or was used before is replaced. What
replaces it depends on the id and on how often it was used before, so it is the same in every turn. An output gets the
id of the call that it answers. Clients never see a replacement. Not here: whether a call is answered at all.
"""

from __future__ import annotations

import re
from base64 import b32encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Literal, NamedTuple

import msgspec

CallIdCharacters = Literal["any", "alphanumeric", "alphanumeric_-"]

_PATTERNS: Mapping[CallIdCharacters, re.Pattern[str] | None] = {
    "any": None,
    "alphanumeric": re.compile(r"[a-zA-Z0-9]*"),
    "alphanumeric_-": re.compile(r"[a-zA-Z0-9_-]*"),
}
_REPLACEMENT_LENGTH = 37
#: Roughly what an id costs in memory: its text, its uses, and its place in a table.
_ENTRY_BYTES = 256


class CallIdForm(msgspec.Struct, frozen=True):
    """Which ids an API takes: of which characters (letters and digits are ASCII), and up to or exactly which length."""

    characters: CallIdCharacters
    length: int
    exact: bool = False

    def wire_id(self, call_id: str, uses: int = 0) -> str:
        """Return the id of a call for the API; `uses` is how many earlier calls have the same id."""
        if not uses and self._is_taken(call_id):
            return call_id
        digest = sha256(f"{call_id}\0{uses}".encode("utf-8", "surrogatepass")).digest()
        prefix = "" if self.exact or self.characters == "alphanumeric" else "call_"
        replacement = prefix + b32encode(digest).decode().rstrip("=")
        if self.exact:
            return replacement[: self.length].ljust(self.length, "0")
        return replacement[: min(self.length, _REPLACEMENT_LENGTH)]

    def _is_taken(self, call_id: str) -> bool:
        if len(call_id) > self.length or len(call_id) < (self.length if self.exact else 1):
            return False
        pattern = _PATTERNS[self.characters]
        return pattern is None or pattern.fullmatch(call_id) is not None


#: Anthropic's `tool_use.id`: https://platform.claude.com/docs/en/api/messages
MESSAGES_CALL_IDS = CallIdForm("alphanumeric_-", 64)
#: OpenAI answers 400 "string too long" beyond these lengths, in the two APIs.
RESPONSES_CALL_IDS = CallIdForm("any", 64)
CHAT_CALL_IDS = CallIdForm("any", 40)


class _Uses(NamedTuple):
    """The calls that have one id: how many, how many of them are answered or given up, and the run of the newest."""

    made: int = 0
    answered: int = 0
    run: int = 0


_UNUSED = _Uses()


class UsedCallIds(msgspec.Struct, frozen=True):
    """The call ids of a history up to some item: an immutable map that a turn adds to without copying all of it.

    `layers` hold what was added, oldest first. Each layer is more than twice as large as the next, so that there are
    few of them, and adding n ids one by one costs O(n log n). `run` counts the times that the model spoke again after
    somebody else did; `interrupted` is true where somebody else spoke last.
    """

    layers: tuple[Mapping[str, _Uses], ...] = ()
    run: int = 0
    interrupted: bool = False

    @property
    def size_bytes(self) -> int:
        """Roughly how much memory the newest layer takes; the others belong to earlier turns."""
        return len(self.layers[-1]) * _ENTRY_BYTES if self.layers else 0


class CallIdMapper:
    """Gives the calls and outputs of one turn their ids, from where the turn before left off."""

    def __init__(self, used: UsedCallIds, form: CallIdForm) -> None:
        self._used = used
        self._form = form
        self._new: dict[str, _Uses] = {}
        self._run = used.run
        self._interrupted = used.interrupted

    def end_run(self) -> None:
        """Note that somebody else than the model spoke."""
        self._interrupted = True

    def map_call(self, call_id: str) -> str:
        """Return the id of the next call."""
        if self._interrupted:
            self._interrupted = False
            self._run += 1
        uses = self._find(call_id)
        # An output never belongs to a call of an earlier run if there is a later call of the same id.
        answered = uses.answered if uses.run == self._run else uses.made
        self._new[call_id] = _Uses(uses.made + 1, answered, self._run)
        return self._form.wire_id(call_id, uses.made)

    def is_answered(self, call_id: str) -> bool:
        """Tell whether all calls of this id have their outputs; not for an id that no call has."""
        uses = self._find(call_id)
        return 0 < uses.made <= uses.answered

    def map_output(self, call_id: str) -> str:
        """Return the id of the call that the next output answers: the oldest open one, else the newest."""
        self.end_run()
        uses = self._find(call_id)
        if uses.answered < uses.made:
            self._new[call_id] = _Uses(uses.made, uses.answered + 1, uses.run)
        return self._form.wire_id(call_id, max(0, min(uses.answered, uses.made - 1)))

    def build(self) -> UsedCallIds:
        """Return the ids after the last item."""
        layers = list(self._used.layers)
        new = self._new
        if new:
            while layers and len(layers[-1]) <= 2 * len(new):
                new = {**layers.pop(), **new}
            layers.append(new)
        return UsedCallIds(tuple(layers), self._run, self._interrupted)

    def _find(self, call_id: str) -> _Uses:
        for layer in (self._new, *reversed(self._used.layers)):
            if call_id in layer:
                return layer[call_id]
        return _UNUSED
