"""`[sidecar]`: where the local end of the tunnel listens, and which gateways it uses. Not here: agents."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from segue.config.units import MIB, Bytes, Positive


class SidecarConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[sidecar]`: the local end of the tunnel, which agents are pointed at."""

    gateways: Annotated[
        list[str],
        Meta(
            description=(
                "URLs of gateways, in the order in which they are tried: wss://HOST, ws://HOST:PORT or ssh://HOST."
            )
        ),
    ] = []
    host: Annotated[str, Meta(description="Address to listen on for agents.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 4748
    hosts: Annotated[list[str], Meta(description="Host names that agents may use, besides loopback ones.")] = []
    origins: Annotated[
        list[str], Meta(description="Origins of web pages that may call, besides the sidecar's own.")
    ] = []
    access: Annotated[
        Literal["user", "token", "anyone"],
        Meta(
            description=(
                "Who may use the sidecar: programs of your own user, and whoever has the token (user); whoever has the "
                "token (token); or everybody who reaches its port (anyone)."
            )
        ),
    ] = "user"
    token: Annotated[
        Annotated[str, Meta(pattern="^[A-Za-z0-9_~-]{16,128}$")] | None,
        Meta(
            description=(
                "The token of agents that are not known by their user: their base URLs begin with "
                "http://HOST:PORT/TOKEN. At least 16 letters, digits, _, ~ or -."
            ),
        ),
    ] = None
    key: Annotated[str | None, Meta(description="The API key to send to the gateway, if it wants one.")] = None
    key_file: Annotated[
        str | None, Meta(description="A file that holds this key, in place of `key`; it is read at the start.")
    ] = None
    cafile: Annotated[str | None, Meta(description="Certificates to verify gateways by, instead of the system's.")] = (
        None
    )
    client_cert: Annotated[
        str | None, Meta(description="PEM file with a certificate to show to gateways that ask for one.")
    ] = None
    client_key: Annotated[str | None, Meta(description="PEM file with the key of this certificate.")] = None
    proxy: Annotated[
        str | None,
        Meta(
            description=(
                "HTTP proxy on the way to wss:// gateways, http://[USER:PASSWORD@]HOST:PORT; empty for none. If it is "
                "not set, HTTPS_PROXY or else ALL_PROXY is used. Hosts in NO_PROXY are reached without it."
            )
        ),
    ] = None
    install: Annotated[
        str | None,
        Meta(
            description=(
                "What uvx or pipx may fetch on a machine of ssh:// that has no segue: NAME==VERSION, or a wheel as its "
                "path there or https:// URL."
            )
        ),
    ] = None
    install_index: Annotated[
        str | None,
        Meta(description="The package index that NAME==VERSION comes from, https://HOST/…, instead of the public one."),
    ] = None
    direct: Annotated[bool, Meta(description="Go straight to the provider when no gateway can be reached.")] = False
    cache: Annotated[
        bool,
        Meta(description="Keep a few request bodies on disk, so that the first requests after a start are deltas too."),
    ] = True
    cache_dir: Annotated[
        str, Meta(description="The folder for them; default: segue/bases in the user's cache directory.")
    ] = ""
    disk_bytes: Annotated[Bytes, Meta(description="How many bytes they may take on disk.")] = 64 * MIB
    memory_bytes: Annotated[Bytes, Meta(description="Bodies and replies kept in memory as bases of deltas.")] = (
        256 * MIB
    )
    max_body_bytes: Annotated[Bytes, Meta(description="Largest request body of an agent.")] = 64 * MIB
    max_held_bytes: Annotated[Bytes, Meta(description="Request bodies in memory, all agents together.")] = 512 * MIB
    max_connections: Annotated[int, Meta(ge=1, description="Open connections of agents.")] = 512
    connect_timeout_s: Annotated[Positive, Meta(description="How long a connection to a gateway may take.")] = 10.0
    patience_s: Annotated[
        Positive, Meta(description="How long a request waits for a link, after the start or since the link was lost.")
    ] = 20.0
    give_up_s: Annotated[
        Positive, Meta(description="How long a request that may have reached the provider waits for it.")
    ] = 300.0
    park_s: Annotated[
        Positive, Meta(description="How long the reply to an agent that hung up during an outage is kept for it.")
    ] = 120.0
