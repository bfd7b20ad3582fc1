"""The whole configuration, and the checks that concern more than one of its tables."""

from __future__ import annotations

import re

import msgspec

from segue.config.agent import AgentConfig
from segue.config.errors import ConfigError
from segue.config.keys import KeyConfig
from segue.config.limits import LimitsConfig, TenantConfig
from segue.config.server import ListenerConfig, ServerConfig
from segue.config.sidecar import SidecarConfig
from segue.config.ssh import SshConfig
from segue.config.tunnel import RouteConfig, TunnelConfig
from segue.config.upstream import UpstreamConfig, check_upstream, split_header
from segue.http.origins import is_loopback

#: The user and password of an address; the sidecar refuses such an address of a gateway when it starts.
_USER = re.compile(r"//[^/]*@")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    tunnel: TunnelConfig = TunnelConfig()
    sidecar: SidecarConfig = SidecarConfig()
    ssh: SshConfig = SshConfig()
    agent: AgentConfig = AgentConfig()
    upstream: list[UpstreamConfig] = []
    route: list[RouteConfig] = []
    listener: list[ListenerConfig] = []
    key: list[KeyConfig] = []
    limits: LimitsConfig = LimitsConfig()
    tenant: list[TenantConfig] = []


def without_secrets(config: Config) -> Config:
    """Return the configuration as it may be shown: the values of keys, headers and bodies become `(set)`."""
    replace = msgspec.structs.replace
    sidecar = replace(
        config.sidecar,
        key=None if config.sidecar.key is None else "(set)",
        token=None if config.sidecar.token is None else "(set)",
        proxy=config.sidecar.proxy and "(set)",  # it may hold a password
        gateways=[_USER.sub("//(set)@", gateway) for gateway in config.sidecar.gateways],
    )
    agent = replace(
        config.agent,
        key=None if config.agent.key is None else "(set)",
        proxy=config.agent.proxy and "(set)",
    )
    shown = [
        replace(
            up,
            headers=[f"{split_header(line)[0]}: (set)" for line in up.headers],
            body=dict.fromkeys(up.body, "(set)"),
        )
        for up in config.upstream
    ]
    return replace(config, sidecar=sidecar, agent=agent, upstream=shown)


def check(config: Config) -> None:
    """Check what the types of the settings cannot express.

    Raises:
        ConfigError: settings contradict each other.
    """
    _check_addresses(config)
    if config.sidecar.key is not None and config.sidecar.key_file is not None:
        raise ConfigError("sidecar: it has key and key_file: which one is sent?")
    _check_names("key", [key.name for key in config.key])
    _check_names("upstream", [up.name for up in config.upstream])
    _check_names("tenant", [tenant.name for tenant in config.tenant])
    _check_limits(config)
    if (config.server.tls_cert is None) != (config.server.tls_key is None):
        raise ConfigError("server: tls_cert and tls_key belong together")
    for up in config.upstream:
        check_upstream(up)
    _check_groups(config)
    owners: dict[str, str] = {}
    for key in config.key:
        other = owners.setdefault(key.sha256, key.name)
        if other != key.name:
            raise ConfigError(f"the [[key]] tables {other!r} and {key.name!r} have the same sha256: whose key is it?")


def _check_groups(config: Config) -> None:
    for group in {up.group for up in config.upstream if up.group is not None}:
        if all(up.backup for up in config.upstream if up.group == group):
            raise ConfigError(f"the group {group!r} has only backups: one of its upstreams must be none")


def _check_limits(config: Config) -> None:
    for key in config.key:
        if key.limits.stored_responses is not None or key.limits.stored_bytes is not None:
            raise ConfigError(
                f"key {key.name!r}: limits.stored_responses and limits.stored_bytes are those of a tenant, since "
                "responses belong to it: write them into [limits], or into a [[tenant]] table"
            )


def _check_names(table: str, names: list[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"two [[{table}]] tables are named {doubled[0]!r}: names must differ")


def _check_addresses(config: Config) -> None:
    addresses: list[ServerConfig | ListenerConfig] = [config.server, *config.listener]
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
