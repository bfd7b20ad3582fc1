"""Prompts: from a history to the tokens that the model reads."""

from __future__ import annotations
