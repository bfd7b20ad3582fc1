"""What one engine has counted so far, for metrics. The engine's thread writes it; any thread may read it."""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.engine.kv.cache import Tier

EngineTokens = Literal["reused", "restored", "prefilled", "output", "drafted", "accepted"]


class EngineCounters(msgspec.Struct):
    """The counts. Tokens of prompts are reused (some of them after a restore) or prefilled.

    Tokens of answers may be drafted; those that were right are accepted.
    """

    reused_tokens: int = 0
    restored_tokens: int = 0
    prefilled_tokens: int = 0
    output_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    evictions: int = 0
    preemptions: int = 0
    defrags: int = 0
    sequences: dict[Tier, int] = msgspec.field(default_factory=lambda: {"context": 0, "host": 0, "disk": 0})
    context_tokens: int = 0
    host_bytes: int = 0
    disk_bytes: int = 0

    def tokens(self, kind: EngineTokens) -> int:
        """Return the tokens of one kind."""
        match kind:
            case "reused":
                return self.reused_tokens
            case "restored":
                return self.restored_tokens
            case "prefilled":
                return self.prefilled_tokens
            case "output":
                return self.output_tokens
            case "drafted":
                return self.drafted_tokens
            case "accepted":
                return self.accepted_tokens
