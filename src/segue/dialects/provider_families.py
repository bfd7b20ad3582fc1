"""Which providers' servers have which quirks: one row each, with the source of every cell.

A row is chosen by the name that the configuration gives (`provider = "mistral"`), or by the host of the base URL where
that says whose server it is. A cell without a source stays at its default. Not here: what the fields of a profile mean
(`provider_profiles`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from segue.dialects.provider_profiles import ChatExtension, ProviderProfile


class ProviderFamily(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, or a server program that many run.

    `hosts` are those of its public API; one that begins with a star stands for all hosts that end with what follows.
    `sources` holds, for each field of the profile that is not at its default, the page that says so.
    """

    name: str
    hosts: tuple[str, ...] = ()
    profile: ProviderProfile = ProviderProfile()
    sources: Mapping[str, str] = {}


_OPENAI_CHAT = "https://platform.openai.com/docs/api-reference/chat/create"
_AZURE_CHAT = "https://learn.microsoft.com/en-us/azure/ai-foundry/openai/latest"
_MISTRAL_CHAT = "https://docs.mistral.ai/api/endpoint/chat"
_MISTRAL_IDS = "https://mistralai.github.io/mistral-common/usage/tools/"
_MISTRAL_ORDER = "https://github.com/BerriAI/litellm/issues/6323"
_MISTRAL_USAGE = "https://github.com/dnakov/anon-kode/issues/53"
_MISTRAL_REASONING = "https://github.com/charmbracelet/crush/issues/1590"
_MOONSHOT_CHAT = "https://github.com/api-evangelist/kimi-moonshot/blob/main/openapi/kimi-moonshot-chat-api-openapi.yml"
_MOONSHOT_REASONING = "https://github.com/theopenco/llmgateway/pull/2093"
_OPENAI_FIELDS: tuple[ChatExtension, ...] = (
    *("verbosity", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "file_id"),
)
#: What OpenAI and Azure have in common, and which cells of it need a source.
_OPENAI = ProviderProfile(
    chat_extensions=_OPENAI_FIELDS,
    output_limit_field="max_completion_tokens",
    system_messages="any",
    tool_name_length=64,
)
_OPENAI_CELLS = ("chat_extensions", "output_limit_field", "system_messages", "tool_name_length")

_ROWS = (
    ProviderFamily(
        name="openai",
        hosts=("api.openai.com",),
        profile=_OPENAI,
        sources=dict.fromkeys(_OPENAI_CELLS, _OPENAI_CHAT),
    ),
    ProviderFamily(
        name="azure",
        hosts=("*.openai.azure.com",),
        profile=_OPENAI,
        sources=dict.fromkeys(_OPENAI_CELLS, _AZURE_CHAT),
    ),
    ProviderFamily(
        name="mistral",
        hosts=("api.mistral.ai",),
        profile=ProviderProfile(
            omitted_fields=("stream_options",),  # it tells the usage unasked
            returned_reasoning="never",
            user_after_tool=False,
            media_in_tool_outputs=True,
            call_id_characters="alphanumeric",
            call_id_length=9,
            call_id_length_exact=True,
        ),
        sources={
            "omitted_fields": _MISTRAL_USAGE,
            "returned_reasoning": _MISTRAL_REASONING,
            "user_after_tool": _MISTRAL_ORDER,
            "media_in_tool_outputs": _MISTRAL_CHAT,
            "call_id_characters": _MISTRAL_IDS,
            "call_id_length": _MISTRAL_IDS,
            "call_id_length_exact": _MISTRAL_IDS,
        },
    ),
    ProviderFamily(
        name="gemini",
        hosts=("generativelanguage.googleapis.com",),
        profile=ProviderProfile(foreign_call_signature="skip_thought_signature_validator"),
        sources={"foreign_call_signature": "https://ai.google.dev/gemini-api/docs/thought-signatures"},
    ),
    ProviderFamily(
        name="deepseek",
        hosts=("api.deepseek.com",),
        profile=ProviderProfile(call_reasoning_field="reasoning_content"),
        sources={"call_reasoning_field": "https://api-docs.deepseek.com/guides/thinking_mode"},
    ),
    ProviderFamily(
        name="xai",
        hosts=("api.x.ai",),
        profile=ProviderProfile(omitted_fields=("presence_penalty", "frequency_penalty")),
        sources={"omitted_fields": "https://github.com/miaoxworld/NativeTavern/issues/83"},
    ),
    ProviderFamily(
        name="groq",
        hosts=("api.groq.com",),
        profile=ProviderProfile(omitted_fields=("logprobs", "top_logprobs")),
        sources={"omitted_fields": "https://console.groq.com/docs/openai"},
    ),
    ProviderFamily(
        name="moonshot",
        hosts=("api.moonshot.ai", "api.moonshot.cn"),
        profile=ProviderProfile(
            chat_extensions=("safety_identifier", "prompt_cache_key"),
            output_limit_field="max_completion_tokens",
            call_reasoning_field="reasoning_content",
            call_reasoning_filler=" ",  # an empty one counts as missing
        ),
        sources={
            "chat_extensions": _MOONSHOT_CHAT,
            "output_limit_field": _MOONSHOT_CHAT,
            "call_reasoning_field": _MOONSHOT_REASONING,
            "call_reasoning_filler": _MOONSHOT_REASONING,
        },
    ),
    ProviderFamily(name="anthropic", hosts=("api.anthropic.com",)),
    ProviderFamily(name="bedrock"),
    ProviderFamily(name="vertex", hosts=("aiplatform.googleapis.com", "*-aiplatform.googleapis.com")),
    ProviderFamily(name="together", hosts=("api.together.xyz", "api.together.ai")),
    ProviderFamily(name="fireworks", hosts=("api.fireworks.ai",)),
    ProviderFamily(name="openrouter", hosts=("openrouter.ai",)),
    ProviderFamily(
        name="qwen", hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com")
    ),
    ProviderFamily(name="vllm"),
    ProviderFamily(name="sglang"),
    ProviderFamily(name="llama-server"),
    ProviderFamily(name="ollama"),
    ProviderFamily(
        name="lm-studio",
        profile=ProviderProfile(named_tool_choice=False),
        sources={"named_tool_choice": "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/670"},
    ),
)

#: All rows, by name.
FAMILIES: Mapping[str, ProviderFamily] = MappingProxyType({family.name: family for family in _ROWS})


def find_family_by_host(host: str) -> ProviderFamily | None:
    """Return whose server a host is, if that is known."""
    return next((family for family in _ROWS if any(_is_at(host.lower(), known) for known in family.hosts)), None)


def _is_at(host: str, known: str) -> bool:
    return host.endswith(known[1:]) if known.startswith("*") else host == known
