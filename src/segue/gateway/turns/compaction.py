"""Compaction in the gateway: a conversation's own model writes the summary, and the gateway seals and opens it.

A summary that was refused, failed, or was cut changes nothing: the history stays as it was. If nothing but the
compaction was asked for, the turn fails then; else the model answers on the whole history, and a warning says so. What
the summary cost is part of the turn's usage, whatever became of it. An upstream that is configured to compact histories
itself gets what its client sent, and items that are not ours. Not here: what a model sees of a compacted history
(`segue.history.compaction`), and the events of a compaction (`segue.protocol.compaction_events`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from segue.gateway.admin.metrics import CompactionKind, CompactionMeter, CompactionOutcome, Transport
from segue.gateway.turns.item_scans import scan_items
from segue.gateway.turns.truncation import truncating
from segue.gateway.turns.turn_ends import LOST, end_of
from segue.history.chains import History, Turn, lineage, path
from segue.history.compaction import (
    compact,
    estimate_saving,
    estimate_tokens,
    find_newest,
    may_be_compaction,
    retained_messages,
    stand_in_of,
)
from segue.history.compaction import summary_message as write_summary
from segue.history.records import ChainLink, restore
from segue.history.sealed_summaries import MAX_SUMMARY_BYTES, NONCE_BYTES, SummarySealer, is_sealed_here
from segue.protocol.compaction_events import CompactionWriter, behind_compaction
from segue.protocol.compaction_field import CompactionRequest
from segue.protocol.configuration_items import follow_updates, updates_in, with_updates
from segue.protocol.events import Ended
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.protocol.item_types import MessageItem, read_typed_item
from segue.protocol.items import COMPACTION, TRIGGER, Input, Item, input_of, key_of, user_message
from segue.protocol.problems import Problem, Refused, tool_call_not_found, unreadable_compaction
from segue.protocol.requests import Settings
from segue.protocol.responses import Failure, TerminalStatus, Usage, add_usage
from segue.upstreams.interface import Batch, Streaming, Upstream, UpstreamRequest, compacts_itself, is_native

_DONE = "response.output_item.done"
_DELTA = "response.output_text.delta"
#: The fields beside the settings that a request for a summary keeps: they are about caches and users.
_KEPT_EXTRA = ("user", "prompt_cache_options", "prompt_cache_retention")
_FIELD = "context_management"
#: A compaction by a threshold is worth its cost if it leaves out this part of the threshold: a quarter.
_SAVED_SHARE = 4

_UNENDED = Failure("upstream_protocol_error", "The upstream's stream stopped before the end of the summary.")

_entries = msgspec.json.Decoder(list[dict[str, Any]])


class CompactionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says: the two texts, and the limits."""

    prompt: str
    lead: str
    threshold_tokens: int
    summary_tokens: int
    retained_bytes: int


class Compactions:
    """Opens the compaction items of histories, and compacts histories; `entropy(n)` draws n bytes."""

    def __init__(
        self,
        sealer: SummarySealer,
        settings: CompactionSettings,
        *,
        entropy: Callable[[int], bytes],
        meter: CompactionMeter,
    ) -> None:
        self._sealer = sealer
        self.settings = settings
        self.entropy = entropy
        self.meter = meter

    async def view(
        self, tenant: str, parent: Turn | None, *, new: Input, settings: Settings, upstreams: Sequence[Upstream]
    ) -> tuple[History, Settings]:
        """Return what a model sees of a history and of settings where items say something about those.

        Raises:
            Refused: a compaction cannot be read (`show`), or what changes the settings is no setting.
        """
        size = _size_of(History(parent, new.items)) if new.compacted else 0
        shown = await scan_items(lambda: self.show(tenant, parent, new, upstreams=upstreams), size)
        updates = new.updates if parent is None else parent.updates + new.updates
        if not updates or is_native(upstreams, "responses"):  # such a server reads the items themselves
            return shown, settings
        updated = with_updates(settings, updates)
        if isinstance(updated, Problem):
            raise Refused(updated)
        return shown, updated

    def show(self, tenant: str, parent: Turn | None, new: Input, *, upstreams: Sequence[Upstream]) -> History:
        """Return what a model sees of a history whose new input, or whose parent, holds or asks for a compaction.

        Raises:
            Refused: a compaction cannot be read, and none of these upstreams can be expected to.
        """
        if new.triggers and not compacts_itself(upstreams):
            new = msgspec.structs.replace(new, items=_without_trigger(new.items))
        newest = find_newest(new.items) if new.compacted else None
        summary = None if newest is None else self._open(tenant, newest.sealed, upstreams)
        if newest is None or summary is None:
            return History(_seen(parent), new.items)
        shown = compact(parent, new.items, newest.place, summary=summary, budget_bytes=self.settings.retained_bytes)
        for call_id, index in input_of(shown.since).answers:
            raise Refused(tool_call_not_found(call_id, newest.place + 1 + index))
        return History(None, shown.items)

    async def note_end(self, tenant: str, turn: Turn) -> None:
        """Note of a turn that has just ended what a model sees in its place (`stand_in`)."""
        size = _size_of(History(turn.parent, (*turn.input, *turn.output)))
        await scan_items(lambda: self.stand_in(tenant, turn), size)

    def stand_in(self, tenant: str, turn: Turn) -> None:
        """Note what a model sees in place of a turn, if an item of it stands for the history before it.

        An item that cannot be read stays where it is: whoever runs a turn that continues it refuses it, or can read it.
        """
        newest = find_newest((*turn.input, *turn.output))
        summary = None if newest is None else self._sealer.unseal(tenant, newest.sealed)
        if newest is None or summary is None:
            return
        message = write_summary(self.settings.lead, summary)
        turn.stand_in(stand_in_of(turn, newest.place, summary=message, budget_bytes=self.settings.retained_bytes))

    async def restore(
        self, tenant: str, links: Sequence[ChainLink], resident: Callable[[ResponseId], Turn | None]
    ) -> Turn:
        """Build a chain that was read from the store (`records.restore`), with what its items say of it."""
        turn = restore(links, resident)
        # Oldest first: each begins where the one before it was compacted. No cache has those that are noted.
        turns = [one for one in lineage(turn)[-len(links) :] if not one.references]
        await scan_items(lambda: self._note_all(tenant, turns), sum(one.size_bytes for one in turns))
        return turn

    def _note_all(self, tenant: str, turns: Sequence[Turn]) -> None:
        for turn in turns:
            self.note(tenant, turn)

    def note(self, tenant: str, turn: Turn) -> None:
        """Note what the items of a turn say of its history: which settings change, and what stands for others."""
        if turn.references or turn.compacted is not None:  # a cache has it, or had it, with what was noted then
            return
        turn.note_updates(follow_updates(() if turn.parent is None else turn.parent.updates, updates_in(turn.input)))
        if _may_be_compacted(turn):
            self.stand_in(tenant, turn)

    def _open(self, tenant: str, sealed: str, upstreams: Sequence[Upstream]) -> Item | None:
        """Return the message that a sealed summary becomes; None if an upstream is to read what is sealed."""
        summary = self._sealer.unseal(tenant, sealed)
        if summary is not None:
            return write_summary(self.settings.lead, summary)
        by_upstream = compacts_itself(upstreams) or not is_sealed_here(sealed)
        if by_upstream and is_native(upstreams, "responses"):
            return None
        self.meter.unreadable.inc()
        raise Refused(unreadable_compaction())

    def seal(self, tenant: str, summary: str) -> str:
        """Return a summary as the `encrypted_content` of an item."""
        return self._sealer.seal(tenant, summary, self.entropy(NONCE_BYTES))

    async def retained(self, history: History) -> Sequence[Item]:
        """Return the messages of a history that stay as they are when all of it is compacted."""
        budget = self.settings.retained_bytes
        return await scan_items(
            lambda: retained_messages(history.parent, history.input, budget_bytes=budget), _size_of(history)
        )

    async def prepare(
        self,
        request: UpstreamRequest,
        runs: Streaming,
        history: History,
        *,
        wanted: CompactionRequest,
        transport: Transport,
    ) -> tuple[UpstreamRequest, Streaming]:
        """Return a turn that may have to be compacted, and what runs it; `history` is its history as it is stored."""
        settings = msgspec.structs.replace(request.settings, extra=without_entries(request.settings.extra))
        request = msgspec.structs.replace(request, settings=settings)
        size = _size_of(request.history)
        if wanted.only or await scan_items(lambda: self._is_due(wanted, request), size):
            return request, CompactingTurn(self, runs, history=history, wanted=wanted, transport=transport)
        return request, truncating(runs, request)

    def _is_due(self, wanted: CompactionRequest, request: UpstreamRequest) -> bool:
        """Say whether a history is long enough to be compacted before its turn, and enough of it would go.

        Else one that is long because its user has said much would be compacted in every turn.
        """
        threshold = wanted.threshold or self.settings.threshold_tokens
        settings = request.settings
        around = (bytes(settings.instructions or b""), msgspec.json.encode(settings.tools))
        if estimate_tokens((*around, *request.history.items())) < threshold:
            return False
        return _SAVED_SHARE * estimate_saving(request.history.items()) >= threshold


def _size_of(history: History) -> int:
    return sum(turn.size_bytes for turn in path(history.parent)) + sum(map(len, history.input))


def _may_be_compacted(turn: Turn) -> bool:
    return any(map(may_be_compaction, turn.input)) or any(map(may_be_compaction, turn.output))


def _without_trigger(items: tuple[Item, ...]) -> tuple[Item, ...]:
    return items[:-1] if items and key_of(items[-1]).kind == TRIGGER else items


def _seen(parent: Turn | None) -> Turn | None:
    """Return what a model sees in place of a turn."""
    return parent if parent is None or parent.compacted is None else parent.compacted


def without_entries(extra: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """Return the fields beside the settings without what the gateway does itself about a long history."""
    rest = {name: raw for name, raw in extra.items() if name != _FIELD}
    others = [one for one in _entries.decode(extra[_FIELD]) if one["type"] != COMPACTION] if _FIELD in extra else []
    return {**rest, _FIELD: msgspec.Raw(msgspec.json.encode(others))} if others else rest


class CompactingTurn:
    """What runs one turn whose history is compacted first, or that is nothing but a compaction."""

    def __init__(
        self,
        compactions: Compactions,
        runs: Streaming,
        *,
        history: History,
        wanted: CompactionRequest,
        transport: Transport,
    ) -> None:
        self._compactions = compactions
        self._runs = runs
        self._history = history
        self._wanted = wanted
        self._transport = transport
        self._reader = _SummaryReader()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run the turn."""
        writer = CompactionWriter(request.response_id)
        outcome: CompactionOutcome = "cancelled"
        try:
            async with aclosing(self._summarise(request, writer)) as batches:
                async for batch in batches:
                    yield batch
            failure = self._reader.failure or (_UNENDED if self._reader.ended is None else None)
            outcome = "completed" if failure is None else "failed"
        except Refused:
            outcome = "failed"
            raise
        finally:
            await self._count(request, outcome)
        item = [] if failure is not None else writer.finish(self._seal(request.tenant))
        if self._wanted.only:
            yield (*item, self._end_alone(failure))
            return
        if item:  # else nothing may have begun yet, and the answer can still be refused
            yield item
        asked = request if failure is not None else await self._answering(request)
        async with aclosing(self._answer(asked)) as batches:
            async for batch in batches:
                yield self._behind(batch, failure)

    async def _summarise(self, request: UpstreamRequest, writer: CompactionWriter) -> AsyncGenerator[Batch, None]:
        """Let the model write the summary. If an answer is wanted too, a refusal of it ends nothing."""
        try:
            async with aclosing(self._runs.stream(self._question(request))) as batches:
                async for batch in batches:
                    grown = self._reader.feed(batch)
                    yield writer.progress() if grown and self._wanted.only else ()
        except Refused as refused:
            if self._wanted.only:
                raise
            self._reader.fail(refused.problem.told_code, refused.problem.message)

    async def _count(self, request: UpstreamRequest, outcome: CompactionOutcome) -> None:
        """Count the compaction, with what it has left out of the history."""
        wanted, saved = self._wanted, 0
        if outcome == "completed":
            items = tuple(request.history.items())
            saved = await scan_items(lambda: estimate_saving(items), sum(map(len, items)))
            saved = max(0, saved - estimate_tokens([self._reader.summary.encode()]))
        kind: CompactionKind = "endpoint" if wanted.window else "trigger" if wanted.only else "threshold"
        self._compactions.meter.count(self._transport, kind, outcome, saved)

    async def _answer(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run the answer. If it comes to nothing, the turn ends all the same once a summary has cost something."""
        try:
            async with aclosing(truncating(self._runs, request).stream(request)) as batches:
                async for batch in batches:
                    yield batch
                    if batch and isinstance(batch[-1], Ended):
                        return
        except Exception as error:
            ended = None if self._reader.usage is None else end_of(error, request, begun=True)
            if ended is None:
                raise
            yield (ended,)
            return
        yield (LOST,)

    def _question(self, request: UpstreamRequest) -> UpstreamRequest:
        """Return the request for the summary."""
        settings = self._compactions.settings
        ident = new_response_id(self._compactions.entropy(ENTROPY_BYTES), request.response_id)
        history = History(request.history.parent, (*request.history.input, user_message(settings.prompt)))
        return msgspec.structs.replace(
            request,
            response_id=ident,
            history=history,
            settings=_settings_of_summary(request.settings, settings.summary_tokens),
            store=False,
            held=False,
        )

    def _seal(self, tenant: str) -> str:
        return self._compactions.seal(tenant, self._reader.summary)

    def _end_alone(self, failure: Failure | None) -> Ended:
        status: TerminalStatus = "completed" if failure is None else "failed"
        return Ended(status, self._reader.usage, failure, warnings=self._reader.warnings)

    async def _answering(self, request: UpstreamRequest) -> UpstreamRequest:
        """Return the request for the answer, on what is left of the history."""
        retained = await self._compactions.retained(self._history)
        summary = write_summary(self._compactions.settings.lead, self._reader.summary)
        return msgspec.structs.replace(request, history=History(None, (*retained, summary)))

    def _behind(self, batch: Batch, failure: Failure | None) -> Batch:
        """Return a batch of the answer with what the summary has cost in its usage."""
        moved = batch if failure is not None else behind_compaction(batch)
        if not moved or not isinstance(moved[-1], Ended):
            return moved
        ended = moved[-1]
        warning = () if failure is None else (f"The history was not compacted: {failure.message}",)
        usage = ended.usage if self._reader.usage is None else add_usage(self._reader.usage, ended.usage)
        return (*moved[:-1], msgspec.structs.replace(ended, usage=usage, warnings=(*ended.warnings, *warning)))


class _SummaryReader:
    """Reads the summary out of a turn's events."""

    def __init__(self) -> None:
        self.ended: Ended | None = None
        self.failure: Failure | None = None
        self._texts: list[str] = []

    @property
    def summary(self) -> str:
        """What the model has written."""
        return "".join(self._texts)

    @property
    def usage(self) -> Usage | None:
        """What it has cost."""
        return None if self.ended is None else self.ended.usage

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out of the request."""
        return () if self.ended is None else self.ended.warnings

    def feed(self, batch: Batch) -> bool:
        """Take some events; return whether there was text among them."""
        grown = False
        for event in batch:
            if isinstance(event, Ended):
                self._end(event)
                break
            grown = grown or event.type == _DELTA
            if event.type == _DONE:
                self._texts += _texts_of(event.item)
        return grown

    def fail(self, code: str, message: str) -> None:
        """Note why there is no summary."""
        self.failure = Failure(code, message)

    def _end(self, ended: Ended) -> None:
        self.ended = ended
        if ended.error is not None:
            self.failure = ended.error
        elif ended.status != "completed":
            self.fail("upstream_error", f"the summary was cut short ({ended.incomplete_reason}).")
        elif not self.summary.strip():
            self.fail("upstream_error", "the model has written no summary.")
        elif len(self.summary.encode()) > MAX_SUMMARY_BYTES:
            self.fail("upstream_error", "the summary is too long.")


def _settings_of_summary(settings: Settings, limit: int) -> Settings:
    """Return the settings of the request for a summary: those of the turn, but for what shapes the turn's answer."""
    return msgspec.structs.replace(
        settings,
        tool_choice="none" if settings.tools else "auto",
        text={},
        metadata={},
        include=(),
        max_output_tokens=limit,
        max_tool_calls=None,
        top_logprobs=0,
        extra={name: settings.extra[name] for name in _KEPT_EXTRA if name in settings.extra},
    )


def _texts_of(item: Item) -> Iterable[str]:
    message = read_typed_item(item, key_of(item).kind)
    if isinstance(message, MessageItem):
        return [part.text for part in message.parts() if part.text is not None]
    return ()
