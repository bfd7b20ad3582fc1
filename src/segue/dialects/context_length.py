"""How providers say that a conversation is too long for a model: one table of their words, with where they stand.

Agents make their history shorter when they read `context_length_exceeded`, and stop at any other code. Only some
providers have a code for it; the others say it in words. Not here: the codes (`provider_errors`), and limits that a
shorter history does not keep: `max_tokens` alone, tokens per minute, bytes of a body.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Phrase(NamedTuple):
    """Words that mean it: who says them, a pattern, one whole message, and where it stands."""

    provider: str
    pattern: str
    example: str
    source: str


PHRASES: tuple[Phrase, ...] = (
    Phrase(
        "OpenAI",
        r"exceeds the context window",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "https://platform.openai.com/docs/guides/error-codes",
    ),
    Phrase(
        "OpenAI Chat, DeepSeek, vLLM, OpenRouter, Mistral, Fireworks",
        r"maximum context length",
        "This model's maximum context length is 65536 tokens. However, you requested 70011 tokens "
        "(66011 in the messages, 4000 in the completion). Please reduce the length of the messages or completion.",
        "https://github.com/vllm-project/vllm/blob/main/vllm/entrypoints/openai/serving_engine.py",
    ),
    Phrase(
        "Anthropic, Fireworks, Ollama",
        r"prompt (?:is )?too long",
        "prompt is too long: 215000 tokens > 200000 maximum",
        "https://docs.anthropic.com/en/docs/build-with-claude/context-windows",
    ),
    Phrase(
        "Anthropic",
        r"input length and [`'\"]?max_tokens[`'\"]? exceed context limit",
        "input length and `max_tokens` exceed context limit: 178902 + 32000 > 200000, "
        "decrease input length or `max_tokens` and try again",
        "https://docs.anthropic.com/en/api/errors",
    ),
    Phrase(
        "Gemini",
        r"input token count\b.{0,40}exceeds the maximum number of tokens allowed",
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        "https://ai.google.dev/gemini-api/docs/troubleshooting",
    ),
    Phrase(
        "Vertex AI",
        r"input token count is \d+ but model only supports up to",
        "Unable to submit request because the input token count is 1100000 but model only supports up to 1048576.",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/api-errors",
    ),
    Phrase(
        "Bedrock",
        r"input is too long",
        "Input is too long for requested model.",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html",
    ),
    Phrase(
        "Ollama",
        r"exceeded (?:max )?context length",
        "prompt too long; exceeded max context length by 17 tokens",
        "https://github.com/ollama/ollama/blob/main/server/prompt.go",
    ),
    Phrase(
        "Ollama",
        r"input length exceeds (?:the |maximum )?context length",
        "the input length exceeds the context length",
        "https://github.com/ollama/ollama/blob/main/server/routes.go",
    ),
    Phrase(
        "Moonshot",
        r"exceeded model token limit",
        "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)",
        "https://github.com/MoonshotAI/kimi-cli/issues/2011",
    ),
    Phrase(
        "vLLM",
        r"(?:prompt|input)\b.{0,60}longer than the maximum model length",
        "The decoder prompt (length 21535) is longer than the maximum model length of 16384. Make sure that "
        "`max_model_len` is no smaller than the number of text tokens.",
        "https://github.com/xorbitsai/inference/issues/3785",
    ),
    Phrase(
        "SGLang, Together",
        r"longer than the model'?s context length",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/managers/tokenizer_manager.py",
    ),
    Phrase(
        "SGLang, LiteLLM",
        r"exceeds? the model'?s (?:maximum )?context (?:length|window)",
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of "
        "5000 tokens: 1000 tokens from the input messages and 4000 tokens for the completion.",
        "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/managers/tokenizer_manager.py",
    ),
    Phrase(
        "llama.cpp",
        r"exceeds the available context size|context size has been exceeded",
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server.cpp",
    ),
    Phrase(
        "LM Studio",
        r"greater than the context length|context length of only \d+ tokens|context the overflows",
        "Trying to keep the first 5071 tokens when context the overflows. However, the model is loaded with context "
        "length of only 4096 tokens, which is not enough.",
        "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues",
    ),
    Phrase(
        "Mistral",
        r"too large for model with \d+ maximum context length",
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        "https://docs.mistral.ai/api/",
    ),
    Phrase(
        "xAI",
        r"maximum prompt length is \d+",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "https://docs.x.ai/docs/key-information/debugging",
    ),
    Phrase(
        "Groq, Cerebras",
        r"reduce the length of the (?:messages|prompt|input)",
        "Please reduce the length of the messages or completion.",
        "https://console.groq.com/docs/errors",
    ),
    Phrase(
        "Together, TGI",
        r"`?inputs`? tokens \+ `?max_new_tokens`? must be|`?inputs`? must have less than \d+ tokens",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and "
        "512 `max_new_tokens`",
        "https://github.com/huggingface/text-generation-inference/blob/main/router/src/validation.rs",
    ),
    Phrase(
        "OpenRouter",
        r"context length is (?:about )?\d+ tokens\. however, you requested",
        "This endpoint's maximum context length is 131072 tokens. However, you requested about 140000 tokens "
        "(136000 of text input, 4000 in the output). Please reduce the length of either one.",
        "https://openrouter.ai/docs/guides/features/message-transforms",
    ),
    Phrase(
        "DashScope",
        r"range of input length should be",
        "InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]",
        "https://www.alibabacloud.com/help/en/model-studio/error-code",
    ),
    Phrase(
        "MiniMax",
        r"context window exceeds limit",
        "invalid params, context window exceeds limit (2013)",
        "https://platform.minimax.io/docs/api-reference/errorcode",
    ),
    Phrase(
        "Zhipu",
        r"prompt exceeds max(?:imum)? length",
        "Prompt exceeds max length",
        "https://docs.bigmodel.cn/cn/faq/api-code",
    ),
    Phrase(
        "GitHub Copilot",
        r"prompt token count of \d+ exceeds the limit of \d+",
        "prompt token count of 130112 exceeds the limit of 128000",
        "https://docs.github.com/en/copilot",
    ),
    Phrase(
        "Cohere",
        r"number of tokens in the prompt exceeds the limit",
        "too many tokens: total number of tokens in the prompt exceeds the limit of 4081",
        "https://docs.cohere.com/reference/errors",
    ),
    Phrase(
        "others",
        r"context[ _](?:length|window|size|limit)[ _](?:is |was |has been )?exceed",
        "The context length is exceeded.",
        "https://docs.litellm.ai/docs/exception_mapping",
    ),
)

_TOO_LONG = re.compile("|".join(f"(?:{phrase.pattern})" for phrase in PHRASES), re.IGNORECASE | re.DOTALL)

#: A shorter history does not help, although the message has words of the table: a limit on rates, and `max_tokens`
#: alone. vLLM names the context length when it refuses `max_tokens`: "'max_tokens' or 'max_completion_tokens' is too
#: large: 9000. This model's maximum context length is 4096 tokens and your request has 10 input tokens".
_ANOTHER_LIMIT = re.compile(
    r"tokens?[ -]per[ -](?:minute|min\b|hour|day)|per minute|\bTPM\b|rate[ _-]?limit"
    r"|max_(?:completion_|output_|new_)?tokens[`'\"]? (?:is|are|was) too (?:large|big|high)",
    re.IGNORECASE,
)


def is_too_long(message: str) -> bool:
    """Tell whether a provider's message says that the conversation is too long for the model."""
    return _TOO_LONG.search(message) is not None and _ANOTHER_LIMIT.search(message) is None
