"""The stream of one turn: opening events, the upstream's events, the terminal event; and the response they fold to.

You feed `TurnStream` what an upstream yields, and it returns what the client gets: `created`, `in_progress` and the
terminal event of its own around the upstream's events, whose bytes change only if their number does. It collects the
finished items, which are the response's output. An upstream that breaks the protocol fails the turn; nothing raises.
Every transport uses this path: a reply that is not streamed is the response object of the terminal event. Not here:
storing the response, and what an upstream does to make it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from segue.protocol.codec import UNREADABLE, with_field
from segue.protocol.events import FIRST_SEQUENCE_NUMBER, SOURCE, Ended, Event, response_event, response_of
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.items import ENCRYPTED, Item, hide_encrypted
from segue.protocol.responses import (
    ConversationReference,
    EncodedResponse,
    Failure,
    IncompleteDetails,
    ResponseObjectHead,
    TerminalStatus,
    encode_start,
    usage,
)
from segue.protocol.steering import may_stop_after

_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"
_LOOKED_AT = frozenset({_ADDED, _DONE, SOURCE})
_NOT_JSON = Ended("failed", error=Failure("upstream_protocol_error", "The upstream sent an event that is not JSON."))
#: How a response ends that was stopped between two items, since there is new input for it.
_STEERED = Ended("incomplete", incomplete_reason="steered")


class _ItemCarrier(msgspec.Struct):
    item: msgspec.Raw


_carriers = msgspec.json.Decoder(_ItemCarrier)


class Finished(msgspec.Struct, frozen=True):
    """The result of a turn's stream. The terminal event carries the response object.

    `retry_after_s` says when a turn that failed may be worth another try, if its upstream said so.
    """

    head: ResponseObjectHead
    output: tuple[Item, ...]
    terminal: Event
    retry_after_s: float | None = None

    @property
    def response(self) -> EncodedResponse:
        """The response object."""
        return response_of(self.terminal)

    @property
    def status(self) -> TerminalStatus:
        """The status the response ended with."""
        status = self.head.status
        assert status != "in_progress", "a finished response has ended"
        return status


class SourceFold(Protocol):
    """What a provider's own events add up to."""

    def feed(self, data: bytes) -> None:
        """Take one event."""


class TurnStream:
    """One turn from `open` to `close`; times are unix seconds from the caller.

    The result always holds the `encrypted_content` of reasoning. The client gets it only if it asked for it
    (`encrypted`). `sources` gets the provider's own events. A response of a conversation names that and no parent.
    """

    def __init__(
        self,
        response_id: ResponseId,
        parent_id: ResponseId | None,
        echo: bytes,
        now: float,
        *,
        encrypted: bool = False,
        sources: SourceFold | None = None,
        conversation: ConversationId | None = None,
    ) -> None:
        self._encrypted = encrypted
        self._head = ResponseObjectHead(id=response_id, created_at=int(now), previous_response_id=parent_id)
        if conversation is not None:
            reference = ConversationReference(conversation)
            self._head = msgspec.structs.replace(self._head, previous_response_id=None, conversation=reference)
        self._echo = echo
        self._number = FIRST_SEQUENCE_NUMBER
        self._output: list[Item] = []
        self._added = 0
        self._sources = sources
        self._steered = False
        self.ended: Ended | None = None

    def open(self) -> list[Event]:
        """Return the first two events of the turn."""
        start, kinds = encode_start(self._head, ()), ("response.created", "response.in_progress")
        return [response_event(kind, start, number, self._echo) for number, kind in enumerate(kinds)]

    def feed(self, batch: Iterable[Event | Ended]) -> list[Event]:
        """Return an upstream's events as the client gets them: the same bytes, numbered without a gap.

        An `Ended` among them becomes `ended`; anything after it is not forwarded.
        """
        forwarded: list[Event] = []
        events = iter(batch)
        for event in events:
            if not isinstance(event, Event):  # a test for its own type is the quickest
                self.ended = event
                break
            kind, number = event.type, self._number
            own: Event | None = event
            if kind in _LOOKED_AT:  # one look for nearly all events: each step for an event is felt
                if kind == SOURCE:
                    forwarded.append(event)
                    if self._sources is not None:
                        self._sources.feed(event.data)
                    continue
                own = self._take_item(event)
                if self.ended is not None and own is not None:  # it was steered, and stops here
                    forwarded += _numbered(own, number)
                    self._number = number + 1
                    following = next(events, None)
                    self.ended = following if isinstance(following, Ended) else self.ended
                    break
            if event.sequence_number != number and own is not None:
                own = _renumber(own, number)
            if own is None:
                self.ended = _NOT_JSON
                break
            forwarded.append(own)
            self._number = number + 1
        return forwarded

    def _take_item(self, event: Event) -> Event | None:
        """Note that an item begins, or its end; return its event as the client may see it."""
        if event.type == _DONE:
            self._output.append(event.item)
            if self._steered and self._added == len(self._output) and may_stop_after(self._output):
                self.ended = _STEERED
        else:
            self._added += 1
        return self._show(event)

    @property
    def output(self) -> Sequence[Item]:
        """The items that are finished."""
        return self._output

    @property
    def output_events(self) -> int:
        """How many events there are of its output."""
        return self._number - FIRST_SEQUENCE_NUMBER

    def steer(self) -> int | None:
        """Let the response end as soon as it may, between two items; return the number of the event that says so.

        None if it has ended.
        """
        self._steered = True
        return self.take_number()

    def take_number(self) -> int | None:
        """Return the number of an event that the caller sends at once; None if the response has ended."""
        if self.ended is not None:
            return None
        self._number += 1
        return self._number - 1

    def close(self, ended: Ended, now: float) -> Finished:
        """Return the finished turn. Commit a stored turn before you send its terminal event."""
        warnings, retry_after_s = ended.warnings, ended.retry_after_s
        ended = self._judge(ended)
        reason = ended.incomplete_reason
        ended_at = max(int(now), self._head.created_at)  # the clock may have been set back
        head = msgspec.structs.replace(
            self._head,
            status=ended.status,
            completed_at=ended_at if ended.status == "completed" else None,
            usage=ended.usage,
            error=ended.error,
            incomplete_details=None if reason is None else IncompleteDetails(reason),
            warnings=warnings or msgspec.UNSET,
        )
        output = tuple(self._output)
        shown = output if self._encrypted else tuple(map(hide_encrypted, output))
        # The API has no event for a cancelled response; clients know the one for a response that was cut short.
        kind = "incomplete" if ended.status == "cancelled" else ended.status
        terminal = response_event(f"response.{kind}", encode_start(head, shown), self._number, self._echo)
        return Finished(head, output, terminal, retry_after_s)

    def _show(self, event: Event) -> Event | None:
        """Return an item's event as the client may see it; None if it cannot be read."""
        if self._encrypted or ENCRYPTED not in event.data:
            return event
        return _hide(event)

    def _judge(self, ended: Ended) -> Ended:
        """Fail a turn whose upstream left an item open, or did not say why it stopped early."""
        if ended.status == "failed":
            failure = ended.error or Failure("upstream_error", "The upstream failed without saying why.")
            return Ended("failed", ended.usage, failure)
        if ended.status == "cancelled":
            return Ended("cancelled", ended.usage)
        if self._added != len(self._output):
            return self._broken("The upstream ended its response with an output item left open.", ended)
        if ended.status == "completed":
            return Ended("completed", ended.usage or usage(0, 0))  # clients read the fields of a completed response
        if ended.incomplete_reason is None:
            return self._broken("The upstream cut its response short without saying why.", ended)
        return Ended("incomplete", ended.usage, incomplete_reason=ended.incomplete_reason)

    @staticmethod
    def _broken(message: str, ended: Ended) -> Ended:
        return Ended("failed", ended.usage, Failure("upstream_protocol_error", message))


def _numbered(event: Event, number: int) -> list[Event]:
    """Return an event with this number, unless its data is not a JSON object."""
    own = event if event.sequence_number == number else _renumber(event, number)
    return [] if own is None else [own]


def _hide(event: Event) -> Event | None:
    """Return the event without the `encrypted_content` of its item, or None if it has no readable item."""
    try:
        item = hide_encrypted(bytes(_carriers.decode(event.data).item))
        data = with_field(event.data, "item", msgspec.Raw(item))
    except UNREADABLE:
        return None
    return Event(event.type, data, event.sequence_number, item if event.item else b"")


def _renumber(event: Event, number: int) -> Event | None:
    """Return the event with another number, or None if its data is not a JSON object."""
    try:
        data = with_field(event.data, "sequence_number", number)
    except UNREADABLE:
        return None
    return Event(event.type, data, number, event.item)
