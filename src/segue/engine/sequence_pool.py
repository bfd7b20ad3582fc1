"""The sequences of one model: opened for a prompt, moved between tiers, trimmed when responses are gone.

`KvCache` decides where each sequence lies, the prefix match decides which one a prompt starts from, and the retention
index decides how much of each is still needed. The pool carries these decisions out on the model and on the disk tier.
Everything here belongs to the engine's thread. Not here: turns (`worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from segue.engine.counters import EngineCounters
from segue.engine.kv.cache import HostEviction, KvBudget, KvCache, KvSequence
from segue.engine.kv.defrag import plan_defrag
from segue.engine.kv.disk_tier import DiskTier
from segue.engine.kv.prefix_match import PrefixCandidate, PrefixMatch, find_prefix_match, is_continuation
from segue.engine.kv.retention import ResponseKey, Retention, RetentionIndex
from segue.engine.model import LoadedModel, ModelFile

#: One part in so many of the context is free after a defrag, so that the next one is not soon.
_FREE_FRACTION = 8


class OpenedSequence(msgspec.Struct, frozen=True):
    """A pinned sequence with room for a whole prompt; `restored`: its prefix was not in the context before."""

    sequence: KvSequence
    restored: bool


class SequencePool:
    """All sequences of one model. `clock` is any clock, in seconds."""

    def __init__(
        self, model: LoadedModel, file: ModelFile, counters: EngineCounters, *, clock: Callable[[], float]
    ) -> None:
        self._model = model
        self._file = file
        self._counters = counters
        self._clock = clock
        disk_bytes = 0 if file.spill_directory is None else file.disk_bytes
        self._budget = KvBudget(model.cells, file.slots, file.host_bytes, disk_bytes, file.idle_tokens)
        self._cache = KvCache(self._budget)
        self._disk = DiskTier(file.spill_directory) if file.spill_directory is not None and disk_bytes else None
        self._retention = RetentionIndex()

    @property
    def sequences(self) -> list[KvSequence]:
        """All sequences, oldest first."""
        return list(self._cache)

    @property
    def expires_in_s(self) -> float | None:
        """In how many seconds the next retention expires; None: never."""
        expiry = self._retention.next_expiry()
        return None if expiry is None else max(0.0, expiry - self._clock())

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self, prompt: Sequence[int], tenant: str, *, alone: bool) -> OpenedSequence | None:
        """Return a sequence for a prompt, with as much of the prompt as is computed; None if there is no room yet.

        `alone` says that no turn runs, so none will make room.
        """
        match = find_prefix_match(prompt, self._candidates(tenant, prompt))
        source = None if match is None else self._cache[match.key]
        self._evict_surplus(source)
        restored = source is not None and source.tier != "context"
        sequence = self._open_empty(prompt, tenant) if match is None else self._open_match(prompt, match, alone=alone)
        return None if sequence is None else OpenedSequence(sequence, restored)

    def _evict_surplus(self, kept: KvSequence | None) -> None:
        """Evict what is idle and would slow down a turn that begins with the sequence `kept`."""
        if not self._model.reuses_cells or not self._model.divisible:
            return
        if kept is not None:
            kept.pins += 1  # nor may others take its place in host memory
        for key in self._cache.choose_idle(cell_bytes=self._model.cell_bytes):
            self.evict(self._cache[key])
        if kept is not None:
            kept.pins -= 1

    def _candidates(self, tenant: str, prompt: Sequence[int]) -> list[PrefixCandidate]:
        """Return the tenant's sequences; of a model that cannot divide them, those that the prompt continues."""
        return [
            PrefixCandidate(one.key, one.tokens, one.protected, one.pins > 0, one.tier == "context")
            for one in self._cache
            if one.tenant == tenant
            and (self._model.divisible or (not one.pins and is_continuation(prompt, one.tokens)))
        ]

    def _open_match(self, prompt: Sequence[int], match: PrefixMatch, *, alone: bool) -> KvSequence | None:
        source = self._cache[match.key]
        source.pins += 1
        try:
            if source.tier == "context":
                opened = source if match.how == "take over" else self._copy(source, match.length)
            elif match.how == "take over":
                opened = source if self.restore(source, len(prompt)) else None
            else:
                opened = self._restore_copy(source, len(prompt))
        finally:
            source.pins -= 1
        if opened is None:
            # the sequence to reuse may itself be what takes the room
            return self._open_empty(prompt, source.tenant) if alone else None
        if opened is source:
            opened.pins += 1
        self.rewind(opened, min(match.length, len(opened.tokens)))
        if self.reserve(opened, len(prompt)):
            self._cache.touch(opened)
            return opened
        opened.pins -= 1
        if opened is not source:
            self.drop(opened)
        return None

    def _open_empty(self, prompt: Sequence[int], tenant: str) -> KvSequence | None:
        if not self._make_room(len(prompt), slot=True):
            return None
        sequence = self._cache.create(tenant)
        self._cache.extend(sequence, len(prompt))
        return sequence

    def _copy(self, source: KvSequence, length: int) -> KvSequence | None:
        if not self._make_room(0, slot=True):
            return None
        copied = self._cache.copy(source, length)
        self._model.copy(source.slot, copied.slot, length)
        copied.tokens = source.tokens[:length]
        return copied

    def _restore_copy(self, source: KvSequence, room: int) -> KvSequence | None:
        saved = self._load(source)
        if saved is None or not self._make_room(max(room, len(source.tokens)), slot=True):
            return None
        self.make_context_room(len(source.tokens))
        copied = self._cache.create(source.tenant)
        copied.disk_allowed = source.disk_allowed
        if self._model.restore(copied.slot, saved, len(source.tokens)):
            self._cache.extend(copied, len(source.tokens))
            copied.tokens = list(source.tokens)
        return copied

    # --- sequences of turns ------------------------------------------------------------------------------------------

    def continue_from(self, sequence: KvSequence) -> None:
        """Note that a turn goes on from the end of a sequence; nothing behind it is retained any more."""
        self._retention.continue_from(sequence.key, len(sequence.tokens))

    def reserve(self, sequence: KvSequence, length: int) -> bool:
        """Give a sequence the cells for `length` tokens; False if there is no room."""
        missing = length - len(sequence.cells)
        if missing > 0:
            if not self._make_room(missing):
                return False
            self._cache.extend(sequence, missing)
        return True

    def restore(self, sequence: KvSequence, room: int) -> bool:
        """Bring a sequence back into the context; False if there is no room for it and for `room` tokens."""
        saved = self._load(sequence)
        if saved is None or not self._make_room(max(room, len(sequence.tokens)), slot=True):
            return False
        self.make_context_room(len(sequence.tokens))
        self._cache.restore(sequence, len(sequence.tokens))
        if self._disk is not None:
            self._disk.remove(sequence.key)
        sequence.saved = None
        if not self._model.restore(sequence.slot, saved, len(sequence.tokens)):
            self._cache.truncate(sequence, 0)
            sequence.tokens = []
        return True

    def rewind(self, sequence: KvSequence, length: int) -> None:
        """Forget what lies behind the first `length` tokens; all of them, if the model cannot forget a part."""
        if length < len(sequence.tokens) and not self._model.rewind(sequence.slot, length):
            self._model.clear(sequence.slot)
            length = 0
        del sequence.tokens[length:]
        self._cache.truncate(sequence, length)

    def discard(self, sequence: KvSequence) -> None:
        """Forget what was computed behind the tokens of a sequence: a draft that was wrong."""
        if sequence.key in self._cache:  # else the turn has ended, and left nothing
            self._model.rewind(sequence.slot, len(sequence.tokens))
            self._cache.truncate(sequence, len(sequence.tokens))

    def retain(self, sequence: KvSequence, response: ResponseKey, *, expiring: bool) -> None:
        """Leave a sequence to the response of the turn that ends; if `expiring`, for `idle_s` only."""
        self._cache.touch(sequence)
        length = len(sequence.tokens)
        retention = Retention(length, min(sequence.protected, length), sequence.disk_allowed)
        expires_at = self._clock() + self._file.idle_s if expiring else None
        self._retention.retain(sequence.key, response, retention, expires_at)
        self.trim([sequence.key])

    def trim(self, keys: Iterable[int]) -> None:
        """Cut what no response retains off sequences that no turn works on; an evicted one is dropped whole."""
        for sequence in [self._cache[key] for key in keys]:
            if sequence.pins:
                continue
            retained = self._retention.longest(sequence.key)
            sequence.protected = retained.protected
            if 0 < retained.length < len(sequence.tokens) and sequence.tier == "context":
                self.rewind(sequence, retained.length)
                sequence.disk_allowed = retained.disk_allowed
            if not sequence.tokens or len(sequence.tokens) > retained.length:
                self.drop(sequence)

    def drop(self, sequence: KvSequence) -> None:
        """Remove a sequence, in whatever tier it is."""
        if sequence.tier == "context":
            self._model.clear(sequence.slot)
        self._cache.drop(sequence)
        self._clean_up(sequence.key)

    # --- retention ---------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Drop what was only retained until now."""
        self.trim(self._retention.expire(self._clock()))

    def forget(self, responses: Sequence[ResponseKey]) -> None:
        """Drop what only these responses retain. What a turn works on stays until the turn ends."""
        self.trim(self._retention.forget(responses))

    def forget_tenant(self, tenant: str) -> None:
        """Drop what the responses of a tenant retain, as `forget` does."""
        self.forget(self._retention.of_tenant(tenant))

    def release(self, response: ResponseKey) -> None:
        """Let what a response retains expire: no client can continue it by its id."""
        self._retention.release(response, self._clock() + self._file.idle_s)

    # --- room --------------------------------------------------------------------------------------------------------

    def make_context_room(self, tokens: int) -> None:
        """Defragment the context if there is no room behind what is in it; some idle sequences are evicted then."""
        if tokens <= self._model.room:
            return
        self._make_room(self._model.cells // _FREE_FRACTION)
        placed = [one for one in self._cache if one.tier == "context"]
        self._model.defrag(plan_defrag((one.slot, one.cells[: len(one.tokens)]) for one in placed))
        self._counters.defrags += 1

    def evict(self, sequence: KvSequence) -> None:
        """Move a sequence to host memory, and what that has no room for further on."""
        if self._model.divisible and self._retention.drop_expiring_tail(sequence.key):
            self.trim([sequence.key])  # saved bytes cannot be cut later
        slot = sequence.slot
        worth_saving = self._file.host_bytes or self._disk is not None or sequence.pins
        if self._model.divisible:  # else nobody knows its size before
            room = len(sequence.tokens) * self._model.cell_bytes
            self._carry_out(self._cache.make_host_room(room, newer=sequence))
        saved = self._model.save(slot, 0, len(sequence.tokens)) if worth_saving and sequence.tokens else ()
        sequence.saved = saved
        self._model.clear(slot)
        self._counters.evictions += 1
        self._carry_out(self._cache.evict(sequence, max(1, sum(map(len, saved)))))

    def evict_idle(self, to: Literal["host", "disk"]) -> None:
        """Move every sequence that no turn works on out of the context, and for the disk out of host memory too."""
        for sequence in [one for one in self._cache if not one.pins]:
            if sequence.tier == "context":
                self.evict(sequence)
            if to == "disk" and sequence.tier == "host" and sequence.key in self._cache:  # an eviction may drop it
                self._carry_out(self._cache.demote(sequence))

    def reset(self) -> None:
        """Drop everything, after a failure that nothing here foresees."""
        for sequence in list(self._cache):
            self._clean_up(sequence.key)
        self._model.clear_all()
        self._cache = KvCache(self._budget)

    def close(self) -> None:
        """Remove the files of the disk tier."""
        if self._disk is not None:
            self._disk.close()

    def count(self) -> None:
        """Bring the counters up to date."""
        counters = self._counters
        counters.sequences = self._cache.tiers.copy()
        counters.context_tokens = self._model.cells - self._cache.free_cells
        counters.host_bytes, counters.disk_bytes = self._cache.host_bytes, self._cache.disk_bytes

    def _make_room(self, cells: int, *, slot: bool = False) -> bool:
        victims = self._cache.choose_victims(cells, slot=slot)
        if victims is None:
            return False
        for key in victims:
            self.evict(self._cache[key])
        return True

    def _load(self, sequence: KvSequence) -> Sequence[bytes] | None:
        """Return the saved bytes of a sequence that is not in the context; None if they are lost."""
        if sequence.saved is not None or self._disk is None:
            return sequence.saved
        saved = self._disk.read(sequence.key)
        if saved is None:
            sequence.tokens = []
            sequence.protected = 0
        return saved

    def _carry_out(self, evictions: Iterable[HostEviction]) -> None:
        for one in evictions:
            if one.to is None or one.key not in self._cache:  # a later one of these may have dropped it from disk
                self._clean_up(one.key)
                continue
            sequence = self._cache[one.key]
            if self._disk is not None and self._disk.write(one.key, sequence.saved or ()):
                sequence.saved = None
            else:
                self.drop(sequence)

    def _clean_up(self, key: int) -> None:
        self._retention.drop_sequence(key)
        if self._disk is not None:
            self._disk.remove(key)
