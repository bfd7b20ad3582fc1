"""What a benchmark writes, and what is made of it: comparisons, charts, tables, pages."""

from __future__ import annotations
