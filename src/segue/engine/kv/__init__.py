"""The KV cache of the local model: what is kept, where it lies, what goes first."""

from __future__ import annotations
