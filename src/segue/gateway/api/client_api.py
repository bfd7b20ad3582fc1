"""Which API a request is of, where that decides what its answer looks like: OpenAI's, or Anthropic's Messages API.

Not here: the answers.
"""

from __future__ import annotations

from collections.abc import Mapping

from segue.gateway.error_mapping import RESPONSES

#: What is at this path, or below it, is of the Messages API.
MESSAGES = "/v1/messages"
CHAT = "/v1/chat/completions"
#: Where a model writes the summary of a history.
COMPACTIONS = f"{RESPONSES}/compact"
_TURNS = frozenset({RESPONSES, COMPACTIONS, MESSAGES, CHAT})
#: Both APIs have this path, and what is below it.
MODELS = "/v1/models"


def turn_at(method: str, path: str) -> str | None:
    """Return the path of a request if it begins a turn, which costs something; else None."""
    return path if method == "POST" and path in _TURNS else None


def is_of_messages_api(path: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request is of the Messages API."""
    return _is_below(path, MESSAGES) or (_is_below(path, MODELS) and is_from_anthropics_client(headers))


def is_from_anthropics_client(headers: Mapping[str, str]) -> bool:
    """Tell whether a client of the Messages API sent these header lines.

    Each request of that API says its version: https://platform.claude.com/docs/en/api/versioning
    """
    return "anthropic-version" in headers or ("x-api-key" in headers and "Authorization" not in headers)


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")
