"""The report of a benchmark, and the plot that is drawn from one."""

from __future__ import annotations
