"""The report of a benchmark and its pictures."""

from __future__ import annotations
