"""`[[upstream]]`: the model servers and the models in this process, and which of their settings belong together.

Not here: the API key of an upstream, which is read from the environment when it is needed (`environment`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from segue.config.errors import ConfigError
from segue.config.units import MIB, Bytes, Positive

#: The dialects of providers, which are reached over HTTP.
ProviderDialect = Literal["responses", "chat", "messages"]
UpstreamDialect = Literal[ProviderDialect, "local", "scripted"]

_PROVIDERS: tuple[UpstreamDialect, ...] = get_args(ProviderDialect)

#: The dialects that a setting of an upstream belongs to. A setting that is not listed belongs to all.
DIALECTS_OF: Mapping[str, tuple[UpstreamDialect, ...]] = MappingProxyType(
    {
        "transport": ("responses",),
        "websocket_idle": ("responses",),
        "websocket_idle_s": ("responses",),
        "websocket_age_s": ("responses",),
        "websocket_lanes": ("responses",),
        "base_url": _PROVIDERS,
        "key_env": _PROVIDERS,
        "pass_key": _PROVIDERS,
        "provider": _PROVIDERS,
        "compat": _PROVIDERS,
        "headers": _PROVIDERS,
        "body": _PROVIDERS,
        "affinity_header": _PROVIDERS,
        "slots": ("chat", "responses"),
        "rerun": _PROVIDERS,
        "compaction": ("responses",),
        "max_tokens": ("messages",),
        "message_threads": ("messages",),
        "return_reasoning": ("chat",),
        "max_concurrent": _PROVIDERS,
        "max_queued": _PROVIDERS,
        "queue_timeout_s": _PROVIDERS,
        "connect_timeout_s": _PROVIDERS,
        "first_byte_timeout_s": _PROVIDERS,
        "idle_timeout_s": _PROVIDERS,
        "attempts": _PROVIDERS,
        "longest_wait_s": _PROVIDERS,
        "model_file": ("local",),
        "chat_template_file": ("local",),
        "context_tokens": ("local",),
        "threads": ("local",),
        "parallel": ("local",),
        "batch_invariant": ("local",),
        "answer_tokens": ("local",),
        "draft_tokens": ("local",),
        "kv_bytes": ("local",),
        "kv_host_bytes": ("local",),
        "kv_disk_bytes": ("local",),
        "kv_directory": ("local",),
        "kv_idle_s": ("local",),
    }
)
_HEADER = re.compile(
    r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[!-~](?:[ \t!-~]*[!-~])?)"
)  # RFC 9110, 5.6.2

#: The limit of an upstream that sets neither `max_concurrent` nor `slots`.
_DEFAULT_CONCURRENCY = 64


def _everybody() -> list[str]:
    return ["*"]


class UpstreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[upstream]]`: a model server, or a model in this process. The first that matches is used, or its group."""

    name: Annotated[str, Meta(min_length=1, description="Its name; no other upstream has it.")]
    dialect: Annotated[UpstreamDialect, Meta(description="What it speaks.")]
    models: Annotated[list[str], Meta(min_length=1, description="Names or globs it answers to.")]
    model_as: Annotated[str | None, Meta(description="The name the upstream is given instead.")] = None
    group: Annotated[
        str | None, Meta(description="Upstreams of one group share turns, and stand in for each other.")
    ] = None
    weight: Annotated[
        int, Meta(ge=1, le=1000, description="With a group: its share of conversations, beside the others' weights.")
    ] = 1
    backup: Annotated[bool, Meta(description="With a group: it gets turns only if all others are out or fail.")] = False
    rerun: Annotated[
        bool,
        Meta(
            description="provider, with a group: run a turn again elsewhere although it may have been run here; "
            "for servers that cost nothing per turn."
        ),
    ] = False
    tenants: Annotated[
        list[str], Meta(min_length=1, description="Tenants that it is for: names, or globs; nobody else sees it.")
    ] = msgspec.field(default_factory=_everybody)
    base_url: Annotated[
        str | None, Meta(description="provider: the URL of its API, as you would give it to its SDK.")
    ] = None
    key_env: Annotated[str | None, Meta(description="provider: the variable that holds its API key.")] = None
    pass_key: Annotated[bool, Meta(description="provider: send the client's own key instead.")] = False
    provider: Annotated[
        str | None,
        Meta(description="provider: whose server it is, which says what it refuses; default: by the host of base_url."),
    ] = None
    compat: Annotated[
        dict[str, Any], Meta(description="provider: what its server does differently, over what is known of it.")
    ] = {}
    headers: Annotated[list[str], Meta(description="provider: more header lines, each 'Name: value'.")] = []
    body: Annotated[
        dict[str, Any], Meta(description="provider: more fields of every request; what a request sets itself wins.")
    ] = {}
    affinity_header: Annotated[
        str | None, Meta(description="provider: the header that tells a router which requests are one conversation.")
    ] = None
    transport: Annotated[
        Literal["http", "websocket"],
        Meta(
            description="responses: how it is reached; over a WebSocket, a turn that continues another is sent only "
            "what is new."
        ),
    ] = "http"
    websocket_idle: Annotated[
        int,
        Meta(
            ge=1, description="responses, with WebSockets: how many of them may wait for a turn, all tenants together."
        ),
    ] = 256
    websocket_idle_s: Annotated[
        Positive, Meta(description="responses, with WebSockets: for how long one may wait for a turn.")
    ] = 600.0
    websocket_age_s: Annotated[
        Positive,
        Meta(
            description="responses, with WebSockets: how old one may be; below the limit of the server, which is an "
            "hour at OpenAI."
        ),
    ] = 3300.0
    websocket_lanes: Annotated[
        Annotated[int, Meta(ge=1, le=32)] | None,
        Meta(
            description="responses, with WebSockets: how many turns run at once on one of them; 16 at OpenAI, but a "
            "cancelled turn runs on there. If left out, as many as the server says that it runs and can stop."
        ),
    ] = None
    slots: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="chat, responses: slots of a llama-server; each conversation is kept in one."),
    ] = None
    compaction: Annotated[
        Literal["gateway", "upstream"],
        Meta(description="responses: who compacts histories: the gateway with a summary, or this server itself."),
    ] = "gateway"
    max_tokens: Annotated[
        int, Meta(ge=1, description="messages: longest answer, in tokens, where a request sets no limit.")
    ] = 32_000
    message_threads: Annotated[
        bool | None,
        Meta(description="messages: send only what is new, as message threads; default: at api.anthropic.com only."),
    ] = None
    return_reasoning: Annotated[
        bool, Meta(description="chat: send its reasoning back to it; off for servers that refuse it.")
    ] = True
    max_concurrent: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="provider: turns that run at once; default: as many as slots, without those 64."),
    ] = None
    max_queued: Annotated[int, Meta(ge=0, description="provider: turns that may wait, all tenants together.")] = 256
    queue_timeout_s: Annotated[Positive, Meta(description="provider: how long a turn may wait.")] = 30.0
    connect_timeout_s: Annotated[Positive, Meta(description="provider: how long a connection may take.")] = 10.0
    first_byte_timeout_s: Annotated[
        Positive, Meta(description="provider: how long the head of its reply may take; for some, all of thinking.")
    ] = 300.0
    idle_timeout_s: Annotated[Positive, Meta(description="provider: how long its stream may be silent.")] = 300.0
    attempts: Annotated[
        int, Meta(ge=1, description="provider: attempts at a turn, as long as nothing of the answer has come.")
    ] = 3
    longest_wait_s: Annotated[
        Positive,
        Meta(
            description="provider: longest wait for the next attempt; instead of a longer one a client gets an error."
        ),
    ] = 20.0
    model_file: Annotated[str | None, Meta(description="local: a GGUF file; without one, the bundled model.")] = None
    chat_template_file: Annotated[
        str | None, Meta(description="local: a chat template (Jinja) to use instead of the one in the model's file.")
    ] = None
    context_tokens: Annotated[
        int, Meta(ge=256, description="local: tokens that the input and output of a turn may have together.")
    ] = 4096
    threads: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="local: threads to compute with; default: all cores.")
    ] = None
    parallel: Annotated[int, Meta(ge=1, le=32, description="local: turns computed at once.")] = 4
    batch_invariant: Annotated[
        bool,
        Meta(description="local: turns computed together do not change a bit of each other's answers; slower."),
    ] = False
    answer_tokens: Annotated[
        int,
        Meta(
            ge=1, description="local: longest answer, in tokens, where a request sets no limit; told in the response."
        ),
    ] = 2048
    draft_tokens: Annotated[
        int,
        Meta(
            ge=0,
            le=16,
            description="local: most tokens of an answer to draft from earlier text, where that is faster; 0: none.",
        ),
    ] = 0
    kv_bytes: Annotated[
        Bytes, Meta(description="local: KV cache of all conversations in the context, at least one; allocated at once.")
    ] = 256 * MIB
    kv_host_bytes: Annotated[
        int, Meta(ge=0, description="local: KV cache in memory of conversations that the context has no room for.")
    ] = 1024 * MIB
    kv_directory: Annotated[
        str,
        Meta(description="local: folder for KV cache beyond kv_host_bytes, of stored responses only; '' for none."),
    ] = ""
    kv_disk_bytes: Annotated[Bytes, Meta(description="local: KV cache in that folder.")] = 4096 * MIB
    kv_idle_s: Annotated[
        float,
        Meta(ge=0, description="local: how long the KV cache of unstored HTTP responses is kept; 0 for not at all."),
    ] = 900.0


def check_upstream(up: UpstreamConfig) -> None:
    """Check the settings of one upstream against each other. A setting without any effect is a mistake too.

    Raises:
        ConfigError: they contradict each other.
    """
    where = f"upstream {up.name!r}"
    values = msgspec.structs.asdict(up)
    for field in msgspec.structs.fields(up):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        foreign = up.dialect not in DIALECTS_OF.get(field.name, (up.dialect,))
        if foreign and values[field.name] != default:
            raise ConfigError(f"{where}: {field.name} means nothing to the dialect {up.dialect!r}; leave it out")
    if up.group is None and (up.weight != 1 or up.backup or up.rerun):
        raise ConfigError(f"{where}: weight, backup and rerun mean nothing without a group; leave them out")
    if up.dialect in _PROVIDERS:
        _check_provider(up, where)


def _check_provider(up: UpstreamConfig, where: str) -> None:
    fault = _fault_of_url(up.base_url)
    if fault is not None:
        raise ConfigError(f"{where}: base_url {fault}")
    if up.key_env is not None and up.pass_key:
        raise ConfigError(f"{where}: it has key_env and pass_key: whose key is sent?")
    for line in up.headers:
        if not _HEADER.fullmatch(line):
            raise ConfigError(f"{where}: the header {line!r} is not of the form 'Name: value'")
    _check_transport(up, where)
    if up.slots is not None and (up.max_concurrent or 1) > up.slots:
        raise ConfigError(
            f"{where}: max_concurrent is {up.max_concurrent}, but each turn needs one of {up.slots} slots; "
            "leave it out, or raise slots if the server has more"
        )


def _check_transport(up: UpstreamConfig, where: str) -> None:
    if up.transport == "websocket" and up.slots is not None:
        raise ConfigError(
            f"{where}: slots are of a llama-server, which has no WebSockets; leave slots or transport out"
        )
    for field in msgspec.structs.fields(up):
        alone = field.name.startswith("websocket_") and up.transport != "websocket"
        if alone and getattr(up, field.name) != field.default:
            raise ConfigError(f'{where}: {field.name} means nothing without transport = "websocket"; leave it out')


def _fault_of_url(url: str | None) -> str | None:
    """Say what is wrong with the address of an API."""
    if url is None:
        return "is missing: give the address of the API, such as https://api.openai.com/v1"
    try:
        parts = urlsplit(url)
        named = parts.hostname is not None and parts.port != 0
    except ValueError as error:
        return f"{url!r} is no address: {error}"
    if parts.scheme not in {"http", "https"} or not named:
        return f"{url!r} is not an address of the form https://HOST/PATH"
    if parts.username is not None or parts.query or parts.fragment:
        return "may have a host and a path, nothing else; a key goes into the variable that key_env names"
    return None


def concurrency(up: UpstreamConfig) -> int:
    """Return how many turns may run at an upstream at once."""
    return up.max_concurrent or up.slots or _DEFAULT_CONCURRENCY


def split_header(line: str) -> tuple[str, str]:
    """Return name and value of one of an upstream's `headers`."""
    found = _HEADER.fullmatch(line)
    assert found is not None, "checked when the configuration was read"
    return found["name"], found["value"]
