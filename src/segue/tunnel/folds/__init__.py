"""Folds: what of a reply an agent will send again in its next request, for each provider API. Pure."""

from __future__ import annotations
