"""The Chat Completions dialect: its requests and its stream."""

from __future__ import annotations
