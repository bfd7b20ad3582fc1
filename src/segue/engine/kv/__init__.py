"""The KV cache of the local model: what it holds, in which tier, and what is evicted first."""

from __future__ import annotations
