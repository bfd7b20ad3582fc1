"""The configuration: one frozen object, read once from a TOML file and the environment.

Every default of a setting is here and nowhere else, and this is the only module that reads the environment. A key of
the file is a field below; an environment variable `SEGUE_` + its path (`SEGUE_SERVER_PORT`, `SEGUE_KEY_0_TENANT`) wins
over the file, and what the command line says wins over both. Not here: opening what the configuration names.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

MIB = 1024 * 1024
DAY_S = 24 * 3600.0

T = TypeVar("T")

Positive = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=1)]


class ConfigError(ValueError):
    """The configuration cannot be used; the message says where and what to do."""


#: `openai`: lanes. `serial`: one turn at a time, as Open Responses, Azure and xAI have it.
Profile = Literal["openai", "serial"]


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=None):
    """`[server]`: where the gateway listens, and its limits."""

    host: Annotated[str, Meta(description="Address to listen on. Anything but loopback needs a [[key]].")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 4747
    store: Annotated[str, Meta(description="Where store=true responses are kept: sqlite:///FILE or memory:")] = (
        "sqlite:///segue.db"
    )
    hosts: Annotated[list[str], Meta(description="Host names that requests may name, beside loopback ones.")] = []
    origins: Annotated[list[str], Meta(description="Origins of web pages that may call, beside our own.")] = []
    retention_s: Annotated[Positive, Meta(description="How long a stored response lives.")] = 30 * DAY_S
    sweep_interval_s: Annotated[Positive, Meta(description="How often expired responses are removed.")] = 3600.0
    memory_budget_bytes: Annotated[Bytes, Meta(description="History held in memory, all tenants together.")] = 512 * MIB
    fragments_budget_bytes: Annotated[
        Bytes, Meta(description="History kept in the words of providers, all tenants together.")
    ] = 256 * MIB
    max_message_bytes: Annotated[Bytes, Meta(description="Largest request body or WebSocket message.")] = 16 * MIB
    max_connections: Annotated[int, Meta(ge=1, description="Open WebSocket connections.")] = 10_000
    max_age_s: Annotated[Positive, Meta(description="Age limit of a WebSocket connection.")] = 3600.0
    idle_timeout_s: Annotated[Positive, Meta(description="A connection without a turn for this long is closed.")] = (
        600.0
    )
    max_queued: Annotated[int, Meta(ge=1, description="Messages that may wait in a connection's lanes.")] = 64
    profile: Annotated[Profile, Meta(description="Whose rules WebSocket connections follow.")] = "openai"
    max_lanes: Annotated[int, Meta(ge=1, description="profile openai: lanes with a name, for each connection.")] = 32
    max_in_flight: Annotated[int, Meta(ge=1, description="profile openai: turns of a connection at once.")] = 16
    events_s: Annotated[Positive, Meta(description="How long the events of a kept turn can be read after its end.")] = (
        600.0
    )
    events_bytes: Annotated[Bytes, Meta(description="Events of kept turns in memory, all together.")] = 128 * MIB
    event_log_bytes: Annotated[Bytes, Meta(description="Events of one kept turn in memory; the oldest go first.")] = (
        8 * MIB
    )
    resume_s: Annotated[
        Positive, Meta(description="How long a turn that can be resumed runs on while no client follows it.")
    ] = 60.0
    max_kept: Annotated[int, Meta(ge=1, description="Kept turns that run at once.")] = 256
    grace_s: Annotated[
        float, Meta(ge=0, description="How long the unstored responses of a lost connection can still be continued.")
    ] = 0.0
    drain_s: Annotated[Positive, Meta(description="How long running turns may take to end at shutdown.")] = 30.0
    compression: Annotated[
        bool, Meta(description="Accept permessage-deflate on WebSockets; costs memory per connection.")
    ] = False


#: The dialects of providers, which are reached over HTTP.
ProviderDialect = Literal["responses", "chat", "messages"]
UpstreamDialect = Literal[ProviderDialect, "local", "scripted"]

_PROVIDERS: tuple[UpstreamDialect, ...] = get_args(ProviderDialect)

#: Which dialects a setting of an upstream belongs to; those that are not here belong to all.
DIALECTS_OF: Mapping[str, tuple[UpstreamDialect, ...]] = MappingProxyType(
    {
        "base_url": _PROVIDERS,
        "key_env": _PROVIDERS,
        "pass_key": _PROVIDERS,
        "headers": _PROVIDERS,
        "body": _PROVIDERS,
        "affinity_header": _PROVIDERS,
        "slots": ("chat", "responses"),
        "max_tokens": ("messages",),
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

#: `max_concurrent`, where nothing else says it.
_CONCURRENT = 64


class UpstreamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[upstream]]`: a model server, or a model in this process. The first whose `models` match is used."""

    name: Annotated[str, Meta(min_length=1, description="Its name; no other upstream has it.")]
    dialect: Annotated[UpstreamDialect, Meta(description="What it speaks.")]
    models: Annotated[list[str], Meta(min_length=1, description="Names or globs it answers to.")]
    model_as: Annotated[str | None, Meta(description="The name the upstream is given instead.")] = None
    base_url: Annotated[str | None, Meta(description="provider: where its API is, as its SDK is given it.")] = None
    key_env: Annotated[str | None, Meta(description="provider: the variable that holds its API key.")] = None
    pass_key: Annotated[bool, Meta(description="provider: send the client's own key instead.")] = False
    headers: Annotated[list[str], Meta(description="provider: more header lines, each 'Name: value'.")] = []
    body: Annotated[
        dict[str, Any], Meta(description="provider: more fields of every request; what a request sets itself wins.")
    ] = {}
    affinity_header: Annotated[
        str | None, Meta(description="provider: the header that tells a router which requests are one conversation.")
    ] = None
    slots: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="chat, responses: slots of a llama-server; each conversation is kept in one."),
    ] = None
    max_tokens: Annotated[
        int, Meta(ge=1, description="messages: longest answer, in tokens, where a request sets no limit.")
    ] = 32_000
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
    attempts: Annotated[int, Meta(ge=1, description="provider: tries at a turn of which nothing was heard yet.")] = 3
    longest_wait_s: Annotated[
        Positive, Meta(description="provider: longest wait for the next try; a client is told of longer ones.")
    ] = 20.0
    model_file: Annotated[str | None, Meta(description="local: a GGUF file; without one, the bundled model.")] = None
    chat_template_file: Annotated[
        str | None, Meta(description="local: a chat template (Jinja) to use instead of the one in the model's file.")
    ] = None
    context_tokens: Annotated[
        int, Meta(ge=256, description="local: what input and output of a turn may have together.")
    ] = 4096
    threads: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="local: threads to compute with; default: all cores.")
    ] = None
    parallel: Annotated[int, Meta(ge=1, le=32, description="local: turns computed at once.")] = 4
    batch_invariant: Annotated[
        bool, Meta(description="local: what is computed together changes no answer; long prompts take longer to read.")
    ] = True
    kv_bytes: Annotated[
        Bytes, Meta(description="local: KV cache of all conversations in the context, at least one; allocated at once.")
    ] = 256 * MIB
    kv_host_bytes: Annotated[
        int, Meta(ge=0, description="local: KV cache in memory of conversations that the context has no room for.")
    ] = 1024 * MIB
    kv_directory: Annotated[
        str, Meta(description="local: folder for what that has no room for, of stored responses only; '' for none.")
    ] = ""
    kv_disk_bytes: Annotated[Bytes, Meta(description="local: what may be in there.")] = 4096 * MIB
    kv_idle_s: Annotated[
        float, Meta(ge=0, description="local: how long that of unstored responses over HTTP is kept; 0 for not at all.")
    ] = 900.0


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[route]]`: where the tunnel forwards requests; those to the gateway itself are always its own API's."""

    target: Annotated[str, Meta(description="Where to: a URL, or 'self' for the gateway's own API.")]
    mount: Annotated[str | None, Meta(description="Requests below this path, which is taken away.")] = None
    path: Annotated[str | None, Meta(description="Requests below this path, which stays; give this or mount.")] = None


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[listener]]`: one more address of the gateway, with a profile of its own; all else is the same."""

    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")]
    host: Annotated[str, Meta(description="Address to listen on. Anything but loopback needs a [[key]].")] = "127.0.0.1"
    profile: Annotated[Profile, Meta(description="Whose rules WebSocket connections follow there.")] = "openai"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[key]]`: one of the gateway's own API keys. Only its SHA-256 is kept."""

    name: Annotated[str, Meta(min_length=1, description="Whose key it is; no other key has this name.")]
    tenant: Annotated[str, Meta(min_length=1, description="The tenant whose responses it may see.")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="Hex digest of the key.")]


class Tunnel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tunnel]`: what the gateway does for sidecars, and its limits."""

    max_body_bytes: Annotated[Bytes, Meta(description="Largest request body of an agent.")] = 64 * MIB
    bases_bytes: Annotated[Bytes, Meta(description="Bodies and replies kept to send against, for each tenant.")] = (
        128 * MIB
    )
    uploads_bytes: Annotated[Bytes, Meta(description="Uploads under way at once, all sidecars together.")] = 256 * MIB
    away_s: Annotated[Positive, Meta(description="How long exchanges go on without their sidecar.")] = 300.0
    max_sessions: Annotated[int, Meta(ge=1, description="Sidecars with a session, for each tenant.")] = 1000
    connect_timeout_s: Annotated[Positive, Meta(description="How long a connection to a provider may take.")] = 15.0
    reply_timeout_s: Annotated[
        Positive, Meta(description="How long a provider may be silent; agents usually give up before.")
    ] = 1800.0
    address: Annotated[str, Meta(description="This node's own URL, told to sidecars so that they find it again.")] = ""


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[sidecar]`: the local end of the tunnel, which agents are pointed at."""

    gateways: Annotated[
        list[str], Meta(description="Where gateways are, in the order they are tried: wss://HOST or ws://HOST:PORT.")
    ] = []
    host: Annotated[str, Meta(description="Address to listen on for agents.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 4748
    hosts: Annotated[list[str], Meta(description="Host names that agents may name, beside loopback ones.")] = []
    origins: Annotated[list[str], Meta(description="Origins of web pages that may call, beside our own.")] = []
    key: Annotated[str | None, Meta(description="Our API key at the gateway, if it wants one.")] = None
    cafile: Annotated[str | None, Meta(description="Certificates to verify gateways by, instead of the system's.")] = (
        None
    )
    direct: Annotated[bool, Meta(description="Go straight to the provider when no gateway can be reached.")] = False
    cache: Annotated[bool, Meta(description="Keep a few request bodies on disk, so that a new start saves too.")] = True
    cache_dir: Annotated[str, Meta(description="Where; default: segue/bases in the user's cache directory.")] = ""
    disk_bytes: Annotated[Bytes, Meta(description="What they may take on disk.")] = 64 * MIB
    memory_bytes: Annotated[Bytes, Meta(description="Bodies and replies held in memory to send against.")] = 256 * MIB
    max_body_bytes: Annotated[Bytes, Meta(description="Largest request body of an agent.")] = 64 * MIB
    max_held_bytes: Annotated[Bytes, Meta(description="Request bodies in memory, all agents together.")] = 512 * MIB
    max_connections: Annotated[int, Meta(ge=1, description="Open connections of agents.")] = 512
    connect_timeout_s: Annotated[Positive, Meta(description="How long a connection to a gateway may take.")] = 10.0
    patience_s: Annotated[Positive, Meta(description="How long a request waits for a link that was lost.")] = 20.0
    give_up_s: Annotated[Positive, Meta(description="Likewise, one that may have reached the provider already.")] = (
        300.0
    )
    park_s: Annotated[
        Positive, Meta(description="How long the reply to an agent that hung up during an outage is kept for it.")
    ] = 120.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration."""

    server: Server = Server()
    tunnel: Tunnel = Tunnel()
    sidecar: Sidecar = Sidecar()
    upstream: list[UpstreamConfig] = []
    route: list[Route] = []
    listener: list[Listener] = []
    key: list[Key] = []


_TABLES: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "tunnel": Tunnel,
    "sidecar": Sidecar,
    "upstream": UpstreamConfig,
    "route": Route,
    "listener": Listener,
    "key": Key,
}


#: Tables there is one of; the others have rows.
_SINGLE = frozenset({"server", "tunnel", "sidecar"})


class _Shape(msgspec.Struct):
    """The tables of a configuration, whatever is in them."""

    server: dict[str, Any] = {}
    tunnel: dict[str, Any] = {}
    sidecar: dict[str, Any] = {}
    upstream: list[dict[str, Any]] = []
    route: list[dict[str, Any]] = []
    listener: list[dict[str, Any]] = []
    key: list[dict[str, Any]] = []


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    sidecar: Mapping[str, object] | None = None,
    **server: object,
) -> Config:
    """Read the configuration. `server` and `sidecar` hold what the command line set there (None means not set).

    Raises:
        ConfigError: the file cannot be read, or says something that is not allowed.
    """
    tree = {} if path is None else _read(path)
    _convert(tree, _Shape)  # or nothing could be laid over it
    environ = os.environ if environ is None else environ
    for name in sorted(environ, key=_in_order):
        if name.startswith("SEGUE_"):
            _set_from_environment(tree, name, environ[name])
    for table, overrides in (("server", server), ("sidecar", sidecar or {})):
        said = {name: value for name, value in overrides.items() if value is not None}
        if said:
            tree[table] = {**tree.get(table, {}), **said}
    config = _convert(tree, Config)
    _check(config)
    return config


def without_secrets(config: Config) -> Config:
    """Return the configuration as it may be shown: what keys, headers and bodies hold is only said to be set."""
    replace = msgspec.structs.replace
    sidecar = config.sidecar if config.sidecar.key is None else replace(config.sidecar, key="(set)")
    shown = [
        replace(
            up,
            headers=[f"{split_header(line)[0]}: (set)" for line in up.headers],
            body=dict.fromkeys(up.body, "(set)"),
        )
        for up in config.upstream
    ]
    return replace(config, sidecar=sidecar, upstream=shown)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only be reached from this machine."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def cache_directory(sidecar: Sidecar, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return where the sidecar keeps its bases; None: nowhere."""
    if not sidecar.cache:
        return None
    if sidecar.cache_dir:
        return Path(sidecar.cache_dir).expanduser()
    environ = os.environ if environ is None else environ
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / caches) / "segue" / "bases"
    except RuntimeError:  # nobody's home
        return None


def child_environment(variables: Mapping[str, str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment with more variables, for a program that is to reach this machine without any proxy."""
    ours = dict(os.environ if environ is None else environ)
    if any(ours.get(proxy) for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        named = ours.get("no_proxy") or ours.get("NO_PROXY")
        ours["no_proxy"] = ours["NO_PROXY"] = ",".join(filter(None, (named, "127.0.0.1", "localhost")))
    return {**ours, **variables}


def replaced_variables(variables: Mapping[str, str], environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of those variables that our environment has with another value."""
    ours = os.environ if environ is None else environ
    return [name for name, value in variables.items() if ours.get(name, "") not in {"", value}]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _convert(tree: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error))) from None


def _check(config: Config) -> None:
    _check_addresses(config)
    for what, names in (("key", [key.name for key in config.key]), ("upstream", [up.name for up in config.upstream])):
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ConfigError(f"two [[{what}]] tables are named {doubled[0]!r}: names must differ")
    for up in config.upstream:
        _check_upstream(up)
    owners: dict[str, str] = {}
    for key in config.key:
        other = owners.setdefault(key.sha256, key.name)
        if other != key.name:
            raise ConfigError(f"the [[key]] tables {other!r} and {key.name!r} have the same sha256: whose key is it?")


def _check_addresses(config: Config) -> None:
    addresses: list[Server | Listener] = [config.server, *config.listener]
    for one in addresses:
        where = "server" if one is config.server else "listener"
        if not config.key and not is_loopback(one.host):
            raise ConfigError(
                f"{where}.host is {one.host!r}, which others can reach, but there is no [[key]]: add one "
                "(name, tenant, sha256 = hex SHA-256 of the key), or listen on 127.0.0.1"
            )
    ports = [one.port for one in addresses if one.port]
    doubled = [port for port in ports if ports.count(port) > 1]
    if doubled:
        raise ConfigError(f"two addresses have the port {doubled[0]}: each [[listener]] needs a port of its own")


def _check_upstream(up: UpstreamConfig) -> None:
    """Check what belongs together: a setting that would do nothing is a mistake."""
    where = f"upstream {up.name!r}"
    for field in msgspec.structs.fields(up):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        is_foreign = up.dialect not in DIALECTS_OF.get(field.name, (up.dialect,))
        if is_foreign and getattr(up, field.name) != default:
            raise ConfigError(f"{where}: {field.name} means nothing to the dialect {up.dialect!r}; leave it out")
    if up.dialect not in _PROVIDERS:
        return
    problem = _fault_of_url(up.base_url)
    if problem is not None:
        raise ConfigError(f"{where}: base_url {problem}")
    if up.key_env is not None and up.pass_key:
        raise ConfigError(f"{where}: it has key_env and pass_key: whose key is sent?")
    for line in up.headers:
        if not _HEADER.fullmatch(line):
            raise ConfigError(f"{where}: the header {line!r} is not of the form 'Name: value'")
    if up.slots is not None and (up.max_concurrent or 1) > up.slots:
        raise ConfigError(
            f"{where}: max_concurrent is {up.max_concurrent}, but each turn needs one of {up.slots} slots; "
            "leave it out, or raise slots if the server has more"
        )


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
    """Return how many turns of an upstream run at once."""
    return up.max_concurrent or up.slots or _CONCURRENT


def spin_less() -> None:
    """Let the threads of a model in this process sleep soon when they wait for each other, before it is loaded.

    They spin by default (libgomp, on Linux), and so take the processor from those they wait for when the machine has
    other work. Measured on two processors, 256 tokens of a prompt: idle 0.8 s either way; beside one busy process 1.7
    against 2.9 to 10 s. What the environment says of it is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "200")


def read_key(up: UpstreamConfig, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the API key of an upstream, which is kept out of the configuration.

    Raises:
        ConfigError: the variable that should hold it is not set, or holds what cannot be a key.
    """
    if up.key_env is None:
        return None
    value = (os.environ if environ is None else environ).get(up.key_env, "").strip()
    if not value:
        raise ConfigError(f"upstream {up.name!r}: the variable {up.key_env} (key_env) is not set")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"upstream {up.name!r}: what the variable {up.key_env} (key_env) holds cannot be a key")
    return value


def split_header(line: str) -> tuple[str, str]:
    """Return name and value of one of an upstream's `headers`."""
    found = _HEADER.fullmatch(line)
    assert found is not None, "checked when the configuration was read"
    return found["name"], found["value"]


def _explain(text: str) -> str:
    """Say what is wrong and, for a misspelt key, what was probably meant."""
    what, _, path = text.partition(" - at `$")
    where = path.rstrip("`").lstrip(".") or "the configuration"
    _, _, field = what.partition("unknown field `")
    if not field:
        return f"{where}: {what}"
    field = field.rstrip("`")
    known = _TABLES.get(where.partition("[")[0], Config).__struct_fields__
    close = get_close_matches(field, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
    return f"{where}: unknown key {field!r}; {hint}"


def _set_from_environment(tree: dict[str, Any], name: str, value: str) -> None:
    table, _, rest = name.removeprefix("SEGUE_").lower().partition("_")
    if table not in _TABLES or not rest:
        raise ConfigError(f"{name}: no such setting; variables are SEGUE_SERVER_…, SEGUE_UPSTREAM_0_…, SEGUE_KEY_0_…")
    target: dict[str, Any]
    if table in _SINGLE:
        target = tree.setdefault(table, {})
    else:
        index, _, rest = rest.partition("_")
        target = _row(tree.setdefault(table, []), index, name)
    fields = get_type_hints(_TABLES[table])
    if rest not in fields:
        raise ConfigError(f"{name}: no such setting; {table} has {', '.join(fields)}")
    target[rest] = _parse(value, fields[rest], name)


def _in_order(name: str) -> list[str | int]:
    """Sort the variables of row 2 before those of row 10: rows are made in their order."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _row(rows: list[dict[str, Any]], index: str, name: str) -> dict[str, Any]:
    if not index.isdecimal() or int(index) > len(rows):
        raise ConfigError(f"{name}: the number after the table counts its rows from 0, without a gap")
    if int(index) == len(rows):
        rows.append({})
    return rows[int(index)]


def _parse(value: str, hint: Any, name: str) -> Any:  # noqa: ANN401 - a type hint in, a value of that type out
    if get_origin(hint) is list:
        return [part.strip() for part in value.split(",") if part.strip()]
    if get_origin(hint) is dict:
        try:
            return msgspec.json.decode(value, type=hint)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ConfigError(f"{name}: what it holds is not a JSON object") from None
    wanted = hint
    if NoneType in get_args(hint):  # an optional setting; unset is how to leave it out
        wanted = next(kind for kind in get_args(hint) if kind is not NoneType)
    try:
        return msgspec.convert(value, wanted, strict=False)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise ConfigError(f"{name}: {error}") from None
