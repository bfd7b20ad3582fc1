"""Benchmark: the CPU time that the tunnel's codec takes for a request with a good base, and the size of the document.

The body repeats the base's body, then has what the model answered, then 3 KB of news. Times are CPU times of the codec
alone, on the thread that runs it. Not here: the path through sockets (`table`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from segue.bench.reports.report import Figure, figure
from segue.bench.workloads.prose import ProseWriter
from segue.testing.replies import compact
from segue.tunnel.documents import Base, Body, decode_document, encode_document

KB = 1000
MB = 1000 * KB

ROUNDS = 9
NEWS_BYTES = 3 * KB
WIRE_BUDGET_KB = 10.0
_OUTPUT_BYTES = 20 * KB
_REPLY_BYTES = 2 * KB

T = TypeVar("T")


class BodySize(msgspec.Struct, frozen=True):
    """A size of bodies, and the budget of CPU time for encoding or decoding one."""

    megabytes: int
    budget_ms: float


SIZES = (BodySize(1, 5.0), BodySize(20, 50.0))


class WrongBodyError(RuntimeError):
    """Decoding a document did not give the body that was encoded."""


def measure_documents(sizes: Sequence[BodySize] = SIZES, rounds: int = ROUNDS) -> list[Figure]:
    """Measure each size; one more figure is the size of the largest document."""
    figures: list[Figure] = []
    largest = 0
    for size in sizes:
        base, body = make_bodies(size.megabytes * MB)
        times_ms: dict[str, list[float]] = {"encode": [], "decode": []}
        for _ in range(rounds):
            document, encoded_ms = _timed(partial(encode_document, body, base))
            again, decoded_ms = _timed(partial(decode_document, document, {base.id: base}.get))
            if not isinstance(again, Body) or again.sent != body:
                raise WrongBodyError(f"a document of {size.megabytes} MB gave another body")
            times_ms["encode"].append(encoded_ms)
            times_ms["decode"].append(decoded_ms)
            largest = max(largest, len(document))
        figures += [
            figure(f"CPU to {what} {size.megabytes} MB", ms, "ms", size.budget_ms) for what, ms in times_ms.items()
        ]
    news = f"document of {NEWS_BYTES // KB} KB of news, the largest"
    return [*figures, figure(news, [largest / KB], "KB", WIRE_BUDGET_KB)]


def make_bodies(size: int) -> tuple[Base, bytes]:
    """Make a base whose body has about so many bytes, and the body of the request after it."""
    writer = ProseWriter("documents")
    messages = [{"role": "system", "content": writer.prompt(_OUTPUT_BYTES)}]
    messages += [_returned(writer.tool_output(_OUTPUT_BYTES)) for _ in range(size // _OUTPUT_BYTES - 1)]
    said = {"role": "assistant", "content": writer.prompt(_REPLY_BYTES)}
    before = _request(messages)
    after = _request([*messages, said, _returned(writer.source(NEWS_BYTES))])
    return Base(before, msgspec.json.encode(said)), after


def _returned(text: str) -> dict[str, str]:
    return {"role": "tool", "content": text}


def _request(messages: Sequence[dict[str, str]]) -> bytes:
    return compact({"model": "any", "stream": True, "messages": list(messages)}).encode()


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begun_at = time.thread_time()
    done = work()
    return done, 1e3 * (time.thread_time() - begun_at)
