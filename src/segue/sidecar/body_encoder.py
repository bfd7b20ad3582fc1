"""Bodies of requests as documents for the tunnel, and finished exchanges as bases for later bodies.

Large bodies are compressed in threads, beside the event loop. Not here: which base suits a body
(`segue.sidecar.base_matcher`), where bases are kept (`segue.sidecar.base_cache`), and what a document looks like
(`segue.tunnel.documents`).
"""

from __future__ import annotations

import asyncio

import msgspec

from segue.http.content_coding import Unwrapped, unwrap
from segue.http.heads import RequestHead, values
from segue.sidecar.base_cache import BaseCache, BaseChoice
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Stats
from segue.tunnel.documents import Base, base_id_of, digest_of, encode_document

#: A body is compressed at once if it has, together with its base, no more than this: that takes 2 or 3 ms, and handing
#: it to a thread would add to them. Without a base there is a harder search, which takes as long for much less.
_AT_ONCE_BYTES = 384 * 1024
_AT_ONCE_ALONE_BYTES = 16 * 1024
#: A base is looked for at once if no more than this has to be gone through for it: of all bodies whose fingerprints are
#: missing, or of the body alone if it continues a recent one.
_SEARCH_BYTES = 256 * 1024
_NO_HEAD = RequestHead(b"", b"", ())
#: How many threads compress at once: each may need several times the memory of what it compresses.
_THREADS = 2


class EncodedBody(msgspec.Struct, frozen=True):
    """The body of a request, and its document."""

    plain: bytes
    """The body without its content coding: what is compared with other bodies."""
    sent: bytes | Unwrapped
    """What the gateway rebuilds; `Unwrapped` says how to apply the content coding again."""
    document: bytes
    base: Base | None
    """What the document is a delta against."""
    choice: BaseChoice | None = None
    """How that was found."""
    plain_id: bytes | None = None
    """The id that the plain body has as a base, if it is known."""


class BodyEncoder:
    """Encodes the bodies of one sidecar. It reads bases from the cache, and adds finished exchanges to it."""

    def __init__(self, cache: BaseCache, stats: Stats) -> None:
        self._cache = cache
        self._stats = stats
        self._threads = asyncio.Semaphore(_THREADS)
        self._adding: set[asyncio.Task[None]] = set()
        self._opened: dict[AgentExchange, EncodedBody] = {}
        """What is under way and has not left as a whole, as far as was looked."""

    async def aclose(self) -> None:
        """Wait until every recorded exchange is in the cache."""
        await asyncio.gather(*self._adding, return_exceptions=True)

    async def encode(self, head: RequestHead, body: bytes | None, *, folds_alike: bool = True) -> EncodedBody | None:
        """Encode a body against the best base; None for a request without a body.

        `folds_alike`: the gateway folds replies as this end does, so a document may cover them.
        """
        if body is None:
            return None
        sent = await _unwrapped(head, body)
        plain = sent.plain if isinstance(sent, Unwrapped) else sent
        await self._add_latest()
        choice = self._choose(plain)
        if choice is not None and _is_quick(plain, choice.base):
            return _encode(sent, choice, folds_alike=folds_alike)
        async with self._threads:
            if choice is not None:
                return await asyncio.to_thread(_encode, sent, choice, folds_alike=folds_alike)
            return await asyncio.to_thread(self._choose_and_encode, plain, sent, folds_alike=folds_alike)

    async def encode_message(self, data: bytes, *, folds_alike: bool) -> EncodedBody:
        """Encode the first large message of a WebSocket against the best base."""
        body = await self.encode(_NO_HEAD, data, folds_alike=folds_alike)
        assert body is not None, "there is a body"
        return body

    async def encode_repeated(self, data: bytes, news: bytes, *, folds_alike: bool) -> EncodedBody | None:
        """Encode a later message against the base that has most of its news; None if none has half of them."""
        await self._add_latest()
        if len(news) + self._cache.unsearched_bytes <= _SEARCH_BYTES:
            choice = self._cache.choose(news)
        else:
            async with self._threads:
                choice = await asyncio.to_thread(self._cache.choose, news)
        if choice.base is None or choice.match is None or 2 * choice.match.shared_bytes < len(news):
            return None
        covered = None if folds_alike else 0
        if _is_quick(data, choice.base):
            document = encode_document(data, choice.base, covered)
        else:
            async with self._threads:
                document = await asyncio.to_thread(encode_document, data, choice.base, covered)
        return EncodedBody(data, data, document, choice.base)

    async def encode_without_base(self, body: EncodedBody, epoch: bytes) -> bytes:
        """Return a document without a base, and drop the base, which the node of this epoch does not have."""
        if body.base is not None:
            self._cache.discard(body.base.id, epoch)
        as_sent = body.sent.sent if isinstance(body.sent, Unwrapped) else body.sent
        async with self._threads:
            return await asyncio.to_thread(encode_document, as_sent)

    def note_opened(self, exchange: AgentExchange, body: EncodedBody) -> None:
        """Let the body be a base as soon as it has left: documents are rebuilt in the order in which they are whole."""
        self._opened[exchange] = body

    async def _add_latest(self) -> None:
        """Let the cache have all that can be a base now."""
        if self._adding:
            await asyncio.gather(*self._adding)
        self._add_bodies()

    def _add_bodies(self) -> None:
        for exchange, body in tuple(self._opened.items()):
            if exchange.session.is_complete(exchange):
                del self._opened[exchange]
                self._cache.add_body(Base(body.plain, body_id=body.plain_id), exchange.session.epoch, body.choice)

    def record(self, exchange: AgentExchange, body: EncodedBody | None, folded: bytes) -> None:
        """Keep what both ends have of a finished exchange as a base. `folded`: the fold of what the agent was sent."""
        self._opened.pop(exchange, None)
        if exchange.head is None or body is None:
            return
        if exchange.base_missed or body.base is None:
            self._stats.without_base += 1
        else:
            self._stats.base_hits += 1
        self._add(Base(body.plain, folded, body_id=body.plain_id), exchange, body.choice)

    def record_socket(self, exchange: AgentExchange, base: Base | None) -> None:
        """Keep what both ends have of a WebSocket as a base."""
        if base is not None:
            self._add(base, exchange, None)

    def _add(self, base: Base, exchange: AgentExchange, choice: BaseChoice | None) -> None:
        epoch = exchange.session.epoch
        if self._cache.unsearched_bytes <= _SEARCH_BYTES:
            self._cache.add(base, epoch, choice)
            return
        adding = asyncio.to_thread(self._cache.add, base, epoch, choice)
        task = asyncio.get_running_loop().create_task(adding)
        self._adding.add(task)  # the next body waits for it
        task.add_done_callback(self._adding.discard)

    def _choose(self, plain: bytes) -> BaseChoice | None:
        """Choose a base, if the event loop can wait for that."""
        if len(plain) + self._cache.unsearched_bytes <= _SEARCH_BYTES:
            return self._cache.choose(plain)
        return self._cache.choose_continued(plain) if len(plain) <= _SEARCH_BYTES else None

    def _choose_and_encode(self, plain: bytes, sent: bytes | Unwrapped, *, folds_alike: bool) -> EncodedBody:
        return _encode(sent, self._cache.choose(plain), folds_alike=folds_alike)


async def _unwrapped(head: RequestHead, body: bytes) -> bytes | Unwrapped:
    """Remove the content coding of a body, if the gateway can provably apply it again."""
    codings = values(head.lines, b"content-encoding")
    if not body or not codings:
        return body
    return await asyncio.to_thread(unwrap, body, b", ".join(codings)) or body


def _is_quick(plain: bytes, base: Base | None) -> bool:
    """Tell whether a body is compressed so soon that the event loop can wait for it."""
    return len(plain) <= _AT_ONCE_ALONE_BYTES if base is None else base.size + len(plain) <= _AT_ONCE_BYTES


def _encode(sent: bytes | Unwrapped, choice: BaseChoice, *, folds_alike: bool) -> EncodedBody:
    plain = choice.sampled.body
    digest = digest_of(sent.sent if isinstance(sent, Unwrapped) else sent)
    document = encode_document(sent, choice.base, None if folds_alike else 0, digest=digest)
    plain_id = None if isinstance(sent, Unwrapped) else base_id_of(digest)
    return EncodedBody(plain, sent, document, choice.base, choice, plain_id)
