"""The ways that a workload can take, which a benchmark compares."""

from __future__ import annotations
