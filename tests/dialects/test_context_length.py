"""What says that a conversation is too long, and what only sounds like it."""

from __future__ import annotations

import re

import pytest

from segue.dialects.context_length import PHRASES, Phrase, is_too_long

every_phrase = pytest.mark.parametrize("phrase", PHRASES, ids=[phrase.provider for phrase in PHRASES])


@every_phrase
def test_each_provider_is_understood_in_its_own_words(phrase: Phrase) -> None:
    assert re.search(phrase.pattern, phrase.example, re.IGNORECASE)
    assert is_too_long(phrase.example)
    assert is_too_long(phrase.example.upper())
    assert phrase.source.startswith("https://")


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 8545 tokens.",
        "The prompt is too long: 221782, model maximum context length: 202752",
        "input length and max_tokens exceed context limit: 188240 + 21333 > 200000",
        "The model returned the following errors: Input is too long for requested model.",
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        "Prompt length of 5016 is longer than the maximum model length of 4096.",
        "tokens to keep from the initial prompt is greater than the context length",
        "litellm.ContextWindowExceededError: context window exceeded",
        "context_length_exceeded",
        "Context size has been exceeded.",
        "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000",
    ],
)
def test_other_versions_of_the_words(message: str) -> None:
    assert is_too_long(message)


_VLLM_MAX_TOKENS = (
    "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 4096 tokens "
    "and your request has 10 input tokens (9000 > 4096 - 10)."
)
_GROQ_TPM = (
    "Request too large for model `m` in organization `o` on tokens per minute (TPM): Limit 10000, Requested 21247, "
    "please reduce the length of the messages and try again."
)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "max_tokens: 100000 > 64000, which is the maximum allowed number of output tokens for claude-sonnet-4-5",
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
        _VLLM_MAX_TOKENS,
        "max_tokens must be less than or equal to 16384; it is less than the context_window for this model",
        "Range of max_tokens should be [1, 8192]",
        _GROQ_TPM,
        "Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000. The input tokens must be reduced.",
        "This exceeds your rate limit of 40,000 input tokens. Please reduce the length of the messages.",
        "Request entity too large",
        "The name of a tool is too long",
        "Your request was too long ago",
        "messages: text content blocks must be non-empty",
    ],
)
def test_another_limit_is_another_matter(message: str) -> None:
    """A shorter history would not help, and the agent would lose it for nothing."""
    assert not is_too_long(message)
