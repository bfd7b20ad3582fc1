"""The traffic that benchmarks play: sessions of agents, generated or recorded."""

from __future__ import annotations
