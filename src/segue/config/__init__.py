"""The configuration: one frozen object, read once from a TOML file and the environment.

Every default of a setting is in this package and nowhere else, and only this package reads the environment. A key of
the file is a field of one of the classes below. An environment variable, `SEGUE_` + the path of the key
(`SEGUE_SERVER_PORT`, `SEGUE_KEY_0_TENANT`), overrides the file, and the command line overrides both. Not here: opening
what the configuration names.
"""

from __future__ import annotations

from segue.config.agent import AgentConfig
from segue.config.certificates import CertificateConfig
from segue.config.compaction import CompactionConfig
from segue.config.config_file import FILE_NAME, ChosenFile, anchored, choose_file, user_config_file
from segue.config.configuration import Config, without_secrets
from segue.config.environment import (
    ChosenProxy,
    agent_key,
    agent_proxy,
    cache_directory,
    child_environment,
    command_environment,
    compaction_secrets,
    gateway_proxy,
    has_openmp_policy,
    models_directory,
    named_key,
    read_key,
    ssh_log_file,
    state_directory,
)
from segue.config.errors import ConfigError
from segue.config.keys import KeyConfig, key_of_file
from segue.config.limits import LimitsConfig, TenantConfig
from segue.config.loading import load
from segue.config.server import ListenerConfig, ServerConfig
from segue.config.setting_sources import SettingSource, SourcedSetting, sourced_settings
from segue.config.sidecar import SidecarConfig
from segue.config.ssh import SshConfig
from segue.config.tunnel import RouteConfig, TunnelConfig
from segue.config.units import DAY_S
from segue.config.upstream import DIALECTS_OF, ProviderDialect, UpstreamConfig, concurrency, split_header

__all__ = [
    "DAY_S",
    "DIALECTS_OF",
    "FILE_NAME",
    "AgentConfig",
    "CertificateConfig",
    "ChosenFile",
    "ChosenProxy",
    "CompactionConfig",
    "Config",
    "ConfigError",
    "KeyConfig",
    "LimitsConfig",
    "ListenerConfig",
    "ProviderDialect",
    "RouteConfig",
    "ServerConfig",
    "SettingSource",
    "SidecarConfig",
    "SourcedSetting",
    "SshConfig",
    "TenantConfig",
    "TunnelConfig",
    "UpstreamConfig",
    "agent_key",
    "agent_proxy",
    "anchored",
    "cache_directory",
    "child_environment",
    "choose_file",
    "command_environment",
    "compaction_secrets",
    "concurrency",
    "gateway_proxy",
    "has_openmp_policy",
    "key_of_file",
    "load",
    "models_directory",
    "named_key",
    "read_key",
    "sourced_settings",
    "split_header",
    "ssh_log_file",
    "state_directory",
    "user_config_file",
    "without_secrets",
]
