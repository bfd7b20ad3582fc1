"""A conversation as one JSON file: it leaves one gateway with it, and goes on at another one. Pure.

The file has the turns from the first to the last: of each its items, byte for byte, the head of its response object,
and the number of its settings, of which each distinct value is there once. A turn of a message thread is there in the
words of its API too, and what the thread keeps is part of its settings. A turn that was deleted and is still needed
is part of the one behind it: its id is gone for good. The file of a conversation of the Conversations API names it, and
has the items behind its last response. What is read is checked as a request is. Not here: the format in words
(docs/spec/conversation.md), and where turns are kept (`stores`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from segue.history.chains import NativeTurn
from segue.history.records import ChainLink, Record, encode_head, join_natives
from segue.protocol.codec import decode, decode_value, encode
from segue.protocol.ids import ConversationId, ResponseId, chain_tag, parse_conversation_id, parse_response_id
from segue.protocol.items import Input, Item, join, parse_input
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits, refuse_size
from segue.protocol.requests import Metadata
from segue.protocol.responses import ResponseObjectHead, parse_echo

FORMAT = "segue.conversation"
VERSION = 1
#: The version of a file that names a conversation: a reader that does not know of it would lose what it has more.
NAMED_VERSION = 2

#: A warning of a dialect is a sentence.
_MAX_WARNINGS = 1000


class _FileNative(msgspec.Struct):
    dialect: Annotated[str, Meta(pattern=r"^[a-z]{1,16}\Z")]
    messages: Raw


class _FileTurn(msgspec.Struct):
    response: ResponseObjectHead
    settings: int
    input: Raw
    output: Raw
    native: _FileNative | None = None


class _FileHead(msgspec.Struct):
    format: Literal["segue.conversation"]
    version: int


class _FileConversation(msgspec.Struct):
    id: str
    created_at: int
    metadata: Metadata
    items: Raw


class _File(msgspec.Struct):
    settings: list[Raw]
    turns: list[_FileTurn]
    conversation: _FileConversation | None = None


class NamedConversation(msgspec.Struct, frozen=True):
    """The conversation of a file: `items` are those behind its last turn, `metadata` is a JSON object."""

    id: ConversationId
    created_at: float
    metadata: bytes
    items: Input


class ReadFile(msgspec.Struct, frozen=True):
    """What is in a file: the records of its turns, the parent before its child, and its conversation if it names one.

    It has one or the other, or both.
    """

    turns: tuple[Record, ...]
    conversation: NamedConversation | None = None

    def items(self) -> list[Item]:
        """Return all items, in their order."""
        items = [item for turn in self.turns for item in (*turn.input, *turn.output)]
        return items if self.conversation is None else [*items, *self.conversation.items.items]


class Imported(msgspec.Struct, frozen=True):
    """Who imports a file, and until when what it holds is kept. Times are unix seconds."""

    tenant: str
    now: float
    expires_at: float


_file_heads = msgspec.json.Decoder(_FileHead)
_files = msgspec.json.Decoder(_File)
_lists = msgspec.json.Decoder(list[dict[str, Raw]])


def living(links: Sequence[ChainLink], records: Mapping[ResponseId, Record]) -> list[Record]:
    """Return the records of a chain. The items of turns that were deleted go to the next that has a record."""
    kept: list[Record] = []
    dead: list[ChainLink] = []
    for link in links:
        record = records.get(link.id)
        if record is None:
            dead.append(link)
            continue
        kept.append(_with_dead(record, dead, kept[-1].id if kept else None))
        dead = []
    return kept


def _with_dead(record: Record, dead: Sequence[ChainLink], parent_id: ResponseId | None) -> Record:
    """Return a record that begins with the items of deleted turns before it."""
    before = [item for link in dead for item in (*link.input, *link.output)]
    return msgspec.structs.replace(
        record,
        parent_id=parent_id,
        input=(*before, *record.input),
        calls=record.calls.union(*(link.calls for link in dead)),
        native=join_natives([*(link.native for link in dead), record.native]),
    )


def items_behind(links: Sequence[ChainLink], records: Mapping[ResponseId, Record]) -> tuple[Item, ...]:
    """Return the items of a chain behind the last turn that has a record."""
    places = [place for place, link in enumerate(links) if link.id in records]
    behind = links[places[-1] + 1 :] if places else links
    return tuple(item for link in behind for item in (*link.input, *link.output))


def write_conversation(
    records: Sequence[Record], exported_at: float, conversation: NamedConversation | None = None
) -> bytes:
    """Write the file of a conversation, whose turns are the records from the first to the last."""
    last = records[-1].id if conversation is None else conversation.id
    numbers: dict[bytes, int] = {}
    turns = []
    for record in records:
        number = numbers.setdefault(record.echo, len(numbers))
        fields = (record.head, number, join(record.input), join(record.output), _write_native(record.native))
        turns.append(b'{"response":%b,"settings":%d,"input":%b,"output":%b%b}' % fields)
    return b"".join(
        (
            b'{"format":"%b","version":%d,' % (FORMAT.encode(), NAMED_VERSION if conversation else VERSION),
            b'"exported_at":%d,"id":%b,' % (exported_at, encode(last)),
            b"" if conversation is None else _write_named(conversation),
            b'"settings":[',
            b",".join(numbers),
            b'],"turns":[\n',
            b",\n".join(turns),
            b"\n]}\n",
        )
    )


def _write_named(conversation: NamedConversation) -> bytes:
    fields = (encode(conversation.id), conversation.created_at, conversation.metadata, join(conversation.items.items))
    return b'"conversation":{"id":%b,"created_at":%d,"metadata":%b,"items":%b},\n' % fields


def _write_native(native: NativeTurn | None) -> bytes:
    if native is None:
        return b""
    return b',"native":{"dialect":%b,"messages":[%b]}' % (encode(native.dialect), native.messages)


def _read_native(native: _FileNative | None, where: str) -> NativeTurn | Problem | None:
    """Read a turn in another API's words: a list of objects, whose bytes are kept."""
    if native is None:
        return None
    found = decode(native.messages, _lists, where)
    if isinstance(found, Problem):
        return found
    value = decode_value(native.messages, where)
    return value if isinstance(value, Problem) else NativeTurn(native.dialect, bytes(native.messages).strip()[1:-1])


def read_conversation(data: bytes, importer: Imported, limits: RequestLimits) -> ReadFile | Problem:
    """Read a file; it is whatever somebody sent."""
    problem = refuse_size(data, limits)
    if problem is not None:
        return problem
    head = decode(data, _file_heads)
    if isinstance(head, Problem):
        return head
    if head.version not in {VERSION, NAMED_VERSION}:
        return _invalid("version", f"this gateway reads versions {VERSION} and {NAMED_VERSION} of the format")
    file = decode(data, _files)
    if isinstance(file, Problem):
        return file
    if not file.turns and file.conversation is None:
        return _invalid("turns", "there is none")
    return _FileReader(importer, limits).read(file)


class _FileReader:
    """Reads the turns of one file."""

    def __init__(self, importer: Imported, limits: RequestLimits) -> None:
        self._importer = importer
        self._limits = limits
        self._echoes: list[bytes] = []
        self._records: dict[ResponseId, Record] = {}
        self._calls: set[str] = set()
        self._items = 0

    def read(self, file: _File) -> ReadFile | Problem:
        for number, raw in enumerate(file.settings):
            echo = parse_echo(raw, f"settings[{number}]")
            if isinstance(echo, Problem):
                return echo
            self._echoes.append(echo)
        for number, turn in enumerate(file.turns):
            problem = self._add(turn, f"turns[{number}]")
            if problem is not None:
                return problem
        named = None if file.conversation is None else self._named(file.conversation)
        return named if isinstance(named, Problem) else ReadFile(tuple(self._records.values()), named)

    def _named(self, named: _FileConversation) -> NamedConversation | Problem:
        """Read the conversation that the turns belong to, and the items behind them."""
        ident, tip = parse_conversation_id(named.id), next(reversed(self._records), None)
        if ident is None or chain_tag(ident) != chain_tag(tip or ident):
            return _invalid("conversation.id", "it must be the id of the conversation of this chain")
        items = self._items_of(named.items, "conversation.items")
        if isinstance(items, Problem):
            return items
        if self._has_orphan(items):
            return _invalid("conversation.items", "it has the output of a tool call that was not made before")
        if self._items + len(items.items) > self._limits.items:
            return _invalid("conversation.items", f"a file may have {self._limits.items} items")
        created_at = min(float(named.created_at), self._importer.now)
        return NamedConversation(ident, created_at, encode(named.metadata), items)

    def _has_orphan(self, given: Input) -> bool:
        return any(call_id not in self._calls for call_id, _ in given.answers)

    def _add(self, turn: _FileTurn, where: str) -> Problem | None:
        """Add the record of the next turn, or say what is wrong with it."""
        ident = parse_response_id(turn.response.id)
        problem = self._refuse(turn, ident, where)
        if problem is not None or ident is None:
            return problem
        contents = self._contents(turn, where)
        if isinstance(contents, Problem):
            return contents
        given, output, native = contents
        self._items += len(given.items) + len(output.items)
        if self._items > self._limits.items:
            return _invalid(where, f"a file may have {self._limits.items} items")
        if self._has_orphan(given):
            return _invalid(f"{where}.input", "it has the output of a tool call that was not made before")
        calls = given.calls | output.calls
        self._calls |= calls
        record = self._record(ident, turn, given.items, output.items, calls=calls)
        self._records[ident] = msgspec.structs.replace(record, native=native)
        return None

    def _refuse(self, turn: _FileTurn, ident: ResponseId | None, where: str) -> Problem | None:
        head, first = turn.response, next(iter(self._records), None)
        if ident is None or ident in self._records or chain_tag(ident) != chain_tag(first or ident):
            return _invalid(f"{where}.response.id", "it must be an id of this chain, and no other turn may have it")
        if head.status not in {"completed", "incomplete"} or head.error is not None:
            return _invalid(f"{where}.response.status", "only a turn that is completed or incomplete can be continued")
        previous = head.previous_response_id
        named = head.conversation
        foreign = named is not msgspec.UNSET and parse_conversation_id(named.id) is None
        if (previous is not None and parse_response_id(previous) is None) or head.object != "response" or foreign:
            return _invalid(f"{where}.response", "it is not the head of a response object")
        if head.warnings and len(head.warnings) > _MAX_WARNINGS:
            return _invalid(f"{where}.response.warnings", "there are too many")
        if not 0 <= turn.settings < len(self._echoes):
            return _invalid(f"{where}.settings", "it must be the place of an entry in 'settings'")
        return None

    def _contents(self, turn: _FileTurn, where: str) -> tuple[Input, Input, NativeTurn | None] | Problem:
        """Return the input and the output of a turn, and both in another API's words."""
        given, output = self._items_of(turn.input, f"{where}.input"), self._items_of(turn.output, f"{where}.output")
        if isinstance(given, Problem):
            return given
        if isinstance(output, Problem):
            return output
        native = _read_native(turn.native, f"{where}.native.messages")
        return native if isinstance(native, Problem) else (given, output, native)

    def _items_of(self, raw: Raw, where: str) -> Input | Problem:
        """Read a list of items as that of a request, in which nothing stands for anything else."""
        found = parse_input(raw, self._limits)
        if isinstance(found, Problem):
            return msgspec.structs.replace(found, message=f"In '{where}': {found.message}", param=where)
        if found.references or not bytes(raw).lstrip().startswith(b"["):
            return _invalid(where, "it must be a list of items, without references to others")
        return found

    def _record(
        self,
        ident: ResponseId,
        turn: _FileTurn,
        given: tuple[bytes, ...],
        output: tuple[bytes, ...],
        *,
        calls: frozenset[str],
    ) -> Record:
        importer = self._importer
        return Record(
            tenant=importer.tenant,
            id=ident,
            parent_id=next(reversed(self._records), None),
            created_at=min(float(turn.response.created_at), importer.now),
            expires_at=importer.expires_at,
            head=encode_head(turn.response),
            echo=self._echoes[turn.settings],
            input=given,
            output=output,
            calls=calls,
        )


def _invalid(param: str, reason: str) -> Problem:
    return Problem("invalid_value", f"Invalid value for '{param}': {reason}.", param)
