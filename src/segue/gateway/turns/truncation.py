"""`truncation: "auto"` where the upstream does not do it: a turn that is refused as too long is tried with less.

The upstream says that a history is too long before it generates anything, so that trying again costs no tokens. The
oldest items go first, in a few steps; what is stored stays whole, and `warnings` of the response says how many items
its model did not see. Not here: which items go, and which stay together (`segue.history.truncation`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import partial

from msgspec.structs import replace

from segue.gateway.turns.item_scans import scan_items
from segue.history.chains import History
from segue.history.truncation import Shortened, shorten
from segue.protocol.events import Ended
from segue.protocol.problems import Refused
from segue.upstreams.interface import Batch, Streaming, UpstreamRequest

_TOO_LONG = "context_length_exceeded"
#: What is left, in each try after the first, of the bytes that may be left out.
_SHARES = (0.75, 0.5, 0.25, 0.0)


def truncating(runs: Streaming, request: UpstreamRequest) -> Streaming:
    """Return what runs a turn, on less of its history if need be, where its client has allowed that."""
    return TruncatingTurn(runs) if request.settings.truncation == "auto" and request.native is None else runs


class TruncatingTurn:
    """What runs one turn, on less and less of its history until its upstream takes it."""

    def __init__(self, runs: Streaming) -> None:
        self._runs = runs

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run the turn. It is refused, or fails, as too long only if it is so with all left out that may be."""
        shares, left_out, asked = iter(_SHARES), 0, request
        while True:
            begun, refused, last = False, None, None
            try:
                async with aclosing(self._runs.stream(asked)) as batches:
                    async for batch in batches:
                        if not begun and _says_too_long(batch):
                            last = batch
                            break
                        begun = begun or bool(batch)
                        yield _warned(batch, left_out)
            except Refused as error:
                if error.problem.code != _TOO_LONG:
                    raise
                refused = error
            if refused is None and last is None:
                return
            shorter = await _next_try(request, shares, left_out)
            if shorter is None and refused is not None:
                raise refused
            if shorter is None:
                yield last or ()
                return
            left_out = shorter.left_out
            # An upstream that kept this turn's state would go on from it with the items that are missing.
            asked = replace(request, history=History(None, shorter.items), held=False)


async def _next_try(request: UpstreamRequest, shares: Iterator[float], left_out: int) -> Shortened | None:
    """Return the history for the next try, if there is more to leave out."""
    history = request.history
    items = tuple(history.items())
    new = 0 if history.parent is None else len(history.input)  # without a parent, the history itself came as input
    size = sum(map(len, items))
    for share in shares:
        shorter = await scan_items(partial(shorten, items, share, new=new), size)
        if shorter.left_out > left_out:
            return shorter
    return None


def _says_too_long(batch: Batch) -> bool:
    """Tell whether a turn ends with that before it has put anything out, or used tokens: those would be paid twice."""
    ended = batch[0] if batch else None
    if not isinstance(ended, Ended) or ended.error is None or ended.error.code != _TOO_LONG:
        return False
    return ended.usage is None or not ended.usage.total_tokens


def _warned(batch: Batch, left_out: int) -> Batch:
    """Return a batch whose end, if it has one, says how many items were left out."""
    ended = batch[-1] if batch else None
    if not left_out or not isinstance(ended, Ended):
        return batch
    warning = (
        f"The history is too long for the model: its {left_out} oldest items that can be spared were left out, as "
        "'truncation' allows."
    )
    return (*batch[:-1], replace(ended, warnings=(*ended.warnings, warning)))
