"""Output: from the tokens that the model wrote to text, tool calls and log probabilities."""

from __future__ import annotations
