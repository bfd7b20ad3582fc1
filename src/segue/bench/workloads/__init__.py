"""What is measured: sessions of agents, generated or recorded."""

from __future__ import annotations
