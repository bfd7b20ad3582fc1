"""What goes up of a WebSocket: streams of records, and large messages as documents in front of them or between them.

The writer puts them together and the reader takes them apart, whatever pieces they come in (docs/spec/tunnel.md,
"Messages as documents"). Both keep the end of what was sent, since each stream builds on that. Reading never raises.
Not here: which messages go as documents, how a document is rebuilt, and the answers to those with a base.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.tunnel.documents import is_wrapped, may_be_missed
from segue.tunnel.socket_opening import END_OF_OPENINGS, SocketOpening, encode_opening, read_opening
from segue.tunnel.stream_compression import SOCKET_WINDOW_LOG, StreamDecoder, StreamEncoder, StreamError
from segue.tunnel.websocket_records import Record, RecordError, RecordReader, encode_record

#: A stream builds on so many of the last bytes of the messages before it.
PREFIX_BYTES: Final = 256 * 1024
#: How much of a stream is expanded at once: it may be thousands of empty messages.
_EXPAND_BYTES: Final = 8 * 1024
#: How much of what came is given to the decoder of a stream at once.
_FEED_BYTES: Final = 4 * 1024
#: What a document may have beside the bytes of a message that does not compress.
DOCUMENT_OVERHEAD_BYTES: Final = 64 * 1024


class _SentTail:
    """The end of the payloads of all messages so far."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, payload: bytes) -> None:
        self._kept += payload[-PREFIX_BYTES:]
        if len(self._kept) > 2 * PREFIX_BYTES:  # not with each message: that would move all of it each time
            del self._kept[:-PREFIX_BYTES]

    @property
    def prefix(self) -> bytes:
        return bytes(self._kept[-PREFIX_BYTES:])


class SocketUploadWriter:
    """The sidecar's end. Send what the calls return, in their order."""

    def __init__(self) -> None:
        self._tail = _SentTail()
        self._encoder: StreamEncoder | None = None

    def document(self, message: WebSocketMessage, document: bytes) -> bytes:
        """Return a message as this document of it."""
        ended = b"" if self._encoder is None else self._encoder.finish()
        self._encoder = None
        self._tail.add(message.data)
        return ended + encode_opening(message.opcode, document)

    def document_again(self, message: WebSocketMessage, document: bytes) -> bytes:
        """Return the message that was sent last and missed, as a document without a base."""
        return encode_opening(message.opcode, document)

    def record(self, message: WebSocketMessage) -> bytes:
        """Return a message as a record of the stream, which begins with it if there is none."""
        begun, encoder = self._stream()
        encoded = encoder.feed(encode_record(message)) + encoder.flush()
        self._tail.add(message.data)
        return begun + encoded

    def close(self, close: WebSocketClose) -> bytes:
        """Return the close, behind which comes nothing."""
        begun, encoder = self._stream()
        return begun + encoder.feed(encode_record(close)) + encoder.finish()

    def size_alone(self, message: WebSocketMessage) -> int:
        """Return the size of the message as the first record of a stream: about what it takes without a document."""
        encoder = StreamEncoder(SOCKET_WINDOW_LOG, prefix=self._tail.prefix)
        return len(encoder.feed(encode_record(message))) + len(encoder.flush())

    def _stream(self) -> tuple[bytes, StreamEncoder]:
        begun = b""
        if self._encoder is None:
            begun, self._encoder = END_OF_OPENINGS, StreamEncoder(SOCKET_WINDOW_LOG, prefix=self._tail.prefix)
        return begun, self._encoder


class UploadRecords(msgspec.Struct, frozen=True):
    """The next messages of a stream; there may be none before more of it is read."""

    records: tuple[Record, ...]


UploadStep: TypeAlias = SocketOpening | UploadRecords | RecordError


class SocketUploadReader:
    """The gateway's end: feed what arrives, and read step by step until there is None.

    At an opening it waits: call `take_message` with what its document gave, or `drop_message` if that was missed.
    `limit`: the largest message in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._tail = _SentTail()
        self._decoder: StreamDecoder | None = None
        self._records = RecordReader(limit)
        self._awaits_document = False
        """A stream has ended, or a message was missed: what comes next is no stream."""
        self._missed = False

    @property
    def in_stream(self) -> bool:
        """What arrives is a stream, as far as was read."""
        return self._decoder is not None

    @property
    def held_bytes(self) -> int:
        """How many bytes were fed and not read."""
        return len(self._held)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._held += data

    def read(self) -> UploadStep | None:
        """Return what comes next, None if it is not whole; behind a `RecordError`, there is nothing to read."""
        if self._decoder is None:
            opening = read_opening(self._held, self._limit + DOCUMENT_OVERHEAD_BYTES)
            if opening is None or isinstance(opening, RecordError):
                return opening
            complaint = self._why_refused(opening.document)
            if complaint is not None:
                return RecordError(complaint)
            if opening.document is not None:
                return opening
            del self._held[: opening.end]
            self._decoder = StreamDecoder(SOCKET_WINDOW_LOG, prefix=self._tail.prefix)
        return self._read_stream(self._decoder)

    def take_message(self, opening: SocketOpening, payload: bytes) -> WebSocketMessage:
        """Go on behind the opening that was read, whose message has this payload."""
        self.drop_message(opening)
        self._awaits_document = self._missed = False
        self._tail.add(payload)
        return WebSocketMessage(opening.opcode, payload)

    def drop_message(self, opening: SocketOpening) -> None:
        """Go on behind the opening that was read: its message was missed, and comes again."""
        del self._held[: opening.end]
        self._awaits_document = self._missed = True

    def _why_refused(self, document: bytes | None) -> str | None:
        if document is None:
            return "a stream stands where a document must be" if self._awaits_document else None
        if is_wrapped(document):
            return "the document of a message is wrapped"
        return "a message that was missed needs a base again" if self._missed and may_be_missed(document) else None

    def _read_stream(self, decoder: StreamDecoder) -> UploadStep | None:
        data = self._expand(decoder)
        records = data if isinstance(data, StreamError) else self._records.feed(data)
        if isinstance(records, StreamError):
            return RecordError(records.reason)
        if isinstance(records, RecordError):
            return records
        for record in records:
            if isinstance(record, WebSocketMessage):
                self._tail.add(record.data)
        if decoder.eof:
            self._decoder, self._awaits_document = None, True
            if self._records.held_bytes:
                return RecordError("a stream ends within a record")
        return UploadRecords(tuple(records)) if data or decoder.eof else None

    def _expand(self, decoder: StreamDecoder) -> bytes | StreamError:
        """Return the next bytes of the stream, and take what they were made of.

        The decoder gets no more than it needs: what is behind a stream may be thousands of others.
        """
        fed = b""
        while True:
            data = decoder.read(_EXPAND_BYTES)
            behind = decoder.take_rest() if decoder.eof else b""
            if fed:
                del self._held[: len(fed) - len(behind)]
            else:
                self._held[:0] = behind
            if data or decoder.eof or not self._held:
                return data
            fed = bytes(self._held[:_FEED_BYTES])
            decoder.feed(fed)
