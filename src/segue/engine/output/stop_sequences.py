"""Stop sequences: texts that end an answer. Pure.

The answer ends before the first stop sequence to be complete; of two that are complete at the same character, before
the one that began first. So it ends at the same place however the text is cut into tokens. Text that may be the
beginning of a stop sequence is held back until that is clear. Not here: which part of an answer is text
(`tool_call_parser`).
"""

from __future__ import annotations

from collections.abc import Sequence


class StopSequences:
    """Looks for stop sequences in a text that comes in pieces; none of `stops` is empty."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        #: Whether a stop sequence was found; do not feed more text then.
        self.found = False

    def feed(self, text: str) -> str:
        """Add a piece of the text; return what certainly comes before any stop sequence."""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.found = True
            self._held = ""
            return text[: min(found)[1]]
        clear = len(text) - self._begun(text)
        self._held = text[clear:]
        return text[:clear]

    def close(self) -> str:
        """Return what is still held back at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _begun(self, text: str) -> int:
        """Return how many of the last characters may be the beginning of a stop sequence."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
