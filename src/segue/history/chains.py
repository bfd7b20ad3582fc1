"""Chains: immutable turns, each pointing at the one it continues.

A turn holds only its own items, so continuing or forking costs O(new items) in time and memory at any depth, and two
branches share their prefix by pointing at the same turn. Items are raw JSON bytes. To read a whole history, walk up to
the root and join. Where a history was compacted, a model sees less of it than is kept: `path` and `History` go up to
there, `lineage` to the root. Not here: which turns stay in memory, and for how long (`cache`), and what a compaction
leaves (`compaction`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from segue.protocol.ids import ResponseId
from segue.protocol.items import Item, answered_by, calls_of, key_of
from segue.protocol.requests import ThreadContext

#: What a turn and an item cost in memory beside the item's bytes: objects, ids, table entries. Rounded up from what
#: tracemalloc shows on CPython 3.11: 0.87 to 1.1 KB and 41 bytes.
TURN_OVERHEAD_BYTES = 1152
ITEM_OVERHEAD_BYTES = 64
_POINTER_BYTES = 8


class NativeTurn(msgspec.Struct, frozen=True):
    """The input and output of a turn as they were said in another API (`dialect`), whose words items may lack.

    `messages` are the elements of that API's list, with a comma between two.
    """

    dialect: str
    messages: bytes

    def pack(self) -> bytes:
        """Return it as one text, for a store."""
        return b"%b\n%b" % (self.dialect.encode(), self.messages)


def unpack_native(text: bytes | None) -> NativeTurn | None:
    """Return what `NativeTurn.pack` has packed."""
    if text is None:
        return None
    dialect, _, messages = text.partition(b"\n")
    return NativeTurn(dialect.decode(), messages)


class Turn:
    """One finished turn: the items it added to the conversation, and the turn before it.

    `calls` are the ids of the tool calls among its items, `answered` those of the calls whose output is in its input
    (None: they are read from it when they are asked for). `stored` is true if a record of it is in the store;
    `expires_at` is when that record expires (unix seconds). A message of a thread has the context of its `thread`, and
    may be there in its API's words too (`native`); it is `continued` once there is a next one. If an item of the turn
    stands for the history before it, `compacted` is what a model sees in place of the turn and of all before it.
    `updates` are the items of the chain to its end that change settings.
    """

    __slots__ = (
        *(
            "calls",
            "compacted",
            "continued",
            "depth",
            "expires_at",
            "id",
            "input",
            "native",
            "output",
            "parent",
            "references",
        ),
        *("size_bytes", "stored", "thread", "updates"),
        *("_answered", "_item_ids"),
        "__weakref__",  # so that a cache beside the history does not keep it alive
    )

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        *,
        id: ResponseId,  # noqa: A002 - the wire's own word
        parent: Turn | None,
        input: tuple[Item, ...],  # noqa: A002 - the wire's own word
        output: tuple[Item, ...],
        calls: frozenset[str],
        stored: bool,
        answered: frozenset[str] | None = None,
        expires_at: float | None = None,
        native: NativeTurn | None = None,
        thread: ThreadContext | None = None,
    ) -> None:
        self._answered = answered
        self._item_ids: frozenset[str] | None = None
        self.id = id
        self.parent = parent
        self.input = input
        self.output = output
        self.calls = calls
        self.stored = stored
        self.expires_at = expires_at
        self.native = native
        self.thread = thread
        self.continued = False
        self.compacted: CompactedTurn | None = None
        self.updates: tuple[Item, ...] = ()
        self.depth: int = 1 if parent is None else parent.depth + 1
        items = len(input) + len(output)
        content = sum(map(len, input)) + sum(map(len, output))
        content += 0 if native is None else len(native.messages)
        if thread is not None and (parent is None or parent.thread is not thread):
            content += thread.size_bytes
        self.size_bytes = TURN_OVERHEAD_BYTES + ITEM_OVERHEAD_BYTES * items + content
        self.references = 0  # owned by the cache: how many entries and children keep this turn in memory

    def __repr__(self) -> str:
        return f"Turn({self.id!r}, depth={self.depth})"

    def stand_in(self, compacted: CompactedTurn) -> None:
        """Note what a model sees in place of the turn. No cache may have the turn yet, since this changes its size."""
        assert self.compacted is None, "a turn is compacted once"
        assert self.references == 0, "a cache counts with its size"
        self.compacted = compacted
        self.size_bytes += TURN_OVERHEAD_BYTES + compacted.added_bytes

    def note_updates(self, updates: tuple[Item, ...]) -> None:
        """Note the items of the chain to its end that change settings. They count unless they are its parent's."""
        assert self.references == 0, "a cache counts with its size"
        self.updates = updates
        if updates and (self.parent is None or self.parent.updates is not updates):
            self.size_bytes += _POINTER_BYTES * len(updates) + sum(map(len, updates))

    @property
    def answered(self) -> frozenset[str]:
        """The ids of the calls whose output is in its input."""
        if self._answered is None:
            self._answered = answered_by(self.input)
        return self._answered

    @property
    def item_ids(self) -> frozenset[str]:
        """The ids of its items. They are seldom asked for, and read when they are."""
        if self._item_ids is None:
            ids = (key_of(item).id for item in (*self.input, *self.output))
            self._item_ids = frozenset(ident for ident in ids if ident is not None)
        return self._item_ids


class CompactedTurn(Turn):
    """What a model sees in place of a turn and of all turns before it: it has the id of the turn, and no parent.

    Its input begins with the messages that are `retained` as they were and the summary of everything else.
    """

    __slots__ = ("retained",)

    def __init__(
        self,
        turn: Turn,
        *,
        retained: tuple[Item, ...],
        summary: Item,
        input: tuple[Item, ...],  # noqa: A002 - the wire's own word
        output: tuple[Item, ...],
    ) -> None:
        super().__init__(
            id=turn.id,
            parent=None,
            input=(*retained, summary, *input),
            output=output,
            calls=calls_of((*input, *output)),
            stored=turn.stored,
        )
        self.retained = retained

    @property
    def added_bytes(self) -> int:
        """What it holds in memory beside the items that its chain holds anyway."""
        return ITEM_OVERHEAD_BYTES * (len(self.input) + len(self.output)) + len(self.input[len(self.retained)])

    @property
    def since(self) -> tuple[Item, ...]:
        """The input that came after the summary."""
        return self.input[len(self.retained) + 1 :]


class History:
    """The history that a new turn sees: the chain of its parent, then its own input. It copies nothing."""

    __slots__ = ("input", "parent")

    def __init__(self, parent: Turn | None, input: tuple[Item, ...]) -> None:  # noqa: A002 - the wire's own word
        self.parent = parent
        self.input = input

    def items(self) -> Iterator[Item]:
        """Yield every item that a model sees, oldest first: input and output of each turn, then the new input."""
        for turn in path(self.parent):
            yield from turn.input
            yield from turn.output
        yield from self.input

    def find_orphan(self, answers: Sequence[tuple[str, int]]) -> tuple[str, int] | None:
        """Return the first of the `(call_id, index)` whose tool call the chain did not make, or None.

        It looks at the newest turn first, and rarely needs to look further; it looks at no turn twice, however many
        answers there are.
        """
        wanted = {call_id for call_id, _ in answers}
        turn = self.parent
        while turn is not None and wanted:
            seen = turn.compacted or turn
            wanted.difference_update(seen.calls)
            turn = seen.parent
        return next((answer for answer in answers if answer[0] in wanted), None)


def newest_first(turn: Turn | None) -> Iterator[Turn]:
    """Yield the turns of a chain that a model sees, from `turn` back to its root, or to where it was compacted."""
    while turn is not None:
        seen = turn.compacted or turn
        yield seen
        turn = seen.parent


def path(turn: Turn | None) -> list[Turn]:
    """Return the turns of a chain that a model sees up to `turn`: from its root, or from where it was compacted."""
    turns = list(newest_first(turn))
    turns.reverse()
    return turns


def lineage(turn: Turn | None) -> list[Turn]:
    """Return all turns of a chain from its root to `turn`, whatever a model sees of them."""
    turns: list[Turn] = []
    while turn is not None:
        turns.append(turn)
        turn = turn.parent
    turns.reverse()
    return turns
