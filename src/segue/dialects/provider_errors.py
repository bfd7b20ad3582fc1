"""Errors of providers as one of our codes: one table of words, and one of statuses.

A provider's error is read by `error_shapes`. `code_of` maps its words, the HTTP status if there is one, or the number
in its body, which stands for that status, to a code of `protocol.problems`. Not here: what a code means to a client,
and whether to try again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from segue.dialects.context_length import is_too_long
from segue.protocol.problems import Code, quoted
from segue.protocol.responses import Failure

#: Longer words than this are in no table.
_MAX_WORD_CHARS = 80

#: The values of codes, types and statuses of errors, from all APIs, that mean one of ours. They are compared without
#: case, punctuation, and "error" or "exception" at their ends: `RateLimitError` is `rate_limit_error`.
WORDS: Mapping[Code, tuple[str, ...]] = MappingProxyType(
    {
        "context_length_exceeded": (
            *("context_length_exceeded", "model_context_window_exceeded"),
            "exceed_context_size_error",  # llama.cpp
            "context_window_exceeded_error",  # LiteLLM
            *("model_max_prompt_tokens_exceeded", "tokens_limit_reached"),  # GitHub
        ),
        "rate_limit_exceeded": (
            *("rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests"),
            "rate_limit_reached_error",  # Moonshot
            "resource_exhausted",  # Gemini
            *("throttling_exception", "throttled", "service_quota_exceeded_exception"),  # Bedrock
            *("Throttling", "Throttling.RateQuota", "Throttling.BurstRate", "Throttling.AllocationQuota"),  # DashScope
            *("limit_requests", "limit_burst_rate"),  # DashScope
        ),
        "insufficient_quota": (
            *("insufficient_quota", "billing_error", "payment_required", "billing_hard_limit_reached"),
            *("insufficient_balance", "insufficient_credits", "insufficient_funds", "quota_exceeded"),
            "exceeded_current_quota_error",  # Moonshot
            *("Arrearage", "AllocationQuota.FreeTierOnly"),  # DashScope
        ),
        "server_overloaded": (
            *("overloaded_error", "server_is_overloaded", "server_overloaded", "model_overloaded", "slow_down"),
            *("unavailable", "service_unavailable", "service_unavailable_exception"),
            "unavailable_error",  # llama.cpp, while it loads
            "engine_overloaded_error",  # Moonshot
            "model_not_ready_exception",  # Bedrock
            "service_tier_capacity_exceeded",  # Mistral
        ),
        "upstream_unauthorized": (
            *("authentication_error", "invalid_authentication_error", "authentication_failed", "unauthorized"),
            *("invalid_api_key", "incorrect_api_key_error", "missing_api_key", "invalid_token", "invalid_credentials"),
            *("permission_error", "permission_denied", "access_denied", "access_denied_exception", "forbidden"),
            *("unauthenticated", "api_key_invalid", "api_key_service_blocked"),  # Gemini
            *("unrecognized_client_exception", "expired_token_exception", "invalid_signature_exception"),  # Bedrock
            "authorized_error",  # MiniMax
        ),
        "upstream_timeout": (
            *("timeout_error", "request_timeout", "gateway_timeout", "deadline_exceeded", "model_timeout_exception"),
            *("segue_outcome_unknown", "upstream_closed", "upstream_truncated"),  # a sidecar or gateway on the way
            "upstream_timeout",  # a gateway
        ),
        "model_not_found": (
            *("model_not_found", "not_found_error", "not_found", "deployment_not_found"),
            "resource_not_found_exception",  # Bedrock
        ),
        "upstream_rejected": (
            *("invalid_request_error", "invalid_argument", "invalid_parameter", "invalid_value", "invalid_prompt"),
            *("bad_request_error", "unprocessable_entity_error", "validation_error", "failed_precondition"),
            *("missing_required_parameter", "unsupported_parameter", "unsupported_value", "not_supported_error"),
            *("request_too_large", "content_filter", "content_policy_violation", "data_inspection_failed"),
            *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url"),
            *("image_too_large", "image_too_small", "image_parse_error", "image_content_policy_violation"),
            *("invalid_image_mode", "image_file_too_large", "unsupported_image_media_type", "empty_image_file"),
            *("failed_to_download_image", "image_file_not_found"),
            *("data_residency_mismatch", "bio_policy", "misalignment_policy_violation"),
        ),
        "upstream_error": (
            *("api_error", "server_error", "internal_error", "internal_server_error", "bad_gateway", "unknown"),
            *("internal_server_exception", "model_error_exception", "model_stream_error_exception"),  # Bedrock
            "vector_store_timeout",
        ),
    }
)

#: Codes that the Responses API documents for a response that failed, and that say more than one of ours. Its clients
#: may know them, so they are told as they are. https://platform.openai.com/docs/api-reference/responses/object
#: Not among them: `server_error`, which is an error of the gateway here.
DOCUMENTED: frozenset[str] = frozenset(
    {
        *("invalid_prompt", "data_residency_mismatch", "bio_policy", "misalignment_policy_violation"),
        *("vector_store_timeout", "invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url"),
        *("image_too_large", "image_too_small", "image_parse_error", "image_content_policy_violation"),
        *("invalid_image_mode", "image_file_too_large", "unsupported_image_media_type", "empty_image_file"),
        *("failed_to_download_image", "image_file_not_found"),
    }
)

#: Our code for an HTTP status.
STATUSES: Mapping[int, Code] = MappingProxyType(
    {
        401: "upstream_unauthorized",
        402: "insufficient_quota",
        403: "upstream_unauthorized",
        404: "model_not_found",
        408: "upstream_timeout",
        429: "rate_limit_exceeded",
        503: "server_overloaded",
        504: "upstream_timeout",
        529: "server_overloaded",
    }
)

#: What only says whose fault it is. A status that says more comes before it: DeepSeek has `invalid_request_error` in
#: errors of every status.
_GENERIC: frozenset[Code] = frozenset({"upstream_rejected", "upstream_error"})
#: What a message may explain in words of length, and that a shorter history does not mend.
_OTHER_LIMITS: frozenset[Code | None] = frozenset({"rate_limit_exceeded", "insufficient_quota"})

#: A key that is refused with a status that says nothing of keys: 400 of xAI ("Incorrect API key provided: xa***") and
#: of Gemini ("API key not valid. Please pass a valid API key."), and errors within streams.
_KEY_REFUSED = re.compile(
    r"(?:incorrect|invalid|wrong|missing|expired|revoked|no|unknown)[ _-](?:x-)?api[ _-]?key"
    r"|api[ _-]?key\b.{0,60}?\b(?:not valid|is invalid|invalid|incorrect|expired|revoked|not found|missing|required)"
    r"|authentication fail|no auth credentials|invalid authentication|invalid (?:bearer|access|auth) ?token",
    re.IGNORECASE,
)


class ProviderError(msgspec.Struct, frozen=True):
    """A provider's error; empty where it says nothing.

    `words` are its codes and types, the innermost first. `status` is the HTTP status that a number in it stands for.
    `retry_after_s` says when the provider wants to be asked again. `detail` is a code beside the type that says more.
    """

    message: str = ""
    words: tuple[str, ...] = ()
    param: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    detail: str = ""


def code_of(error: ProviderError, status: int | None = None) -> Code:
    """Return our code for an error, which came with this HTTP status; without one, the number in it counts.

    A message that says that the conversation is too long comes first, then a word that is more than generic, then the
    status.
    """
    if status is None or status < 400:  # noqa: PLR2004 - the errors of HTTP
        status = error.status
    known = [code for word in error.words if (code := code_of_word(word)) is not None]
    specific = next((code for code in known if code not in _GENERIC), None)
    by_status = None if status is None else STATUSES.get(status)
    if not {specific, by_status} & _OTHER_LIMITS and is_too_long(error.message):
        return "context_length_exceeded"
    if specific is not None:
        return specific
    if by_status is not None:
        return by_status
    if _KEY_REFUSED.search(error.message):
        return "upstream_unauthorized"
    if status is not None and 400 <= status < 500:  # noqa: PLR2004 - the 4xx of HTTP
        return "upstream_rejected"
    return known[0] if known else "upstream_error"


def code_of_word(word: str) -> Code | None:
    """Return our code for a code, type or status of any API; None if the word is not known."""
    return None if len(word) > _MAX_WORD_CHARS else _CODES.get(_bare(word))


def documented_code(error: ProviderError, code: Code) -> str | None:
    """Return the provider's own code of an error that is `code` here, if clients are told it; else None."""
    return next((word for word in error.words if word in DOCUMENTED), None) if code in _GENERIC else None


def failure_of(error: ProviderError) -> Failure:
    """Return the failure of a turn whose stream brought this error."""
    code = code_of(error)
    return Failure(documented_code(error, code) or code, error.message or _without_message(error))


def _without_message(error: ProviderError) -> str:
    said = error.words[0] if error.words else error.status
    if said is None:
        return "The upstream failed without saying why."
    return f"The upstream failed without saying why, with the code {quoted(str(said))}."


def _bare(word: str) -> str:
    letters = re.sub(r"[^a-z0-9]", "", word.lower())
    return re.sub(r"(?:error|exception)+$", "", letters)


_CODES: Mapping[str, Code] = MappingProxyType({_bare(word): code for code, words in WORDS.items() for word in words})
