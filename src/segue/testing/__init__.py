"""Public test doubles: a provider, network links, a tiny model, a store conformance suite and a protocol checker."""

from __future__ import annotations
