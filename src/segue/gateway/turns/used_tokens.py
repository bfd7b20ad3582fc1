"""What a turn has used if its upstream does not say: it was stopped, steered, or broke off, or tells no usage at all.

Its provider is paid for it all the same, so that limits in tokens must not let it pass. Nobody is told the estimate as
the usage of a response. Not here: the limits (`segue.gateway.quotas`).
"""

from __future__ import annotations

import msgspec

from segue.history.compaction import TOKEN_BYTES, estimate_tokens
from segue.protocol.responses import Usage, usage
from segue.protocol.turns import TurnStream
from segue.upstreams.interface import UpstreamRequest


def count_use(begun: UpstreamRequest | None, stream: TurnStream | None, *, failed: bool) -> Usage | None:
    """Return what a turn counts in limits: what its upstream has told, or else the estimate, once it has `begun`."""
    told = None if stream is None or stream.ended is None else stream.ended.usage
    if told is not None or begun is None or stream is None:
        return told
    return estimate_use(begun, stream, failed=failed)


def estimate_use(request: UpstreamRequest, stream: TurnStream, *, failed: bool) -> Usage | None:
    """Return about how many tokens a turn has used that had begun; None if it failed before its output.

    A delta is a token or more; what has come of an item that was not finished is in its deltas alone.
    """
    if failed and not stream.output_events:
        return None
    settings = request.settings
    around = (bytes(settings.instructions or b""), msgspec.json.encode(settings.tools))
    read = request.size_bytes if request.native is not None else 0
    read = read // TOKEN_BYTES if read else estimate_tokens((*around, *request.history.items()))
    return usage(read, max(estimate_tokens(stream.output), stream.output_events))
