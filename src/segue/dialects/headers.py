"""The header lines of a request to a provider that streams its reply. Not here: what only one API wants."""

from __future__ import annotations

HeaderLines = tuple[tuple[str, str], ...]

#: A JSON body is sent, and server-sent events are wanted.
JSON_IN_EVENTS_OUT: HeaderLines = (("Content-Type", "application/json"), ("Accept", "text/event-stream"))


def bearer_headers(api_key: str | None) -> HeaderLines:
    """Return the header lines of OpenAI's APIs and of those that follow them, with the key (None: without one)."""
    key = () if api_key is None else (("Authorization", f"Bearer {api_key}"),)
    return (*JSON_IN_EVENTS_OUT, *key)
