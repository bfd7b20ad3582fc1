"""The words of segue: what each means, what others call it, and where it lives in the code.

Not here: words of the Responses API and of HTTP, which keep the meaning that their own specifications give them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tools.markdown import code, table

SOURCE = Path(__file__).resolve().parents[1] / "src" / "segue"


class Word(NamedTuple):
    """One row of the glossary."""

    word: str
    meaning: str
    elsewhere: str
    place: str
    """A module or package below src/segue."""


WORDS = (
    Word(
        "item",
        "one unit of input or output: a message, a call, its output",
        "message, content block, event",
        "protocol/items.py",
    ),
    Word(
        "turn",
        "one request to a model, until its terminal event",
        "response cycle, completion, run step",
        "gateway/turns/executor.py",
    ),
    Word(
        "door",
        "one API in which clients ask for turns: Responses, Messages, Chat Completions",
        "frontend, ingress adapter, inbound format",
        "dialects/doors.py",
    ),
    Word("chain", "responses linked by `previous_response_id`", "thread, conversation", "history/chains.py"),
    Word(
        "history", "the ordered items that a chain stands for", "context, transcript, message list", "history/chains.py"
    ),
    Word(
        "replay",
        "a request that sends the whole history again",
        "stateless request, full resend",
        "protocol/requests.py",
    ),
    Word(
        "delta",
        "a request that sends only what is new",
        "incremental input; in the tunnel: binary diff, patch",
        "tunnel/documents.py",
    ),
    Word(
        "lane",
        "one `stream_id` on a connection; turns in a lane run one after the other",
        "stream, channel",
        "protocol/lanes.py",
    ),
    Word(
        "session",
        "the state of one WebSocket connection, of one sidecar's tunnel over all its links, "
        "or of one conversation of the client library",
        "connection state",
        "protocol/session.py",
    ),
    Word("record", "the durable form of a response", "row, document, snapshot", "history/records.py"),
    Word("store", "where records are kept", "database, persistence backend", "stores/interface.py"),
    Word(
        "dialect",
        "pure translation of one provider API",
        "adapter, transformer, provider format",
        "dialects/interface.py",
    ),
    Word(
        "upstream",
        "a model server that runs turns, or the local model",
        "provider, backend, deployment",
        "upstreams/interface.py",
    ),
    Word("executor", "runs a turn for any transport", "handler, orchestrator", "gateway/turns/executor.py"),
    Word(
        "background response",
        "a turn that runs apart from the connection that asked for it",
        "async job, detached run",
        "gateway/turns/background.py",
    ),
    Word(
        "grace period",
        "how long an unstored turn outlives its connection",
        "session linger, reconnect window",
        "gateway/turns/grace_period.py",
    ),
    Word("eviction", "taking from memory what need not be kept", "cache eviction, expiry", "history/cache.py"),
    Word(
        "exchange",
        "one HTTP request and its response, or one WebSocket, in the tunnel",
        "stream (HTTP/2, QUIC)",
        "tunnel/endpoint.py",
    ),
    Word(
        "document", "a request body as it travels up the tunnel", "compressed body, delta frame", "tunnel/documents.py"
    ),
    Word(
        "base",
        "a body and folded reply, or the messages of a WebSocket, that both ends hold and a document refers to",
        "dictionary, reference, prefix (zstd)",
        "tunnel/documents.py",
    ),
    Word(
        "fold",
        "what of a reply the next request will repeat, as bytes",
        "stream accumulator, aggregator",
        "tunnel/folds/fold.py",
    ),
    Word(
        "header table",
        "header lines that both ends have seen, referred to by number",
        "dynamic table (HPACK, QPACK)",
        "tunnel/header_table.py",
    ),
    Word(
        "static table",
        "header lines that both ends know from the start",
        "static table (HPACK, QPACK)",
        "tunnel/static_table.py",
    ),
    Word(
        "compact event",
        "an event of a lean stream as a short array",
        "binary or columnar encoding",
        "protocol/compact_events.py",
    ),
    Word(
        "lean stream",
        "the events of a turn without what its client knows or gets again",
        "sparse or minimal response",
        "protocol/lean_stream.py",
    ),
    Word(
        "link",
        "one connection of the tunnel; a session goes on over the next",
        "connection, path (QUIC)",
        "tunnel/link.py",
    ),
    Word(
        "epoch",
        "one life of a gateway process: what it holds ends with it",
        "generation, incarnation, boot id",
        "tunnel/frames.py",
    ),
    Word(
        "orphaned exchange",
        "an exchange whose agent has hung up while the link was away",
        "dangling request",
        "sidecar/orphaned_exchanges.py",
    ),
    Word("egress", "the one way out of the tunnel to a provider", "forwarder, origin connection", "egress/client.py"),
    Word("sequence", "the computed state of one conversation's tokens", "KV cache entry, slot", "engine/kv/cache.py"),
    Word(
        "prefix match",
        "which computed state a prompt can start from",
        "prefix caching, radix lookup",
        "engine/kv/prefix_match.py",
    ),
    Word(
        "preemption",
        "a running turn gives its place in the context to others and goes on later",
        "preemption by swapping (vLLM)",
        "engine/worker.py",
    ),
    Word(
        "retention",
        "which tokens of a sequence are worth keeping for which response",
        "reference counting, pinning",
        "engine/kv/retention.py",
    ),
    Word("disk tier", "evicted state in files", "KV offloading, spilling", "engine/kv/disk_tier.py"),
    Word("effect", "what a pure core asks its shell to do", "action, command, side effect", "protocol/session.py"),
    Word(
        "gateway",
        "the server: it keeps histories, runs turns, and forwards requests of sidecars",
        "proxy, LLM gateway",
        "gateway/app.py",
    ),
    Word(
        "sidecar",
        "the program beside an agent that sends a gateway only what is new",
        "local proxy",
        "sidecar/app.py",
    ),
    Word("tunnel", "what connects a sidecar and a gateway, over one link after another", "transport", "tunnel"),
    Word(
        "route",
        "to which provider the gateway forwards the requests of sidecars whose path begins alike",
        "location, upstream mapping",
        "http/routes.py",
    ),
    Word(
        "stored response",
        "a response in the store (`store: true`), found by its id from anywhere",
        "persisted response",
        "history/records.py",
    ),
    Word(
        "kept turn",
        "a turn that runs apart from connections, and whose events can be read again",
        "resumable stream",
        "protocol/event_log.py",
    ),
    Word("fork", "a turn that continues a response beside another turn that does", "branch", "protocol/lanes.py"),
    Word(
        "idempotency key",
        "a name that a client gives a request, so that a repeat gets the same response",
        "request id, deduplication key",
        "gateway/turns/background.py",
    ),
    Word(
        "message thread",
        "a conversation of the Messages API of which the client sends only what is new",
        "session",
        "gateway/turns/threads.py",
    ),
    Word(
        "compaction",
        "a sealed summary in place of what the model has said and done",
        "summarisation, context compression",
        "history/compaction.py",
    ),
    Word(
        "prefill",
        "computing the state of a prompt's tokens, before the first token of the answer",
        "prompt processing",
        "engine/scheduler.py",
    ),
    Word(
        "KV cache",
        "what a model has computed of the tokens of a conversation",
        "prompt state, context memory",
        "engine/kv/cache.py",
    ),
    Word(
        "tenant",
        "the owner of data: a person, a team, a customer",
        "organisation, project, account",
        "gateway/access.py",
    ),
    Word("arm", "one of the ways that a benchmark compares", "variant, condition", "bench/arms"),
)


def glossary() -> str:
    """Write the table of words, in alphabetical order."""
    rows = []
    for word in sorted(WORDS, key=lambda word: word.word.lower()):
        assert (SOURCE / word.place).exists(), f"{word.word}: {word.place} is gone"
        rows.append((f"**{word.word}**", word.meaning, word.elsewhere, code(word.place)))
    return table(("word", "means", "elsewhere", "where"), rows)
