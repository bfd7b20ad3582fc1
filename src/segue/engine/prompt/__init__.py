"""Prompts: from a history to the tokens that the model prefills."""

from __future__ import annotations
