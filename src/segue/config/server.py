"""`[server]` and `[[listener]]`: where the gateway listens, and its limits."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from segue.config.limits import ThreadKeeping
from segue.config.units import DAY_S, MIB, Bytes, Positive
from segue.protocol.lanes import Profile


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=None):
    """`[server]`: where the gateway listens, and its limits."""

    host: Annotated[str, Meta(description="Address to listen on. Anything but loopback needs a [[key]].")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 4747
    store: Annotated[
        str,
        Meta(description="Where store=true responses are kept: sqlite:///FILE, postgresql://HOST/DATABASE or memory:"),
    ] = "sqlite:///segue.db"
    live: Annotated[
        str,
        Meta(
            description=(
                "What several gateways share while turns run: memory: (nothing: there is one gateway), redis://HOST/0, "
                "redis+sentinel://… or redis+cluster://…; see Run several gateways."
            )
        ),
    ] = "memory:"
    workers: Annotated[
        Annotated[int, Meta(ge=1)] | Literal["auto"],
        Meta(
            description=(
                "Processes that serve the ports; auto: one for each core. Several need a store and a live URL that "
                "they share. Limits of connections and memory are for each of them."
            )
        ),
    ] = 1
    worker_silence_s: Annotated[
        float,
        Meta(
            ge=0,
            description=(
                "With several workers: one whose event loop has stood still for so long is killed, and another one "
                "takes its place; 0: never."
            ),
        ),
    ] = 20.0
    hosts: Annotated[list[str], Meta(description="Host names that requests may use, besides loopback ones.")] = []
    origins: Annotated[
        list[str], Meta(description="Origins of web pages that may call, besides the gateway's own.")
    ] = []
    access: Annotated[
        Literal["user", "anyone"],
        Meta(
            description=(
                "Without a [[key]] and a [[certificate]]: who on this machine may use the gateway, programs of its own "
                "user, or anyone. With them it means nothing."
            )
        ),
    ] = "user"
    retention_s: Annotated[Positive, Meta(description="How long a stored response lives.")] = 30 * DAY_S
    sweep_interval_s: Annotated[Positive, Meta(description="How often expired responses are removed.")] = 3600.0
    memory_budget_bytes: Annotated[Bytes, Meta(description="History held in memory, all tenants together.")] = 512 * MIB
    fragments_budget_bytes: Annotated[
        Bytes, Meta(description="History kept rendered for providers, all tenants together.")
    ] = 256 * MIB
    max_message_bytes: Annotated[Bytes, Meta(description="Largest request body or WebSocket message.")] = 16 * MIB
    max_items: Annotated[int, Meta(ge=1, description="Items in the input of one request.")] = 20_000
    max_values: Annotated[int, Meta(ge=1, description="JSON values in one request, within each other or not.")] = (
        100_000
    )
    uploads_bytes: Annotated[
        Bytes, Meta(description="Bodies of requests that are not whole yet, which tenants share evenly.")
    ] = 256 * MIB
    requests_bytes: Annotated[
        Bytes, Meta(description="Requests from when they are whole until they are answered; tenants share it evenly.")
    ] = 512 * MIB
    max_connections: Annotated[
        int, Meta(ge=1, description="Open connections; fewer if the process may not open two files for each.")
    ] = 10_000
    head_timeout_s: Annotated[Positive, Meta(description="How long a new connection may take to send a request.")] = (
        15.0
    )
    body_timeout_s: Annotated[Positive, Meta(description="How long each 4 KiB of a body may take.")] = 30.0
    keep_alive_s: Annotated[
        Positive, Meta(description="How long a connection may be idle between two requests over HTTP.")
    ] = 120.0
    stream_keep_alive_s: Annotated[
        float,
        Meta(
            ge=0,
            description=(
                "After how much silence of a stream of server-sent events something is sent that means nothing, so "
                "that nobody on the way closes it; 0: never."
            ),
        ),
    ] = 15.0
    max_age_s: Annotated[Positive, Meta(description="Age limit of a WebSocket connection.")] = 3600.0
    idle_timeout_s: Annotated[Positive, Meta(description="A connection without a turn for this long is closed.")] = (
        600.0
    )
    max_queued: Annotated[int, Meta(ge=1, description="Messages that may wait in a connection's lanes.")] = 64
    profile: Annotated[Profile, Meta(description="The rules that WebSocket connections follow.")] = "openai"
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
    max_kept: Annotated[int, Meta(ge=1, description="Kept turns that run at once, shared evenly by tenants.")] = 256
    grace_s: Annotated[
        float, Meta(ge=0, description="How long the unstored responses of a lost connection can still be continued.")
    ] = 0.0
    threads: Annotated[
        ThreadKeeping, Meta(description="Where message threads are kept: memory, or durable, which is the store.")
    ] = "memory"
    thread_s: Annotated[
        Positive, Meta(description="How long a message thread in memory can be continued after its last use.")
    ] = 300.0
    thread_forks: Annotated[
        bool,
        Meta(description="Let a message of a thread be continued more than once; Anthropic's own service does not."),
    ] = True
    drain_s: Annotated[Positive, Meta(description="How long running turns may take to end at shutdown.")] = 30.0
    drain_delay_s: Annotated[
        float,
        Meta(ge=0, description="How long turns still begin at shutdown: until a balancer has seen it by its checks."),
    ] = 0.0
    tls_cert: Annotated[
        str | None, Meta(description="PEM file with the gateway's certificate and its chain: its ports speak TLS then.")
    ] = None
    tls_key: Annotated[str | None, Meta(description="PEM file with the key of the certificate.")] = None
    tls_client_ca: Annotated[
        str | None,
        Meta(description="PEM file with the authorities whose client certificates are taken: see [[certificate]]."),
    ] = None
    tls_client_auth: Annotated[
        Literal["optional", "required"],
        Meta(description="With tls_client_ca: whether clients may come without a certificate, with a key alone."),
    ] = "optional"
    audit_log: Annotated[
        str | None,
        Meta(description="File to which it is appended who reads and deletes what, or stderr; see Keys and tenants."),
    ] = None
    turn_log: Annotated[
        str | None,
        Meta(description="File to which a JSON line is appended for each turn, or stderr; see Operate."),
    ] = None
    reload_on_change: Annotated[
        bool, Meta(description="Read the file again when it has changed; SIGHUP does that in any case.")
    ] = False
    compression: Annotated[
        bool, Meta(description="Accept permessage-deflate from WebSocket clients that offer it.")
    ] = True


class ListenerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[listener]]`: one more address of the gateway, with a profile of its own; all else is the same."""

    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")]
    host: Annotated[str, Meta(description="Address to listen on. Anything but loopback needs a [[key]].")] = "127.0.0.1"
    profile: Annotated[Profile, Meta(description="The rules that WebSocket connections follow there.")] = "openai"
    per_worker: Annotated[
        bool,
        Meta(
            description=(
                "With several workers: the first has this port to itself, the second the next one, and so on. If "
                "[tunnel] address names the port, each worker tells sidecars its own."
            )
        ),
    ] = False
