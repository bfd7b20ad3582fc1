"""The gateway that a command runs for its own user alone: of the user's configuration, it has what is for that.

It forwards as the routes say. It has the configured upstreams and store only if a route leads to the gateway's own API;
otherwise a local model would be loaded, for which there is no use. Not here: running it (`segue.cli.run`,
`segue.cli.ssh_gateway`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from segue.config import Config, KeyConfig, ServerConfig
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream


class PrivateGateway(NamedTuple):
    """Its configuration, and what answers for models (None: what is configured)."""

    config: Config
    router: Router | None


def private_gateway(config: Config, found: Path | None, *, keys: Sequence[KeyConfig], named: bool) -> PrivateGateway:
    """Return the gateway of a configuration that was read from `found`; only holders of these keys may use it.

    `named`: the user has named the file, and so means the default store, which is a file of the working folder.
    """
    uses_own_api = found is not None and any(route.target == "self" for route in config.route)
    replace = msgspec.structs.replace
    has_store = uses_own_api and (named or config.server.store != ServerConfig().store)
    config = replace(
        config,
        server=replace(
            config.server,
            host="127.0.0.1",
            port=0,
            store=config.server.store if has_store else "memory:",
            tls_cert=None,  # it is reached within this machine, and has no name that a certificate could have
            tls_key=None,
            tls_client_ca=None,
            tls_client_auth="optional",
        ),
        tunnel=replace(config.tunnel, address=""),  # it is that of another gateway
        listener=[],
        key=list(keys),
        certificate=[],
    )
    return PrivateGateway(config, None if uses_own_api else Router([ModelRule(ScriptedUpstream(), (MODEL,))]))
