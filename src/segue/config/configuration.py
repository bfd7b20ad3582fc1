"""The whole configuration, and the checks that concern more than one of its tables."""

from __future__ import annotations

import re

import msgspec

from segue.config.agent import AgentConfig
from segue.config.certificates import CertificateConfig
from segue.config.compaction import CompactionConfig
from segue.config.errors import ConfigError
from segue.config.keys import KeyConfig
from segue.config.limits import LimitsConfig, TenantConfig
from segue.config.secret_urls import without_password
from segue.config.server import ListenerConfig, ServerConfig
from segue.config.sidecar import SidecarConfig
from segue.config.ssh import SshConfig
from segue.config.tunnel import RouteConfig, TunnelConfig
from segue.config.upstream import UpstreamConfig, check_upstream, split_header
from segue.http.origins import is_loopback

#: The user and password of an address; the sidecar refuses such an address of a gateway when it starts.
_USER = re.compile(r"//[^/]*@")
#: Stores that one process has.
_OWN_STORES = ("memory:", "sqlite:")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    tunnel: TunnelConfig = TunnelConfig()
    sidecar: SidecarConfig = SidecarConfig()
    ssh: SshConfig = SshConfig()
    agent: AgentConfig = AgentConfig()
    compaction: CompactionConfig = CompactionConfig()
    upstream: list[UpstreamConfig] = []
    route: list[RouteConfig] = []
    listener: list[ListenerConfig] = []
    key: list[KeyConfig] = []
    certificate: list[CertificateConfig] = []
    limits: LimitsConfig = LimitsConfig()
    tenant: list[TenantConfig] = []

    @property
    def callers(self) -> list[KeyConfig | CertificateConfig]:
        """What says who somebody is: the keys, and the client certificates."""
        return [*self.key, *self.certificate]


def without_secrets(config: Config) -> Config:
    """Return the configuration as it may be shown: the values of keys, headers and bodies become `(set)`."""
    replace = msgspec.structs.replace
    server = replace(
        config.server, store=without_password(config.server.store), live=without_password(config.server.live)
    )
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
    return replace(config, server=server, sidecar=sidecar, agent=agent, upstream=shown)


def check(config: Config) -> None:
    """Check what the types of the settings cannot express.

    Raises:
        ConfigError: settings contradict each other.
    """
    _check_addresses(config)
    _check_live(config.server)
    if config.sidecar.key is not None and config.sidecar.key_file is not None:
        raise ConfigError("sidecar: it has key and key_file: which one is sent?")
    if (config.sidecar.client_cert is None) != (config.sidecar.client_key is None):
        raise ConfigError("sidecar: client_cert and client_key belong together")
    _check_names("key", [key.name for key in config.key])
    _check_names("certificate", [one.name for one in config.certificate])
    _check_names("upstream", [up.name for up in config.upstream])
    _check_names("tenant", [tenant.name for tenant in config.tenant])
    _check_limits(config)
    _check_tls(config)
    for up in config.upstream:
        check_upstream(up)
    _check_groups(config)
    owners: dict[str, str] = {}
    for key in config.key:
        other = owners.setdefault(key.sha256, key.name)
        if other != key.name:
            raise ConfigError(f"the [[key]] tables {other!r} and {key.name!r} have the same sha256: whose key is it?")


def _check_live(server: ServerConfig) -> None:
    if server.workers != 1 and (server.live == "memory:" or server.store.startswith(_OWN_STORES)):
        raise ConfigError(
            "[server]: several workers are several gateways, which must share what they keep and what they do: set "
            "store (postgresql://…) and live (redis://…), or workers = 1"
        )
    if server.live != "memory:" and server.store.startswith(_OWN_STORES):
        raise ConfigError(
            "[server]: live is for several gateways, and this store is that of one process: they need one that they "
            "share (store = postgresql://…), or live = memory:"
        )


def _check_groups(config: Config) -> None:
    for group in {up.group for up in config.upstream if up.group is not None}:
        if all(up.backup for up in config.upstream if up.group == group):
            raise ConfigError(f"the group {group!r} has only backups: one of its upstreams must be none")


def _check_tls(config: Config) -> None:
    server = config.server
    if (server.tls_cert is None) != (server.tls_key is None):
        raise ConfigError("[server]: tls_cert and tls_key belong together")
    if server.tls_client_ca is not None and server.tls_cert is None:
        raise ConfigError("[server]: tls_client_ca needs TLS: set tls_cert and tls_key")
    if server.tls_client_ca is None and (config.certificate or server.tls_client_auth == "required"):
        raise ConfigError(
            "[server]: without tls_client_ca, no client certificate is asked for: name the authorities there"
        )
    keys = {key.name for key in config.key}
    for row in config.certificate:
        ways = (row.sha256 is not None) + bool(row.subject) + (row.san is not None)
        if ways != 1:
            raise ConfigError(f"[[certificate]] {row.name!r}: write one of sha256, subject and san")
        if row.name in keys:
            raise ConfigError(f"a [[key]] and a [[certificate]] are named {row.name!r}: names must differ")


def _check_limits(config: Config) -> None:
    for key in config.callers:
        table = "key" if isinstance(key, KeyConfig) else "certificate"
        if key.limits.stored_responses is not None or key.limits.stored_bytes is not None:
            raise ConfigError(
                f"[[{table}]] {key.name!r}: limits.stored_responses and limits.stored_bytes are those of a tenant, "
                "since responses belong to it: write them into [limits], or into a [[tenant]] table"
            )


def _check_names(table: str, names: list[str]) -> None:
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"two [[{table}]] tables are named {doubled[0]!r}: names must differ")


def _check_addresses(config: Config) -> None:
    if _USER.search(config.tunnel.address):
        raise ConfigError("tunnel.address holds a user or a password, and every sidecar is told it: leave them out")
    addresses: list[ServerConfig | ListenerConfig] = [config.server, *config.listener]
    for one in addresses:
        where = "server" if one is config.server else "listener"
        if not config.callers and not is_loopback(one.host):
            raise ConfigError(
                f"{where}.host is {one.host!r}, which others can reach, but there is no [[key]]: add one "
                "(name, tenant, sha256 = hex SHA-256 of the key), or listen on 127.0.0.1"
            )
    ports = [one.port for one in addresses if one.port]
    doubled = [port for port in ports if ports.count(port) > 1]
    if doubled:
        raise ConfigError(f"two addresses have the port {doubled[0]}: each [[listener]] needs a port of its own")
